"""docs/FORMAT.md tells the truth, and what it told yesterday still holds."""

from __future__ import annotations

import json
from pathlib import Path

import pyrage
import pytest

from tenant_backup.archive import chunks as chunks_module
from tenant_backup.archive import lists as lists_module
from tenant_backup.archive import writer as writer_module
from tenant_backup.archive.frame import Kind
from tests.archive.independent_reader import Tenant
from tests.archive.sample import BACKUP_ID, Folder, Keyring, open_reader, read_all, write

GOLDEN = Path(__file__).parent / "golden"
ROWS = b"".join(b"%d\tGr\xc3\xbc\xc3\x9fe %d\t\\N\n" % (n, n) for n in range(20_000))
BLOB = bytes(range(256)) * 10
CONTENTS = {"t1/0": ROWS, "t1/1": b"", "schema": BLOB}


def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every kind of boundary in less than a megabyte; readers rely on none of these numbers."""
    monkeypatch.setattr(chunks_module, "CHUNK_TARGET", 2000)
    monkeypatch.setattr(chunks_module, "CHUNK_MAX", 4000)
    monkeypatch.setattr(chunks_module, "FRAME_MAX", 16_384)
    monkeypatch.setattr(chunks_module, "_spare", chunks_module.deque())
    monkeypatch.setattr(writer_module, "FRAME_MAX", 1000)
    monkeypatch.setattr(writer_module, "PART_CHUNKS", 20)
    monkeypatch.setattr(writer_module, "PACK_TARGET", 20_000)
    monkeypatch.setattr(writer_module, "_INDEX_PACK_TARGET", 4000)
    assert lists_module.PART_CHUNKS == 8192


def test_a_reader_written_from_the_document_reads_an_archive(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several packs, index packs, parts and pieces of the catalogue."""
    small_limits(monkeypatch)
    segments = {
        name: (Kind.BLOB if name == "schema" else Kind.ROWS, [data]) for name, data in CONTENTS.items()
    }
    written = write(folder, keys, segments)
    assert min(len(written.packs), len(written.lists), written.catalogue.frames) > 1
    identity = pyrage.x25519.Identity.from_str(keys.identity_text)
    assert Tenant(folder.root, identity, keys.public).restore(BACKUP_ID)[1] == CONTENTS
    assert read_all(open_reader(folder, keys)) == CONTENTS


@pytest.mark.parametrize("version", ["v1"])
def test_golden_archives_stay_readable_for_ever(version: str) -> None:
    """Made once by the program of that day; never made again."""
    golden = GOLDEN / version
    owner = json.loads((golden / "owner.json").read_text())
    identity = pyrage.x25519.Identity.from_str(owner["identity"])
    expected = {name: data.encode() for name, data in owner["segments"].items()}
    assert Tenant(golden / "acme", identity, owner["signingKey"]).restore(BACKUP_ID)[1] == expected

"""docs/FORMAT.md tells the truth, and what it told yesterday still holds."""

from __future__ import annotations

import json
import shutil
from collections import deque
from pathlib import Path

import pyrage
import pytest

from tenant_backup.archive import chunks as chunks_module
from tenant_backup.archive import names
from tenant_backup.archive import writer as writer_module
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import Identity
from tenant_backup.archive.reader import ArchiveReader, open_index_key, open_manifest
from tests.archive.independent_reader import Tenant
from tests.archive.sample import BACKUP_ID, Folder, Keyring, Segments, open_reader, read_all, write

GOLDEN = Path(__file__).parent / "golden"
ROWS = b"".join(b"%d\tGr\xc3\xbc\xc3\x9fe %d\t\\N\n" % (n, n) for n in range(20_000))
BLOB = bytes(range(256)) * 10
CONTENTS = {"t1/0": ROWS, "t1/1": b"", "schema": BLOB}


def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every kind of boundary in less than a megabyte; readers rely on none of these numbers."""
    monkeypatch.setattr(chunks_module, "CHUNK_MIN", 1000)
    monkeypatch.setattr(chunks_module, "CHUNK_MAX", 4000)
    monkeypatch.setattr(chunks_module, "FRAME_MAX", 16_384)
    monkeypatch.setattr(chunks_module, "_spare", deque())
    monkeypatch.setattr(writer_module, "FRAME_MAX", 1000)
    monkeypatch.setattr(writer_module, "PART_CHUNKS", 20)
    monkeypatch.setattr(writer_module, "PACK_TARGET", 20_000)
    monkeypatch.setattr(writer_module, "_INDEX_PACK_TARGET", 4000)


def test_a_reader_written_from_the_document_reads_an_archive(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several packs, index packs, parts and pieces of the catalogue."""
    small_limits(monkeypatch)
    segments: Segments = {
        name: (Kind.BLOB if name == "schema" else Kind.ROWS, [data]) for name, data in CONTENTS.items()
    }
    written = write(folder, keys, segments)
    assert min(len(written.packs), len(written.lists), written.catalogue.frames) > 1
    identity = pyrage.x25519.Identity.from_str(keys.identity_text)
    assert Tenant(folder.root, identity, keys.public).restore(BACKUP_ID)[1] == CONTENTS
    assert read_all(open_reader(folder, keys)) == CONTENTS


@pytest.mark.parametrize("version", ["v1"])
def test_golden_archives_stay_readable_for_ever(folder: Folder, version: str) -> None:
    """Made once by the program of that day; never made again."""
    golden = GOLDEN / version
    owner = json.loads((golden / "owner.json").read_text())
    identity = pyrage.x25519.Identity.from_str(owner["identity"])
    expected = {name: data.encode() for name, data in owner["segments"].items()}
    assert Tenant(golden / "acme", identity, owner["signingKey"]).restore(BACKUP_ID)[1] == expected
    shutil.copytree(golden / "acme", folder.root, dirs_exist_ok=True)
    data = (folder.root / names.manifest(BACKUP_ID)).read_bytes()
    manifest = open_manifest(data, owner["signingKey"], BACKUP_ID, ("acme", "default", "acme"))
    ours = Identity.parse(owner["identity"])
    reader = ArchiveReader(manifest, open_index_key(manifest, None, ours, folder), ours, folder)
    assert read_all(reader) == expected

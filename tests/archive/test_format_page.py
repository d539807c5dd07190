"""What docs/FORMAT.md computes is what the code does."""

from __future__ import annotations

import base64
import random
import secrets
import shutil
import tracemalloc
from collections import Counter
from contextlib import closing
from math import ceil
from pathlib import Path

import pytest
import zstandard

from tenant_backup.archive import collector, names, writer
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.lists import Catalogue, Part, Segment, encode_catalogue
from tenant_backup.archive.manifest import CataloguePlace, parse, sign
from tenant_backup.archive.pack import Binding, FrameEntry, ObjectRef, PackKind, PackReader
from tenant_backup.archive.writer import Written
from tenant_backup.contract import job as jobs
from tenant_backup.contract.job import Store as Place
from tenant_backup.stages import prepare
from tenant_backup.stores import connect
from tenant_backup.stores.volume import VolumeStore
from tests.archive import format_page
from tests.archive.format_page import GOLDEN, Costs
from tests.archive.golden.make import SECOND, TENANT
from tests.archive.sample import (
    BACKUP_ID,
    Folder,
    Keyring,
    Segments,
    describe,
    known_from,
    open_reader,
    write,
)

LATER = "acme_2024-01-16_14-30-25"
SCALE = 16  # packs and index packs are so much smaller, so that 200 MB make as many as 3 GB


def test_the_page_is_up_to_date() -> None:
    """The example is what is in the golden archive, the costs are those of the constants."""
    page = format_page.PAGE.read_text()
    assert format_page.filled(page) == page, "run: python -m tests.archive.format_page"


def piece(number: int) -> bytes:
    """About 4 MB of rows."""
    noise = random.Random(number)
    return b"".join(
        b"%d\t%d\t%s\tcustomer %d\tactive\n"
        % (row, noise.randrange(10**6), base64.b64encode(noise.randbytes(24)), noise.randrange(1000))
        for row in range(60_000)
    )


def tables() -> Segments:
    """200 MB in 4 tables."""
    return {f"t{table}/0": (Kind.ROWS, map(piece, range(table * 13, table * 13 + 13))) for table in range(4)}


def about(expected: float) -> object:
    """Within a tenth."""
    return pytest.approx(expected, rel=0.1)


def test_two_hundred_megabytes_cost_what_the_page_says(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks, packs, footers, lists and manifest; and of the same again nearly nothing."""
    monkeypatch.setattr(writer, "PACK_TARGET", writer.PACK_TARGET // SCALE)
    monkeypatch.setattr(writer, "_INDEX_PACK_TARGET", writer._INDEX_PACK_TARGET // SCALE)
    monkeypatch.setattr(writer, "PART_CHUNKS", writer.PART_CHUNKS // SCALE)
    written = write(folder, keys, tables())
    assert written.logical > 190_000_000
    packs = [opened(folder, keys, ref.id, PackKind.DATA) for ref in written.packs]
    sealed = sum(frame.sealed for frames in packs for frame in frames)
    expected = Costs(written.logical, sealed)
    with closing(open_reader(folder, keys)) as reader:
        parts = [part for segment in reader.catalogue().segments.values() for part in segment.parts]
        chunks = sum(len(reader.chunks(part)) for part in parts)
    assert chunks == about(expected.chunks)
    assert sum(map(len, packs)) == about(expected.frames)
    assert len(packs) == about(expected.packs)
    footers = sum(ref.length for ref in written.packs) - sealed + 16 * sum(map(len, packs))
    assert footers == about(expected.footer_bytes)
    lists = [(ref, frame) for ref in written.lists for frame in opened(folder, keys, ref.id, PackKind.INDEX)]
    assert sum(frame.sealed for _, frame in lists if frame.kind is Kind.CHUNKS) == about(expected.list_bytes)
    manifest = folder.length(names.manifest(BACKUP_ID))
    assert manifest == about(expected.manifest)

    known = known_from(folder, keys, BACKUP_ID)
    assert len(known._entries) == about(expected.known)
    again = write(folder, keys, tables(), LATER, known)
    assert (len(again.packs), len(again.lists)) == (len(written.packs), len(written.lists) + 1)
    assert again.added < format_page.CATALOGUE


def opened(folder: Folder, keys: Keyring, pack_id: str, kind: PackKind) -> list[FrameEntry]:
    """The frames of a pack, by its footer."""
    name = names.pack(pack_id) if kind is PackKind.DATA else names.index_pack(pack_id)
    with closing(
        PackReader(folder.root / name, Binding(kind, pack_id, "acme", keys.index), lambda _: bytes(32))
    ) as pack:
        return list(pack.frames)


def test_a_segment_costs_the_catalogue_what_the_page_says() -> None:
    """As many as a terabyte has."""
    lists = [secrets.token_hex(16) for _ in range(83)]
    count = ceil(1e12 / format_page.SEGMENT)
    segments = {
        f"t16425/{number}": Segment(
            "rows",
            "public.event",
            1_100_000 + number * 7,
            format_page.SEGMENT - number * 131,
            (Part(lists[number * len(lists) // count], number % 100, secrets.token_hex(32)),),
        )
        for number in range(count)
    }
    stored = len(zstandard.compress(encode_catalogue(Catalogue({}, segments))))
    assert stored == about(count * format_page.SEGMENT_ENTRY)


def test_the_collector_needs_the_memory_that_the_page_says(
    folder: Folder, keys: Keyring, tmp_path: Path
) -> None:
    """For a backup of a terabyte."""
    count = Costs(1e12, 1e12 / 3).packs
    refs = tuple(
        ObjectRef(secrets.token_hex(16), 33_554_432 + number, secrets.token_hex(32), 100_000_000 + number)
        for number in range(count)
    )
    written = Written(refs[1:], refs[:1], CataloguePlace(refs[0].id, 0, 1), 1, 1)
    data = sign(describe(keys, written), keys.signing)
    assert len(data) == about(format_page.MANIFEST + count * format_page.MANIFEST_REF)
    Folder(tmp_path / "acme").put(names.manifest(BACKUP_ID), data)
    place = connect(Place("volume"), "acme", secrets=tmp_path, volume=tmp_path)
    tracemalloc.start()
    try:
        collector.collect(place, dry_run=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak == about(count * format_page.COLLECTOR_NAME)


def test_an_unchanged_repeat_asks_the_store_as_often_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `prepare`, and by `upload` before and after its commit; on the golden chain as it stands."""
    shutil.copytree(GOLDEN / "chain", tmp_path / "acme")
    manifest = parse((tmp_path / "acme" / names.manifest(SECOND)).read_bytes())
    asked: Counter[str] = Counter()

    def counting(name: str) -> None:
        original = getattr(VolumeStore, name)

        def counted(*arguments: object) -> object:
            asked[name] += 1
            return original(*arguments)

        monkeypatch.setattr(VolumeStore, name, counted)

    counting("chunks")
    counting("entries")
    job = jobs.Backup(
        uid="another",
        backup_id=LATER.replace("2024", "2027"),
        name="acme-2",
        tenant=TENANT,
        database=jobs.Database("PostgreSQL", "nowhere", 1, "golden"),
        store=Place("volume"),
        recipients=list(manifest.encryption.recipients),
    )
    (tmp_path / "run").mkdir()
    prepare.run(job, run=tmp_path / "run", secrets=tmp_path, volume=tmp_path, spool=tmp_path / "run")
    store = connect(job.store, "acme", secrets=tmp_path, volume=tmp_path)
    collector.check_references(store, manifest, own=(), age=0)
    read_back = 1
    assert asked["chunks"] + read_back == format_page.repeat_gets(len(manifest.lists))
    assert asked["entries"] == format_page.repeat_lists(len(manifest.packs))

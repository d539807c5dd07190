"""What goes in comes out, whatever its shape, and only whole."""

from __future__ import annotations

import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_backup.archive import writer as writer_module
from tenant_backup.archive.chunks import CHUNK_MAX, CHUNK_MIN, FRAME_MAX, Chunker, Frame
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.reader import ArchiveReader
from tenant_backup.archive.writer import ArchiveWriter
from tests.archive.sample import Folder, Keyring, Segments, describe, open_reader, read_all, write

KEYS = Keyring.fresh()
ROW = st.binary(max_size=400).map(lambda row: row.replace(b"\n", b"n") + b"\n")


def scaled(rows: list[bytes], times: int) -> bytes:
    """Rows repeated until a few megabytes are there: hypothesis does not make those by itself."""
    return b"".join(rows) * times


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROW, max_size=30),
    times=st.integers(1, 3000),
    blob=st.binary(max_size=5000),
    cuts=st.lists(st.integers(1, 300_000), min_size=1, max_size=4),
)
def test_what_was_written_is_read_back(rows: list[bytes], times: int, blob: bytes, cuts: list[int]) -> None:
    """Any rows in any pieces, and a blob beside them."""
    data = scaled(rows, times)
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        pieces.append(data[at : at + cuts[len(pieces) % len(cuts)]])
        at += len(pieces[-1])
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        write(folder, KEYS, {"t1/0": (Kind.ROWS, pieces), "schema": (Kind.BLOB, [blob])})
        reader = open_reader(folder, KEYS)
        assert reader.catalogue().segments["t1/0"].rows == len(rows) * times
        assert read_all(reader) == {"t1/0": data, "schema": blob}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=30),
    times=st.integers(1, 3000),
    pieces=st.tuples(st.integers(1, 2 << 20), st.integers(1, 2 << 20)),
)
def test_cuts_depend_on_the_rows_and_not_on_how_they_arrive(
    rows: list[bytes], times: int, pieces: tuple[int, int]
) -> None:
    """Otherwise no chunk would ever be found again."""
    data = scaled(rows, times)
    first, second = (chunks_of(data, size) for size in pieces)
    assert first == second
    assert b"".join(first) == data
    assert all(len(chunk) <= CHUNK_MAX for chunk in first)
    assert all(chunk.endswith(b"\n") and len(chunk) >= CHUNK_MIN for chunk in first[:-1])


def chunks_of(data: bytes, piece: int, seed: int = 1) -> list[bytes]:
    """Cut rows that arrive in pieces of `piece` bytes."""
    chunks: list[bytes] = []

    def emit(frame: Frame) -> None:
        assert frame.length <= FRAME_MAX
        chunks.extend(bytes(frame.buffer[start:end]) for start, end in frame.bounds())

    chunker = Chunker(emit, seed, rows=True)
    for at in range(0, len(data), piece):
        chunker.write(data[at : at + piece])
    chunker.close()
    return chunks


def test_a_row_longer_than_a_chunk_is_kept_whole_across_chunks(folder: Folder, keys: Keyring) -> None:
    """Three megabytes without a row end."""
    row = b"x" * (3 << 20) + b"\n"
    write(folder, keys, {"t1/0": (Kind.ROWS, [row])})
    assert read_all(open_reader(folder, keys)) == {"t1/0": row}


def test_a_backup_without_rows_is_a_backup(folder: Folder, keys: Keyring) -> None:
    """An empty table and an empty catalogue need no data pack at all."""
    write(folder, keys, {"t1/0": (Kind.ROWS, [])})
    assert read_all(open_reader(folder, keys)) == {"t1/0": b""}


def test_many_packs_and_long_chunk_lists_are_read_back(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small limits make every boundary: packs, index packs, parts of a segment."""
    monkeypatch.setattr(writer_module, "PACK_TARGET", 2 << 20)
    monkeypatch.setattr(writer_module, "_INDEX_PACK_TARGET", 2000)
    monkeypatch.setattr(writer_module, "PART_CHUNKS", 10)
    segments: Segments = {f"t{n}/0": (Kind.ROWS, [secrets.token_bytes(4 << 20)]) for n in range(4)}
    written = write(folder, keys, segments)
    assert len(written.packs) >= 6
    assert len(written.lists) >= 3
    expected = {name: b"".join(pieces) for name, (_, pieces) in segments.items()}
    assert read_all(open_reader(folder, keys)) == expected


def test_the_store_sees_neither_rows_nor_names(folder: Folder, keys: Keyring) -> None:
    """Neither in the clear nor, as it would be after zstd alone, by a repeated word."""
    write(
        folder, keys, {"t1/0": (Kind.ROWS, [b"1\tconfidential\n"]), "schema": (Kind.BLOB, [b"CREATE TABLE"])}
    )
    everything = b"".join((folder.root / name).read_bytes() for name in folder.names())
    for word in (b"confidential", b"CREATE TABLE", b"public.t", b"t1/0", keys.index.secret):
        assert word not in everything


def test_nothing_but_the_objects_is_left_behind(folder: Folder, keys: Keyring) -> None:
    """Every fetched pack is gone from the disk after the restore."""
    write(folder, keys, {"t1/0": (Kind.ROWS, [b"1\n"])})
    before = folder.names()
    read_all(open_reader(folder, keys))
    assert folder.names() == before


def test_segments_written_at_once_do_not_mix(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads share packs and the pool, as four connections of a dump do; four read at once."""
    monkeypatch.setattr(writer_module, "PACK_TARGET", 1 << 20)
    expected = {f"t{n}/0": secrets.token_bytes(5 << 20) for n in range(4)}
    writer = ArchiveWriter(keys.writer_keys(), "acme", folder.root, folder.take)

    def write_one(segment_id: str) -> None:
        segment = writer.segment(segment_id, Kind.ROWS, "public.t")
        data = expected[segment_id]
        for at in range(0, len(data), 100_000):
            segment.write(data[at : at + 100_000])
        segment.end()
        segment.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_one, expected))
    manifest = describe(keys, writer.finish({}))
    reader = ArchiveReader(manifest, keys.index, keys.identity, folder)
    segments = reader.catalogue().segments
    with ThreadPoolExecutor(4) as threads:
        contents = threads.map(lambda name: b"".join(reader.blocks(segments[name])), expected)
        assert dict(zip(expected, contents, strict=True)) == expected
    reader.close()

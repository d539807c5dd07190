"""A second backup refers to what the first one stored, and restores as if it had stored it all."""

from __future__ import annotations

import dataclasses
import random
import re
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_backup.archive import names
from tenant_backup.archive import writer as writer_module
from tenant_backup.archive.frame import Damaged, Kind
from tenant_backup.archive.known import CROWD
from tenant_backup.archive.manifest import Manifest, parse, sign
from tenant_backup.archive.writer import Written
from tests.archive.sample import (
    BACKUP_ID,
    Folder,
    Keyring,
    Segments,
    known_from,
    open_reader,
    read_all,
    write,
)
from tests.archive.test_round_trip import chunks_of

KEYS = Keyring.fresh()
SECOND, THIRD = "acme_2024-01-16_14-30-25", "acme_2024-01-17_14-30-25"
BLOB = b"CREATE TABLE t (a int)"


def rows(count: int, seed: int = 0, first: int = 0) -> bytes:
    """Rows of about 100 bytes that zstd does not make much smaller."""
    noise = random.Random(seed)
    return b"".join(b"%d\t%s\n" % (first + n, noise.randbytes(45).hex().encode()) for n in range(count))


def segments_of(**contents: bytes) -> Segments:
    """Tables by name, each one segment, and a schema."""
    tables: Segments = {f"{name}/0": (Kind.ROWS, [data]) for name, data in contents.items()}
    return {"schema": (Kind.BLOB, [BLOB]), **tables}


def plain(segments: Segments) -> dict[str, bytes]:
    return {name: b"".join(pieces) for name, (_, pieces) in segments.items()}


def stored(written: Written) -> int:
    return sum(ref.length for ref in (*written.packs, *written.lists))


def follow(
    folder: Folder, keys: Keyring, segments: Segments, base: str = BACKUP_ID, backup_id: str = SECOND
) -> Written:
    """Write a backup that builds on `base`, check that it restores; return what it needs."""
    written = write(folder, keys, segments, backup_id, known_from(folder, keys, base))
    assert read_all(open_reader(folder, keys, backup_id=backup_id)) == plain(segments)
    return written


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few megabytes make several packs and index packs."""
    monkeypatch.setattr(writer_module, "PACK_TARGET", 1 << 20)
    monkeypatch.setattr(writer_module, "_INDEX_PACK_TARGET", 2000)


def test_an_unchanged_backup_adds_less_than_a_hundredth(folder: Folder, keys: Keyring) -> None:
    """Every pack, and every chunk list too, is the first one's; only the catalogue is new."""
    segments = segments_of(t1=rows(100_000), t2=rows(50_000, seed=1))
    first = write(folder, keys, segments)
    second = follow(folder, keys, segments)
    assert second.packs == first.packs
    assert set(first.lists) < set(second.lists)
    assert second.added == sum(ref.length for ref in set(second.lists) - set(first.lists))
    assert second.added < stored(first) / 100
    assert (first.added, second.logical) == (stored(first), first.logical)


def test_a_hundredth_of_changed_rows_adds_less_than_three(folder: Folder, keys: Keyring) -> None:
    """In one range, in the middle, and longer than before."""
    first = write(folder, keys, segments_of(t1=rows(400_000)))
    changed = rows(200_000) + rows(4_500, seed=1, first=200_000)
    changed += rows(400_000)[len(rows(204_000)) :]
    second = follow(folder, keys, segments_of(t1=changed))
    assert second.added < stored(first) * 3 / 100


def test_a_chain_of_backups_needs_no_backup_between(folder: Folder, keys: Keyring) -> None:
    """Each manifest names all it needs: the ones before may be deleted."""
    data = rows(40_000)
    write(folder, keys, segments_of(t1=data))
    follow(folder, keys, segments_of(t1=data, t2=rows(30_000, seed=1)))
    (folder.root / names.manifest(BACKUP_ID)).unlink()
    third = follow(folder, keys, segments_of(t1=data + rows(10, seed=2)), SECOND, THIRD)
    manifests = [parse((folder.root / names.manifest(one)).read_bytes()) for one in (SECOND, THIRD)]
    needed = {ref.id for ref in (*manifests[1].packs, *manifests[1].lists)}
    for name in folder.names():
        if name.startswith(("packs/", "lists/")) and name.rsplit("/", 1)[1] not in needed:
            (folder.root / name).unlink()
    (folder.root / names.manifest(SECOND)).unlink()
    assert third.added < stored(third) / 2
    assert read_all(open_reader(folder, keys, backup_id=THIRD))["t1/0"] == data + rows(10, seed=2)


def test_what_several_parts_and_packs_hold_is_found(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch, small_packs: None
) -> None:
    """Parts before a change are referred to, the one with the change and those behind it are written."""
    monkeypatch.setattr(writer_module, "PART_CHUNKS", 8)
    before, after = rows(100_000), rows(50_000, seed=1)
    first = write(folder, keys, segments_of(t1=before + after))
    changed = rows(100, seed=2) + after
    second = follow(folder, keys, segments_of(t1=before + changed))
    assert len(first.packs) > 5
    assert set(first.lists) & set(second.lists)
    assert second.added < stored(first) / 20


def test_a_full_backup_refers_to_nothing(folder: Folder, keys: Keyring) -> None:
    """Without a base every object is its own."""
    segments = segments_of(t1=rows(20_000))
    first, second = write(folder, keys, segments), write(folder, keys, segments, SECOND)
    assert not {*first.packs, *first.lists} & {*second.packs, *second.lists}
    assert second.added == stored(second)


def test_what_is_bad_or_about_to_be_deleted_is_stored_again(
    folder: Folder, keys: Keyring, small_packs: None
) -> None:
    """Chunks of such a pack and the lists that name it; such a list too; everything else is referred to."""
    segments = segments_of(t1=rows(60_000), t2=rows(40_000, seed=1), t3=rows(100, seed=2))
    first = write(folder, keys, segments)
    for refs, name_of in ((first.packs, names.pack), (first.lists, names.index_pack)):
        for ref in refs:
            bad = name_of(ref.id)
            second = write(folder, keys, segments, SECOND, known_from(folder, keys, BACKUP_ID, {bad}))
            assert ref not in (*second.packs, *second.lists)
            assert set(first.packs) - {ref} <= set(second.packs)
            assert read_all(open_reader(folder, keys, backup_id=SECOND)) == plain(segments)


@pytest.mark.parametrize(("share", "referred"), [(0.25, False), (0.35, True)])
def test_a_pack_is_referred_to_only_while_enough_of_it_is_needed(
    folder: Folder, keys: Keyring, share: float, referred: bool
) -> None:
    """What the base itself needs of it counts, each chunk once."""
    kept = rows(int(60_000 * share))
    first = write(folder, keys, segments_of(t1=kept, t2=rows(60_000 - int(60_000 * share), seed=1)))
    follow(folder, keys, segments_of(t1=kept, t3=kept))  # twice: that makes no more of the pack alive
    third = follow(folder, keys, segments_of(t1=kept), SECOND, THIRD)
    assert (first.packs[0] in third.packs) is referred


def test_small_packs_of_many_runs_do_not_pile_up(folder: Folder, keys: Keyring) -> None:
    """A year of hourly backups must not need nine thousand objects; nor is anything stored again each time."""
    contents, most, again = {"t0": b"0\n"}, 0, 0
    write(folder, keys, segments_of(**contents), "acme_0")
    for number in range(1, 150):
        contents |= {f"t{number}": b"%d\n" % number}
        known = known_from(folder, keys, f"acme_{number - 1}")
        written = write(folder, keys, segments_of(**contents), f"acme_{number}", known)
        most = max(most, len(written.packs), len(written.lists))
        again += not set(written.packs) & set(known.packs)
    assert (most, again) == (CROWD + 1, 2)
    assert read_all(open_reader(folder, keys, backup_id="acme_149")) == plain(segments_of(**contents))


def test_two_runs_at_once_on_one_base_are_both_whole(folder: Folder, keys: Keyring) -> None:
    """Neither knows of the other; what both added is stored twice."""
    data = rows(30_000)
    write(folder, keys, segments_of(t1=data))
    known = known_from(folder, keys, BACKUP_ID)
    segments = segments_of(t1=data, t2=rows(5_000, seed=1))
    for backup_id in (SECOND, THIRD):
        write(folder, keys, segments, backup_id, known)
    for backup_id in (BACKUP_ID, SECOND, THIRD):
        assert read_all(open_reader(folder, keys, backup_id=backup_id))["t1/0"] == data


def test_another_key_cuts_elsewhere(keys: Keyring) -> None:
    """Lengths of chunks tell nothing about known texts to whoever has another seed."""
    data = rows(60_000)
    assert [len(one) for one in chunks_of(data, 1 << 20)] != [
        len(one) for one in chunks_of(data, 1 << 20, seed=2)
    ]


Edit = tuple[float, float, bytes]


@settings(max_examples=25, deadline=None)
@given(
    edits=st.lists(
        st.tuples(
            st.floats(0, 1),  # where
            st.floats(0, 0.1),  # how much goes
            st.binary(max_size=300),  # what comes instead, row ends and all
        ),
        max_size=5,
    ),
    count=st.integers(0, 25_000),
)
def test_any_edits_restore_identically_and_chunks_before_them_are_used_again(
    edits: list[Edit], count: int
) -> None:
    """Rows inserted, deleted, torn apart: the second backup is itself, and no byte before is written."""
    old = rows(count)
    new = edited(old, edits)
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        write(folder, KEYS, segments_of(t1=old))
        written = follow(folder, KEYS, segments_of(t1=new))
        known = known_from(folder, KEYS, BACKUP_ID)
        own = {ref.id for ref in written.packs} - {ref.id for ref in known.packs}
        fresh = sum(ref.plain for ref in written.packs if ref.id in own)
        same = common_prefix(old, new)
        ends = [0, *accumulate(len(chunk) for chunk in chunks_of(old, 1 << 20, KEYS.seed))]
        # The last chunk before the edit may have looked at what was edited.
        used_again = max(end for end in ends if end <= max(0, same - chunk_max()))
        if old == new:
            assert fresh == 0
        assert fresh <= len(new) + len(BLOB) - used_again


def edited(data: bytes, edits: list[Edit]) -> bytes:
    for where, share, replacement in edits:
        at = int(where * len(data))
        data = data[:at] + replacement + data[at + int(share * len(data)) :]
    return data


def common_prefix(one: bytes, other: bytes) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def chunk_max() -> int:
    from tenant_backup.archive.chunks import CHUNK_MAX

    return CHUNK_MAX


def test_a_damaged_list_is_told_and_never_believed(folder: Folder, keys: Keyring) -> None:
    """Any byte of any index pack, also where the store's checksum would not be asked."""
    first = write(folder, keys, segments_of(t1=rows(100)))
    (ref,) = first.lists
    path = folder.root / names.index_pack(ref.id)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Damaged):
            known_from(folder, keys, BACKUP_ID)


def forged(folder: Folder, keys: Keyring, **changes: object) -> None:
    path = folder.root / names.manifest(BACKUP_ID)
    manifest: Manifest = parse(path.read_bytes())
    path.write_bytes(sign(dataclasses.replace(manifest, **changes), keys.signing))  # type: ignore[arg-type]


def test_a_base_whose_manifest_lacks_what_its_lists_name_is_not_built_on(
    folder: Folder, keys: Keyring
) -> None:
    """A new backup must not name a pack it knows neither length nor checksum of."""
    first = write(folder, keys, segments_of(t1=rows(100)))
    forged(folder, keys, packs=())
    with pytest.raises(Damaged):
        known_from(folder, keys, BACKUP_ID)
    assert first.packs


TWO_MILLION = """
import random, resource, struct, sys, time
from pathlib import Path
from tenant_backup.archive.known import Known, _Sorter
from tenant_backup.archive.pack import ObjectRef

def anonymous():
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) << 10

before, noise, count = anonymous(), random.Random(1), 2_000_000
began, peak = time.monotonic(), 0
sorter = _Sorter(Path(sys.argv[1]))
for number in range(count):
    sorter.add(struct.pack(">32sIIII", noise.randbytes(32), number % 1000, number, 0, 65536))
    if number % 50_000 == 0:
        peak = max(peak, anonymous())
entries, live = sorter.finish(1000)
peak = max(peak, anonymous())
assert sum(live) == count * 65536
known = Known([ObjectRef(f"{n:032x}", 1, "", 1) for n in range(1000)], (), entries, [True] * 1000, {}, {})
noise, looked = random.Random(1), time.monotonic()
for number in range(count // 10):
    found = known.chunk(noise.randbytes(32))
    assert (found.frame, found.pack) == (number, f"{number % 1000:032x}")
assert known.chunk(bytes(32)) is None and known.chunk(b"\\xff" * 32) is None
peak = max(peak, anonymous())
print(peak - before, round(looked - began, 1), round((time.monotonic() - looked) / count * 10 * 1e6, 1))
"""


def test_two_million_known_chunks_take_bounded_memory(tmp_path: Path) -> None:
    """A terabyte has eight times as many, and takes no more but disk."""
    printed = subprocess.run(
        [sys.executable, "-c", TWO_MILLION, tmp_path], check=True, capture_output=True, text=True
    ).stdout
    grown, seconds, lookup = re.findall(r"[\d.]+", printed)
    print(f"{int(grown) >> 20} MiB, {seconds} s to sort, {lookup} µs per lookup")
    assert int(grown) < 64 << 20
    assert list(tmp_path.iterdir()) == []


# segments that were not read


def _files(content: bytes) -> Segments:
    return {"files/a/0": (Kind.BLOB, [content])}


@pytest.mark.usefixtures("small_packs")
def test_what_looks_as_it_did_is_taken_over_without_a_byte(folder: Folder, keys: Keyring) -> None:
    """Its packs and lists are named, its bytes counted; a third backup finds it in the second."""
    content = random.Random(1).randbytes(3 << 20)
    first = write(folder, keys, _files(content), fingerprint="as it was")
    for base, backup_id in ((BACKUP_ID, SECOND), (SECOND, THIRD)):
        known = known_from(folder, keys, base)
        written = write(folder, keys, _files(b"not read"), backup_id, known, "as it was")
        assert read_all(open_reader(folder, keys, backup_id=backup_id)) == {"files/a/0": content}
        assert (set(written.packs), written.logical) == (set(first.packs), first.logical)
    other = write(folder, keys, _files(b"other"), "acme_3", known_from(folder, keys, THIRD), "otherwise")
    assert other.logical == len(b"other")


@pytest.mark.usefixtures("small_packs")
def test_what_is_damaged_is_not_taken_over(folder: Folder, keys: Keyring) -> None:
    """Whichever of its packs and lists it is: then its files are read."""
    first = write(folder, keys, _files(random.Random(1).randbytes(3 << 20)), fingerprint="as it was")
    base = parse((folder.root / names.manifest(BACKUP_ID)).read_bytes())
    needed = [names.pack(ref.id) for ref in first.packs]
    needed += [names.index_pack(ref.id) for ref in first.lists if ref.id != base.catalogue.list]
    assert len(needed) > 2
    assert known_from(folder, keys, BACKUP_ID).segment("as it was")
    for name in needed:
        assert known_from(folder, keys, BACKUP_ID, [name]).segment("as it was") is None

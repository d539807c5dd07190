"""What need not be read again: which entries are judged together, and what shows that none of them changed."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from tenant_backup.engines.files import names, reading, runs, tar
from tenant_backup.engines.files.walking import Found, walk
from tests.engines.trees import described, grow, mounted, place, read, volume

MINUTE = 60 * 10**9


@pytest.fixture
def site(short_path: Path) -> Iterator[Path]:
    """A folder in which volumes are mounted: `live`, and `copy` to be filled."""
    for name in ("live", "copy"):
        (short_path / name).mkdir()
    with mounted(short_path):
        yield short_path


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are believed to be at rest as soon as they are written; runs are of a few entries."""
    monkeypatch.setattr(runs, "_LASTING", 0)
    monkeypatch.setattr(runs, "_BYTES", 64 << 10)
    monkeypatch.setattr(runs, "_ENTRY", 16 << 10)


def found(path: str, size: int = 0, ctime: int = 1) -> Found:
    """A file that is nowhere."""
    folder, slash, name = path.rpartition("/")
    numbers = (stat.S_IFREG | 0o644, 1, 1, 1, 0, 0, size, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, ctime)
    return Found(folder + slash, name, os.stat_result(numbers))


def borders(entries: list[Found]) -> list[list[str]]:
    """The paths of each run."""
    return [[one.path for one in run] for run, _ in runs.cut(entries)]


# where a run begins


def test_what_comes_or_goes_moves_no_border() -> None:
    """Only the run it is in is another one, or two of them."""
    chance = random.Random(1)
    entries = [found(f"{n:06}", chance.choice([0, 1000, 100_000, 5 << 20])) for n in range(20_000)]
    before = borders(entries)
    assert 20 < len(before) < 2000
    for _ in range(20):
        at = chance.randrange(len(entries))
        after = borders([*entries[:at], found(f"{at:06}-new", 1000), *entries[at:]])
        gone = borders(entries[:at] + entries[at + 1 :])
        for other in (after, gone):
            assert len([run for run in other if run not in before]) <= 2


def test_a_large_file_is_alone_and_no_run_is_too_long() -> None:
    """So that nothing large is read because of its neighbours, and a run fits into memory."""
    entries = [found(f"{n:06}") for n in range(30_000)]
    entries[700] = found("000700", 1 << 30)
    found_runs = borders(entries)
    assert ["000700"] in found_runs
    assert [path for run in found_runs for path in run] == [one.path for one in entries]
    assert max(map(len, found_runs)) <= runs._BYTES_MAX // runs._ENTRY
    assert 20 < len(found_runs) < 200


# what a fingerprint shows


def _rewritten(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"B")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"B" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(file)


def _mapped(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as pages:
        pages[0:1] = b"B"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content, with size and mtime as before": _rewritten,
    "another file, with size and mtime as before": _replaced,
    "content, by mapped memory": _mapped,
    "size": lambda file: os.truncate(file, 50),
    "mtime": lambda file: os.utime(file, ns=(1, 1)),
    "mode": lambda file: file.chmod(0o4700),
    "an attribute": lambda file: os.setxattr(file, "user.a", b"x"),
    "another name": lambda file: os.link(file, file.with_name("b")),
    "its name": lambda file: file.rename(file.with_name("b")),
    "a file beside it": lambda file: file.with_name("b").write_bytes(b""),
    "what it is": lambda file: (file.unlink(), file.symlink_to("a")),
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(site: Path, change: str) -> None:
    """Also those that leave size and mtime alone: nobody can set ctime back."""
    file = site / "live" / "a"
    file.write_bytes(b"A" * 100)
    before = _fingerprints(site)
    assert all(before)
    assert _fingerprints(site) == before
    _wait_for_the_clock(file)
    CHANGES[change](file)
    assert not set(_fingerprints(site)) & set(before)


def _fingerprints(site: Path) -> list[str]:
    root = os.open(site / "live", os.O_RDONLY)
    try:
        linked: dict[int, str] = {}
        entries = walk(root, names.matcher([]), pytest.fail)
        return [runs.fingerprint(run, began, linked) for run, began in runs.cut(entries)]
    finally:
        os.close(root)


def _wait_for_the_clock(file: Path) -> None:
    """Return when the file system's clock has moved since the file was changed."""
    probe = file.parent.parent / "probe"
    while True:
        probe.write_bytes(b"")
        if probe.stat().st_ctime_ns > file.stat().st_ctime_ns:
            return


def test_what_changed_a_moment_ago_is_not_believed() -> None:
    """Nor what has no ctime: it may change and look the same."""
    now = time.time_ns()
    young, old, none = (found("a", ctime=ctime) for ctime in (now - MINUTE // 2, now - 2 * MINUTE, 0))
    assert runs.fingerprint([old], now, {})
    assert not runs.fingerprint([old, young], now, {})
    assert not runs.fingerprint([old, none], now, {})


def test_a_link_has_the_fingerprint_of_what_it_points_to() -> None:
    """The tar names the first name of the file: if that is another one, the bytes are."""
    now = time.time_ns()
    one = found("b")
    twice = one._replace(status=os.stat_result((*one.status[:3], 2, *one.status[4:], 0.0, 0.0, 0.0, 0, 0, 1)))
    first, second = ({one.status.st_ino: name} for name in ("a", "aa"))
    assert runs.fingerprint([twice], now, first) != runs.fingerprint([twice], now, second)
    alone: dict[int, str] = {}
    runs.fingerprint([twice], now, alone)
    assert alone == {one.status.st_ino: "b"}


def test_who_writes_another_tar_says_so_in_the_fingerprint() -> None:
    """Else runs of the old bytes would stand beside new ones: change the word when this fails."""
    entries = [
        tar.Entry(b"a" * 120, "file", 0o644, 1, 2, 3, 4, xattrs={b"user.a": b"b"}),
        tar.Entry(b"b", "file", 0o4755, 1 << 30, 2, 10**18 + 1, 8, extents=((4, 4),)),
        tar.Entry("ü".encode(), "symlink", 0o777, 1, 2, 3, target=b"\xff"),
        tar.Entry(b"d", "directory", 0o755, 1, 2, 10**18),
        tar.Entry(b"h", "hardlink", 0o644, 1, 2, 10**18, target=b"b"),
    ]
    digest = hashlib.sha256(b"".join(map(tar.header, entries))).hexdigest()[:16]
    assert (digest, runs._WRITER) == ("e156dd8713478557", "tar 1")


# what is taken over is what would be read


class Earlier:
    """What earlier backups have stored, by fingerprint: what `archive` does, in memory."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        self.read = 0  # files, by the last backup

    def back_up(self) -> tuple[bytes, dict[str, Any]]:
        """Read what is not known; return the whole tar, and the catalogue as of one segment."""
        tape = []
        with reading.reading(volume("live")) as held, TemporaryFile(buffering=0) as file:
            session = held.session(file.fileno(), lambda _kill: None)
            for piece in held.pieces:
                data = self.known.get(piece.fingerprint)
                if data is None:
                    start = file.tell()
                    sent = session.send(piece)
                    data = os.pread(file.fileno(), file.tell() - start, start)
                    if sent.fingerprint:
                        self.known[sent.fingerprint] = data
                tape.append(data)
            session.close()
            self.read = held.read
            return b"".join(tape), held.catalogue({}) | {"segments": ["all"]}


def _meddle(top: Path, chance: random.Random) -> None:
    """Change something, anything."""
    walked = os.walk(top)  # unlike Path.rglob it bears links that lead nowhere it could go
    entries = sorted(Path(above, name) for above, folders, names in walked for name in (*folders, *names))
    one = chance.choice([top, *entries])
    match chance.randint(0, 6):
        case 0 if not one.is_symlink() and one.is_file():
            _rewritten(one)
        case 1 if one != top:
            one.rename(one.with_name(f"moved{chance.random()}"))
        case 2 if one != top:
            shutil.rmtree(one) if not one.is_symlink() and one.is_dir() else one.unlink()
        case 3 if not one.is_symlink() and one.is_file():
            os.link(one, top / f"link{chance.random()}")
        case 4:
            os.utime(one, ns=(5, 5), follow_symlinks=False)
        case _:
            above = one if not one.is_symlink() and one.is_dir() else one.parent
            (above / f"new{chance.random()}").write_bytes(chance.randbytes(chance.choice([0, 10, 70_000])))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seed", range(15))
def test_what_was_not_read_is_what_would_have_been_read(site: Path, seed: int) -> None:
    """After any changes: byte by byte the tar of a backup that reads everything."""
    chance, live = random.Random(seed), site / "live"
    grow(live, seed)
    earlier = Earlier()
    for _ in range(6):
        tape, document = earlier.back_up()
        everything, wanted = read(volume("live"))
        assert tape == everything
        times = ("read", "readFrom", "readTo")
        assert {key: document[key] for key in document if key not in times} == {
            key: wanted[key] for key in wanted if key not in times
        }
        assert earlier.back_up()[0] == tape
        assert earlier.read == 0
        _wait_for_the_clock(live)
        for _ in range(chance.randint(1, 3)):
            _meddle(live, chance)
    place(volume("copy"), "uid", *earlier.back_up())
    assert described(site / "copy") == described(live)


@pytest.mark.usefixtures("at_once")
def test_a_file_that_goes_while_its_run_is_read_is_not_remembered(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other name is the file then; what was sent is whole, and the next backup reads it again."""
    live = site / "live"
    (live / "a").write_bytes(b"a" * 100_000)
    (live / "b").write_bytes(b"b" * 1000)
    os.link(live / "b", live / "c")
    real = reading.Session._send_file

    def send_file(session: reading.Session, entry: tar.Entry, descriptor: int) -> None:
        (live / "b").unlink(missing_ok=True)
        real(session, entry, descriptor)

    monkeypatch.setattr(runs, "_BYTES", 1 << 30)  # all are one run
    monkeypatch.setattr(reading.Session, "_send_file", send_file)
    earlier = Earlier()
    tape, document = earlier.back_up()
    assert (earlier.known, document["files"], document["bytes"]) == ({}, 2, 101_000)
    place(volume("copy"), "uid", tape, document)
    assert described(site / "copy") == described(live)

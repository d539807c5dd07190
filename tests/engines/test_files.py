"""Files of a volume, read and placed on real file systems: what went in is what comes out, or it says why not."""

from __future__ import annotations

import io
import os
import random
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract.job import Paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.files import looking, names, reading, tar
from tenant_backup.engines.files.reading import Session
from tests.dying import is_killed_before
from tests.engines.owners import NOBODY, as_nobody
from tests.engines.trees import ALONE, described, filling, grow, mounted, place, read, volume


@pytest.fixture
def site(short_path: Path) -> Iterator[Path]:
    """A folder in which volumes are mounted: `live` with files to be read, `copy` to be filled."""
    short_path.chmod(0o755)
    for name in ("live", "copy"):
        (short_path / name).mkdir()
    with mounted(short_path):
        yield short_path


# what comes back


@pytest.mark.parametrize("seed", range(25))
def test_every_tree_comes_back_as_it_was(site: Path, seed: int) -> None:
    """Bytes, names, links, holes, modes, owners, times and attributes; and the same tree is the same tar."""
    grow(site / "live", seed)
    tape, document = read(volume("live"))
    placed = place(volume("copy"), "uid", tape, document)
    assert described(site / "copy") == described(site / "live")
    assert (placed["files"], placed["skipped"]) == (document["files"], [])
    left = [(path.suffix, path.is_dir()) for path in (site / "copy" / ".tenant-backup").rglob("*")]
    assert sorted(left) == [(".done", False), (".facts", False)]
    assert read(volume("live"))[0] == tape
    assert read(volume("copy"))[0] == tape


@pytest.mark.skipif(os.geteuid() != 0, reason="tar gives files to others only as root")
def test_any_tar_reads_it(site: Path, tmp_path: Path) -> None:
    """GNU tar makes the same tree of it, and Python's finds the same names."""
    grow(site / "live", 11)
    tape, document = read(volume("live"))
    command = ["tar", "--xattrs", "--warning=no-unknown-keyword", "-xpf", "-", "-C", tmp_path]
    subprocess.run(command, input=tape, check=True, capture_output=True)
    assert described(tmp_path) == described(site / "live")
    with tarfile.open(fileobj=io.BytesIO(tape)) as archive:
        found = archive.getmembers()
    assert {os.fsencode(member.name) for member in found} == set(described(site / "live"))
    assert sum(not member.isdir() for member in found) == document["files"]


def test_ten_gigabytes_of_hole_cost_nothing(site: Path) -> None:
    """They are not read, not sent, and a hole again."""
    with (site / "live" / "disk.img").open("wb") as file:
        file.seek(5 << 30)
        file.write(b"data")
        file.truncate(10 << 30)
    tape, document = read(volume("live"))
    assert len(tape) < 20_000
    place(volume("copy"), "uid", tape, document)
    status = (site / "copy" / "disk.img").stat()
    assert (status.st_size, status.st_blocks < 100) == (10 << 30, True)


def test_a_tree_deeper_than_a_path_may_be_long_comes_back(site: Path) -> None:
    """With names of 255 bytes, and a link of as many as it can have; no header has room for either."""
    name, folder = "ü" * 127 + "x", os.open(site / "live", os.O_RDONLY)
    for _ in range(100):
        os.mkdir(name, dir_fd=folder)
        above, folder = folder, os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(above)
    os.symlink("t" * 4095, "link", dir_fd=folder)
    with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as file:
        file.write(b"deep")
    os.close(folder)
    tape, document = read(volume("live"))
    assert document["files"] == 2
    place(volume("copy"), "uid", tape, document)
    assert read(volume("copy"))[0] == tape


def test_numbers_that_no_header_has_room_for_come_back() -> None:
    """Sizes, users and times beyond octal digits; the data is never read here."""
    entry = tar.Entry(b"x" * 300, "file", 0o4755, 3_000_000, 4_000_000_000, -(10**18) - 1, 9 << 30)
    assert next(tar.Reader(iter([memoryview(tar.header(entry))])).entries()) == entry


def test_the_fast_header_is_the_other_one() -> None:
    """Byte by byte, whatever the file is like."""
    chance = random.Random(1)
    for _ in range(3000):
        path = chance.choice([b"a", b"x" * 100, b"x" * 101, "ü".encode(), b"\xff"])
        numbers = [chance.choice([0, 1, 1000, 0o7777777, 0o7777777 + 1]) for _ in range(2)]
        size = chance.choice([0, 1, 0o77777777777, 0o77777777777 + 1])
        seconds = chance.choice(
            [-1, 0, 10**9 - 1, 10**9, 0o77777777777, 0o77777777777 + 1, 10**10 - 1, 10**10]
        )
        mtime = seconds * 10**9 + chance.choice([0, 1, 999_999_999])
        mode = stat.S_IFREG | chance.randrange(0o10000)
        status = os.stat_result((mode, 1, 1, 1, *numbers, size, 0, 0, 0, 0.0, 0.0, 0.0, 0, mtime, 0))
        entry = tar.Entry(path, "file", stat.S_IMODE(mode), *numbers, mtime, size)
        assert tar.plain_header(path, status) == tar.header(entry)


@pytest.mark.parametrize(
    ("pattern", "meant", "not_meant"),
    [
        ("cache/**", ["cache/a", "cache/a/b"], ["cache", "x/cache/a"]),
        ("cache", ["cache"], ["cache2", "x/cache"]),
        ("*.tmp", ["a.tmp", ".tmp"], ["x/a.tmp", "a.tmpx"]),
        ("**/*.tmp", ["a.tmp", "x/a.tmp", "x/y/a.tmp"], ["a.tmpx"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab"]),
        ("a?c", ["abc", "aüc"], ["a/c", "ac"]),
        ("a.[c]", ["a.[c]"], ["abc", "a.c"]),
        ("a*", ["a\nb", "a\udcff"], []),
    ],
)
def test_patterns_mean_what_they_say(pattern: str, meant: list[str], not_meant: list[str]) -> None:
    """`*` and `?` within a name, `**` across; everything else stands for itself."""
    is_meant = names.matcher(["nothing else", pattern])
    assert [path for path in meant + not_meant if is_meant(path)] == meant


def test_what_is_excluded_is_left_out_with_all_below_it(site: Path) -> None:
    """And so is what belongs to the file system or to us."""
    for name in ("cache/deep/x", "keep/cache/x", "lost+found/x", ".tenant-backup/x", "keep/lost+found/x"):
        (site / "live" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "live" / name).write_bytes(b"x")
    tape, document = read(volume("live", exclude=["cache"]))
    place(volume("copy"), "uid", tape, document)
    assert set(described(site / "copy")) == {
        b"keep", b"keep/cache", b"keep/cache/x", b"keep/lost+found", b"keep/lost+found/x"
    }  # fmt: skip


def test_modules_choose_files_and_count_them(site: Path) -> None:
    """Directories are always complete; a file of two modules is counted in both, one of none in neither."""
    for name in ("hr/a", "hr/deep/b", "crm/c", "shared.hr", "other"):
        (site / "live" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "live" / name).write_bytes(b"x" * 10)
    modules = [Paths("hr", ["hr/**", "*.hr"]), Paths("crm", ["crm/*", "*.hr"]), Paths("none", ["x"])]
    counted = [
        {"name": "hr", "files": 3, "bytes": 30},
        {"name": "crm", "files": 2, "bytes": 20},
        {"name": "none", "files": 0, "bytes": 0},
    ]
    _, document = read(volume("live", modules=modules))
    assert (document["files"], document["modules"]) == (5, counted)
    tape, document = read(volume("live", modules=modules, only_modules=["crm"]))
    assert (document["files"], document["modules"][1]) == (2, counted[1])
    place(volume("copy"), "uid", tape, document)
    assert set(described(site / "copy")) == {b"crm", b"crm/c", b"hr", b"hr/deep", b"shared.hr"}


def test_what_is_no_file_is_listed_and_left_out(site: Path) -> None:
    """A socket or a pipe has no contents; a backup without them is complete."""
    os.mkfifo(site / "live" / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(site / "live" / "odd\nsocket"))
    (site / "live" / "file").write_bytes(b"x")
    tape, document = read(volume("live"))
    assert document["skipped"] == {"count": 2, "paths": ["odd\\x0asocket", "pipe"]}
    assert (document["files"], document["changed"]["count"]) == (1, 0)
    assert [entry.path for entry in tar.Reader(iter([memoryview(tape)])).entries()] == [b"file"]


# what changes meanwhile


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("change", ["grows", "shrinks", "is written to"])
def test_a_file_that_changes_once_while_it_is_read_is_read_again(
    site: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    """What comes back is the second version, whole, and nothing is marked."""
    file = site / "live" / "log"
    file.write_bytes(b"1" * size)
    changed: list[bool] = []

    def meddle() -> None:
        if not changed:
            changed.append(True)
            file.write_bytes(
                {"grows": b"2" * size * 2, "shrinks": b"2", "is written to": b"2" * size}[change]
            )

    _before_each_copy(monkeypatch, meddle)
    tape, document = read(volume("live"))
    assert (document["changed"]["count"], document["files"]) == (0, 1)
    place(volume("copy"), "uid", tape, document)
    assert described(site / "copy") == described(site / "live")


def test_a_file_that_never_stays_is_marked_and_all_else_is_whole(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the backup as it was read last."""
    (site / "live" / "a").mkdir()
    (site / "live" / "a" / "log").write_bytes(b"1" * 100)
    (site / "live" / "b").write_bytes(b"quiet")

    def meddle() -> None:
        with (site / "live" / "a" / "log").open("ab") as file:
            file.write(b"more")

    _before_each_copy(monkeypatch, meddle)
    tape, document = read(volume("live"))
    assert document["changed"] == {"count": 1, "paths": ["a/log"]}
    place(volume("copy"), "uid", tape, document)
    assert (site / "copy" / "b").read_bytes() == b"quiet"
    assert (site / "copy" / "a" / "log").read_bytes().startswith(b"1" * 100)


def test_what_is_deleted_or_replaced_while_it_is_listed_is_no_failure(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that goes is gone, a directory is empty; one that becomes a file is so, too, and marked."""
    for name in ("b/x", "c/x", "d"):
        (site / "live" / name).parent.mkdir(exist_ok=True)
        (site / "live" / name).write_bytes(b"x")
    (site / "live" / "a").write_bytes(b"first")

    def meddle() -> None:
        subprocess.run("rm -rf b d; rm -r c && echo now > c", shell=True, cwd=site / "live", check=True)

    _before_each_copy(monkeypatch, meddle, times=1)
    tape, document = read(volume("live"))
    place(volume("copy"), "uid", tape, document)
    assert set(described(site / "copy")) == {b"a", b"b", b"c"}
    assert document["changed"] == {"count": 1, "paths": ["c"]}


def _before_each_copy(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], None], times: int = 100) -> None:
    real, left = Session._send_file, [times]

    def send_file(session: Session, entry: tar.Entry, descriptor: int) -> None:
        if left[0]:
            left[0] -= 1
            meddle()
        real(session, entry, descriptor)

    monkeypatch.setattr(reading.Session, "_send_file", send_file)


# rights


def test_unreadable_files_are_a_failure_that_names_them(site: Path) -> None:
    """All of them are counted, the first are named, and with whose rights they were tried."""
    for number in range(8):
        (site / "live" / f"secret{number}").write_bytes(b"x")
        (site / "live" / f"secret{number}").chmod(0)
    (site / "live" / "shut").mkdir(mode=0)
    (site / "live" / "fine").write_bytes(b"x")
    with pytest.raises(Failure) as caught:
        as_nobody(lambda: read(volume("live")) and None)
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert "shut, secret0, secret1, secret2, secret3 and 4 more" in caught.value.message
    assert "securityContext" in caught.value.message
    (site / "live").chmod(0o700) if os.geteuid() == 0 else (site / "live").chmod(0)
    with pytest.raises(Failure, match=r"cannot read \."):
        as_nobody(lambda: read(volume("live")) and None)


def test_a_look_says_what_a_backup_would(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reading a file: how much there is, or the same refusal; it does not take for ever."""
    (site / "live" / "cache").mkdir()
    for path in ("letter", "cache/x", "cache/y"):
        (site / "live" / path).write_bytes(b"x" * 10000)
    (site / "live" / "link").symlink_to("letter")
    found = as_nobody(lambda: looking.look(volume("live", exclude=["cache/x"])))
    assert (found["files"], found["complete"], 20000 <= found["bytes"] < 40000) == (3, True, True)
    monkeypatch.setattr(looking, "_PATIENCE", 0.0)
    assert looking.look(volume("live"))["complete"] is False
    monkeypatch.undo()
    (site / "live" / "letter").chmod(0)
    (site / "live" / "shut").mkdir(mode=0)
    with pytest.raises(Failure) as caught:
        as_nobody(lambda: looking.look(volume("live")))
    with pytest.raises(Failure) as said:
        as_nobody(lambda: read(volume("live")) and None)
    assert (caught.value.reason, "letter, shut" in caught.value.message) == (said.value.reason, True)


def test_without_rights_files_come_back_as_ones_own(site: Path) -> None:
    """Modes stay, also of directories that nobody may write; who owned a file is told, and lends no rights."""
    grow(site / "live", 7)
    (site / "live" / "shut").mkdir()
    (site / "live" / "shut" / "x").write_bytes(b"x")
    (site / "live" / "shut").chmod(0o555)
    (site / "live" / "program").write_bytes(b"x")
    (site / "live" / "program").chmod(0o4755)
    tape, document = read(volume("live"))
    if os.geteuid() == 0:
        os.chown(site / "copy", NOBODY, NOBODY)
    told = as_nobody(lambda: place(volume("copy"), "uid", tape, document)["skipped"])
    before, after = described(site / "live"), described(site / "copy")
    assert {path: (one[3], one[4], one[5]) for path, one in after.items()} == {
        path: (one[3], one[4], one[5]) for path, one in before.items()
    }
    if os.geteuid() == 0:
        assert [text.partition(" ")[2] for text in told] == ["files have another owner or group"]
        assert {path: one[0] & ~0o6000 for path, one in before.items()} == {
            path: one[0] for path, one in after.items()
        }


def test_a_volume_that_may_not_be_written_says_so(site: Path) -> None:
    """Before anything of the backup is asked for."""
    (site / "copy").chmod(0o555)
    with pytest.raises(Failure, match="make it writable") as caught:
        as_nobody(lambda: place(volume("copy"), "uid", tar.END, {}))
    assert caught.value.reason is Reason.PERMISSION_DENIED


# whoever dies


def test_a_restore_that_is_killed_anywhere_is_ended_by_the_next(site: Path) -> None:
    """SIGKILL before every single step: at the top is nothing until all is complete, then all of it."""
    (site / "live" / "shut").mkdir()
    (site / "live" / "shut" / "x").write_bytes(b"x" * 1000)
    (site / "live" / "shut").chmod(0o555)
    (site / "live" / "b").write_bytes(b"b")
    (site / "live" / "link").symlink_to("b")
    os.link(site / "live" / "b", site / "live" / "same")
    tape, document = read(volume("live"))
    wanted = described(site / "live")
    for step in count():
        top, target = site / f"v{step}", volume(f"v{step}")
        top.mkdir()
        if not is_killed_before(step, partial(place, target, "uid", tape, document)):
            break
        seen = set(described(top))
        assert not seen or not list(top.glob(".tenant-backup/*.new"))
        # Another restore than the one that died may have its turn, as long as nothing is at the top.
        place(target, "uid" if seen or step % 2 else "another uid", tape, document)
        assert described(top) == wanted
    assert step > 25


def test_a_volume_that_is_not_empty_is_not_touched(site: Path) -> None:
    """What is in the way is named; what belongs to the file system is not in the way."""
    (site / "live" / "new").write_bytes(b"new")
    tape, document = read(volume("live"))
    (site / "copy" / "lost+found").mkdir()
    for number in range(7):
        (site / "copy" / f"old{number}").write_bytes(b"old")
    with pytest.raises(Failure) as caught:
        place(volume("copy"), "uid", tape, document)
    assert (caught.value.reason, "old0" in caught.value.message) == (Reason.NAME_TAKEN, True)
    assert "and 2 more" in caught.value.message
    for number in range(7):
        (site / "copy" / f"old{number}").unlink()
    place(volume("copy"), "uid", tape, document)
    assert described(site / "copy") == described(site / "live")


def test_what_came_meanwhile_is_not_overwritten(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that was not stopped keeps its file, and the restore says so."""
    (site / "live" / "a").write_bytes(b"ours")
    tape, document = read(volume("live"))
    real = os.fsync

    def meddle(descriptor: int) -> None:
        real(descriptor)
        (site / "copy" / "a").write_bytes(b"theirs")

    monkeypatch.setattr(os, "fsync", meddle)
    with pytest.raises(Failure, match="was empty before it was restored, and has now a") as caught:
        place(volume("copy"), "uid", tape, document)
    assert (caught.value.reason, (site / "copy" / "a").read_bytes()) == (Reason.NAME_TAKEN, b"theirs")


def test_two_restores_of_one_volume_do_not_meet(site: Path) -> None:
    """The second one tries again later."""
    (site / "live" / "a").write_bytes(b"x")
    tape, document = read(volume("live"))

    class Slow(list[bytes]):
        def blocks(self, _segment: str) -> Iterator[memoryview]:
            with pytest.raises(Failure, match="another restore is at work") as caught:
                place(volume("copy"), "other", tape, document)
            assert caught.value.retriable
            yield memoryview(tape)

        def verdict(self) -> dict[str, Any]:
            return {}

    from tenant_backup.engines.files import placing

    placing.place(filling(volume("copy"), "uid"), volume("copy"), document, Slow(), ALONE)
    assert described(site / "copy") == described(site / "live")


# what was not written by us


def _file(path: bytes, data: bytes = b"evil") -> bytes:
    entry = tar.Entry(path, "file", 0o644, 0, 0, 0, len(data))
    return tar.header(entry) + data + tar.padding(len(data))


def _other(path: bytes, kind: tar.Type, target: bytes = b"") -> bytes:
    return tar.header(tar.Entry(path, kind, 0o755, 0, 0, 0, target=target))


@pytest.mark.parametrize(
    "tape",
    [
        _file(b"../evil"),
        _file(b"/evil"),
        _file(b"//evil"),
        _file(b"a/../../evil"),
        _file(b".."),
        _file(b"."),
        _file(b""),
        _file(b"no/parent"),
        _file(b"file") + _file(b"file/below"),
        _file(b".tenant-backup"),
        _other(b".tenant-backup", "directory") + _file(b".tenant-backup/evil"),
        _other(b"lost+found", "directory"),
        _other(b"up", "symlink", b"..") + _file(b"up/evil"),
        _other(b"up", "symlink", b"..") + _other(b"up", "directory") + _file(b"up/evil"),
        _other(b"up", "symlink", b"../../outside") + _file(b"up"),
        _other(b"up", "symlink", b"../../..") + _other(b"x", "hardlink", b"up/outside"),
        _other(b"x", "hardlink", b"../../outside"),
        _other(b"x", "hardlink", b"../../../outside"),
        _file(b"a") + _file(b"b") + _file(b"a"),
        _file(b"x")[:-700] + b"\xff" * 700,
        _file(b"x")[:-600],
        b"\xff" * 1024,
        tar._block(b"device", (0o644, 0, 0, 0, 0), b"3", b""),
    ],
)
def test_nothing_leads_out_of_the_volume(site: Path, tape: bytes) -> None:
    """Whatever a tar says, it is refused, and nothing is there afterwards that was not before."""
    (site / "outside").write_bytes(b"untouched")
    document = {"name": "copy", "segments": ["files/copy/0"], "files": 1, "bytes": 4}
    with pytest.raises(Failure) as caught:
        place(volume("copy"), "uid", tape + tar.END, document)
    assert caught.value.reason in (Reason.CHECKSUM_MISMATCH, Reason.VOLUME_UNAVAILABLE, Reason.LOAD_FAILED)
    assert described(site / "copy") == {}
    assert {path.name for path in site.iterdir()} == {"live", "copy", "outside"}
    assert (site / "outside").read_bytes() == b"untouched"
    assert (site / "outside").stat().st_nlink == 1


def test_random_damage_is_never_a_crash(site: Path) -> None:
    """A reader that is fed nonsense says so: every error is a Failure."""
    grow(site / "live", 12)
    tape, document = read(volume("live"))
    chance = random.Random(1)
    for number in range(60):
        bad = bytearray(tape)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(bad) // 512) * 512 + chance.choice([0, 124, 156, 257, 300])
            bad[at : at + 4] = chance.randbytes(4)
        (site / f"v{number}").mkdir()
        try:
            place(volume(f"v{number}"), "uid", bytes(bad), document)
        except Failure:
            seen = described(site / f"v{number}")
            assert seen == {}

"""Files that are replaced on a real file system, and put back: all new or all old, whoever dies when."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract.job import Database
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.handles import handle
from tests.dying import is_killed_before
from tests.engines.owners import as_nobody, as_privileged
from tests.engines.trees import described, grow, mounted, put, read, switch, volume

WITH_DATABASE = Database("PostgreSQL", "pg", 5432, "app")
Tree = dict[bytes, tuple[Any, ...]]


@pytest.fixture
def site(short_path: Path) -> Iterator[Path]:
    """A folder in which volumes are mounted."""
    short_path.chmod(0o755)
    with mounted(short_path):
        yield short_path


def new_volume(site: Path, name: str, write: Callable[[Path], None]) -> Path:
    """A volume with such files."""
    top = site / name
    top.mkdir()
    write(top)
    return top


def write_old(top: Path) -> None:
    """What is on the volume: entries that the backup has, too, as what they are or not, and others."""
    (top / "both").write_bytes(b"old")
    (top / "folder").mkdir()
    (top / "folder" / "old").write_bytes(b"old")
    (top / "kind").mkdir()
    (top / "gone").symlink_to("both")
    (top / "shut").mkdir()
    (top / "shut" / "x").write_bytes(b"old")
    (top / "shut").chmod(0o555)


def write_new(top: Path) -> None:
    """What the backup has."""
    (top / "both").write_bytes(b"new")
    (top / "folder").mkdir()
    (top / "folder" / "new").write_bytes(b"new")
    (top / "kind").write_bytes(b"a file")
    (top / "more").mkdir(mode=0o555)
    os.link(top / "both", top / "same")


@pytest.fixture
def backup(site: Path) -> tuple[bytes, dict[str, Any], Tree]:
    """A tar, what the catalogue says of it, and how it looks unpacked."""
    top = new_volume(site, "source", write_new)
    return *read(volume("source")), described(top)


class Decided:
    """See seam.Together: a volume beside a database, of which this is known."""

    def __init__(
        self, *, before: bool, after: bool = True, until: str = "", mark: Path | None = None
    ) -> None:
        self._before, self._after, self._until, self._mark = before, after, until, mark

    def begin(self, *, committed: bool) -> bool:
        """See seam.Together."""
        return self._before

    def meet(self, step: str) -> None:
        """See seam.Together."""
        if step == self._until:
            raise Failure(Reason.PEER_FAILED, "the database could not be loaded")

    def ended(self, *, committed: bool) -> bool:
        """See seam.Together; the database is replaced now."""
        if self._mark:
            self._mark.mkdir()
        return self._after


def test_all_files_are_replaced_and_an_undo_brings_all_of_them_back(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """However often; what the undo takes away is kept, and what is dropped leaves nothing of ours behind."""
    tape, document, new = backup
    top = new_volume(site, "live", write_old)
    old = described(top)
    for _ in range(2):
        assert put(volume("live"), "uid", tape, document)["files"] == document["files"]
        assert described(top) == new
        assert described(top / ".tenant-backup" / f"{handle('uid')}.old") == old
    (top / "since").write_bytes(b"since")
    since = described(top)
    for _ in range(2):
        switch(volume("live"), "uid", "Undo")
        assert described(top) == old
        assert described(top / ".tenant-backup" / f"{handle('uid')}.undone") == since
    for _ in range(2):
        switch(volume("live"), "uid", "DropPrevious")
        assert described(top) == old
        assert not ours(top)
    with pytest.raises(Failure, match="does not keep") as caught:
        switch(volume("live"), "uid", "Undo")
    assert caught.value.reason is Reason.FILES_NOT_FOUND


@pytest.mark.parametrize("seed", range(5))
def test_every_tree_is_replaced_by_every_other_and_comes_back(site: Path, seed: int) -> None:
    """Odd names, holes, links, attributes."""
    source, top = (
        new_volume(site, name, partial(grow, seed=number))
        for name, number in (("source", seed), ("live", seed + 50))
    )
    tape, document = read(volume("source"))
    old = described(top)
    put(volume("live"), "uid", tape, document)
    assert described(top) == described(source)
    switch(volume("live"), "uid", "Undo")
    assert described(top) == old


def test_a_replace_that_is_killed_anywhere_is_ended_by_the_next(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """SIGKILL before every single step, and again somewhere in the attempt after it."""
    tape, document, new = backup
    chance = random.Random(1)
    for step in count():
        top, target = new_volume(site, f"v{step}", write_old), volume(f"v{step}")
        old = described(top)
        doing = partial(put, target, "uid", tape, document)
        if not is_killed_before(step, doing):
            break
        is_killed_before(chance.randrange(30), doing)
        doing()
        assert described(top) == new
        assert described(top / ".tenant-backup" / f"{handle('uid')}.old") == old
        assert ours(top) == left_by("uid")
    assert step > 40


def test_beside_a_database_files_follow_it_whoever_is_killed_when(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """Killed before every single step: old again where the database is old, also when that is killed; else new."""
    tape, document, new = backup
    chance = random.Random(2)
    put_beside = partial(put, uid="uid", tape=tape, document=document, database=WITH_DATABASE)
    for step in count():
        top, target = new_volume(site, f"v{step}", write_old), volume(f"v{step}")
        old, mark = described(top), site / f"decided{step}"
        if not is_killed_before(step, partial(put_beside, target, together=Decided(before=False, mark=mark))):
            break
        if not mark.exists():
            waits = partial(put_beside, target, together=Decided(before=False, until="ready"))
            is_killed_before(chance.randrange(20), partial(_fails, waits))
            _fails(waits)
            assert described(top) == old
        is_killed_before(chance.randrange(20), partial(put_beside, target, together=Decided(before=True)))
        put_beside(target, together=Decided(before=True))
        assert described(top) == new
        switch(target, "uid", "Undo")
        assert described(top) == old
    assert step > 40


def ours(top: Path) -> list[str]:
    """What is left of us on a volume."""
    return sorted(path.name for path in (top / ".tenant-backup").iterdir())


def left_by(uid: str) -> list[str]:
    """What is left of a restore as long as it can be undone."""
    return [f"{handle(uid)}.{word}" for word in ("done", "facts", "old")]


def _fails(doing: Callable[[], object]) -> None:
    with pytest.raises(Failure):
        doing()


@pytest.mark.parametrize(
    "decided", [Decided(before=False, until="placed"), Decided(before=False, after=False)]
)
def test_files_go_back_when_the_database_could_not_be_replaced(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree], decided: Decided
) -> None:
    """In the same attempt: nobody has to wait for another one."""
    tape, document, _ = backup
    top = new_volume(site, "live", write_old)
    old = described(top)
    with pytest.raises(Failure) as caught:
        put(volume("live"), "uid", tape, document, together=decided, database=WITH_DATABASE)
    assert (caught.value.reason, described(top)) == (Reason.PEER_FAILED, old)


def test_an_undo_that_is_killed_anywhere_is_ended_by_the_next(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """And so is the drop of what was kept; it is all there again until then, or all gone."""
    tape, document, new = backup
    chance = random.Random(3)
    for step in count():
        top, target = new_volume(site, f"v{step}", write_old), volume(f"v{step}")
        old = described(top)
        put(target, "uid", tape, document)
        undo, drop = (partial(switch, target, "uid", action) for action in ("Undo", "DropPrevious"))
        killed = is_killed_before(step, undo)
        is_killed_before(chance.randrange(20), undo)
        undo()
        assert described(top) == old
        assert described(top / ".tenant-backup" / f"{handle('uid')}.undone") == new
        dropped = not is_killed_before(step, drop)
        drop()
        assert (described(top), ours(top)) == (old, [])
        if dropped and not killed:
            break
    assert step > 10


def test_another_restore_takes_back_what_one_began_and_leaves_what_one_keeps(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """Each step that the first may have died before; the second is undone, and what was old is there."""
    tape, document, new = backup
    top, target = new_volume(site, "kept", write_old), volume("kept")
    old = described(top)
    put(target, "first", tape, document)
    (top / "since").write_bytes(b"since")
    since = described(top)
    put(target, "second", tape, document)
    switch(target, "second", "Undo")
    assert described(top) == since
    switch(target, "first", "Undo")
    assert described(top) == old
    for step in range(30, 70, 3):
        top, target = new_volume(site, f"v{step}", write_old), volume(f"v{step}")
        old = described(top)
        is_killed_before(step, partial(put, target, "first", tape, document))
        put(target, "second", tape, document)
        assert described(top) == new
        switch(target, "second", "Undo")
        assert described(top) in (old, new)
        left = {name for name in ours(top) if name.startswith(handle("first"))}
        assert left in (set(), set(left_by("first")))
        assert (described(top) == new) == bool(left)


def test_what_comes_in_the_way_is_told_and_nothing_of_it_is_lost(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that was not stopped: once its file is moved away, the next attempt ends it."""
    tape, document, new = backup
    top, target = new_volume(site, "live", write_old), volume("live")
    old, real = described(top), os.rename

    def meddle(source: Any, *arguments: Any, **options: Any) -> None:
        real(source, *arguments, **options)
        if source == b"gone":
            (top / "came").write_bytes(b"theirs")
            (top / "both").write_bytes(b"theirs")

    monkeypatch.setattr(os, "rename", meddle)
    with pytest.raises(Failure, match="both came to volume live") as caught:
        put(target, "uid", tape, document)
    monkeypatch.undo()
    assert (caught.value.reason, caught.value.retriable) == (Reason.NAME_TAKEN, True)
    assert (top / "both").read_bytes() == b"theirs"
    (top / "both").unlink()
    put(target, "uid", tape, document)
    assert described(top) == new
    switch(target, "uid", "Undo")
    since = described(top)
    assert since.pop(b"came")
    assert since == old


def test_without_rights_directories_that_nobody_may_write_are_replaced_and_come_back(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """With their modes; one of somebody else cannot be moved, and then nothing is."""
    tape, document, _ = backup
    top, target = new_volume(site, "live", write_old), volume("live")
    for path in (top, *top.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    modes = {path: one[0] for path, one in described(top).items()}
    as_nobody(lambda: put(target, "uid", tape, document) and None)
    assert (top / "more").stat().st_mode & 0o777 == 0o555
    as_nobody(lambda: switch(target, "uid", "Undo"))
    assert {path: one[0] for path, one in described(top).items()} == modes
    as_nobody(lambda: switch(target, "uid", "DropPrevious"))
    os.chown(top / "shut", 1, 1)
    old = described(top)
    with pytest.raises(Failure, match="cannot write to shut") as caught:
        as_nobody(lambda: put(target, "again", tape, document) and None)
    assert (caught.value.reason, described(top)) == (Reason.PERMISSION_DENIED, old)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of several users are made as root")
def test_with_privileged_owners_come_back_and_files_of_others_are_replaced(site: Path) -> None:
    """With the rights of its container and no others: also set-user bits, and directories nobody else may enter."""

    def write(top: Path) -> None:
        grow(top, 3)
        for name, owner, mode in (("theirs", 1000, 0o700), ("program", 2000, 0o6755)):
            (top / name).mkdir() if mode == 0o700 else (top / name).write_bytes(b"x")
            os.chown(top / name, owner, owner + 1)
            (top / name).chmod(mode)
        (top / "theirs" / "x").write_bytes(b"x")
        os.chown(top, 1000, 1000)

    source, top = new_volume(site, "source", write), new_volume(site, "live", write)
    (top / "theirs" / "x").write_bytes(b"since")
    tape, document = as_privileged_read(site)
    old = described(top)
    assert as_privileged(lambda: put(volume("live"), "uid", tape, document))["skipped"] == []
    assert described(top) == described(source)
    as_privileged(lambda: switch(volume("live"), "uid", "Undo"))
    assert described(top) == old
    as_privileged(lambda: switch(volume("live"), "uid", "DropPrevious"))
    assert ours(top) == []


def as_privileged_read(site: Path) -> tuple[bytes, dict[str, Any]]:
    """Read the source as its privileged container does."""

    def reading() -> dict[str, Any]:
        tape, document = read(volume("source"))
        (site / "tape").write_bytes(tape)
        return document

    document = as_privileged(reading)
    return (site / "tape").read_bytes(), document


def test_what_is_kept_is_dropped_however_deep_it_is(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree]
) -> None:
    """Deeper than paths may be long, or than a program may call itself."""
    tape, document, new = backup

    def write_deep(top: Path) -> None:
        folder = os.open(top, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d" * 20, dir_fd=folder)
            below = os.open("d" * 20, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
        os.close(folder)

    top, target = new_volume(site, "live", write_deep), volume("live")
    put(target, "uid", tape, document)
    switch(target, "uid", "DropPrevious")
    assert (described(top), ours(top)) == (new, [])


def test_without_room_for_both_all_is_as_it_was(
    site: Path, backup: tuple[bytes, dict[str, Any], Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours takes room either: the application needs it."""
    tape, document, _ = backup
    top = new_volume(site, "live", write_old)
    old = described(top)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(Failure, match="No space left on device; make it larger") as caught:
        put(volume("live"), "uid", tape, document)
    assert (caught.value.reason, caught.value.retriable) == (Reason.VOLUME_UNAVAILABLE, False)
    assert (described(top), ours(top)) == (old, [])

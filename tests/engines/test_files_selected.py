"""Some files of a backup, alone or among those that are there: what is chosen comes, all else is as it was."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract.reasons import Failure, Reason
from tests.dying import is_killed_before
from tests.engines.owners import NOBODY, as_nobody
from tests.engines.trees import described, grow, mounted, put, read, switch, volume

merge = partial(put, strategy="Merge")


@pytest.fixture
def site(short_path: Path) -> Iterator[Path]:
    """A folder in which volumes are mounted; `source` is one that was backed up."""
    short_path.chmod(0o755)
    for name in ("source", "live"):
        (short_path / name).mkdir()
    with mounted(short_path):
        yield short_path


def write(top: Path, files: dict[str, str]) -> None:
    """Write files; an empty text is a directory."""
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not text:
            path.mkdir()
        elif text.startswith("->"):
            os.link(top / text[2:], path)
        else:
            path.write_text(text)


SOURCE = {
    "hr/a": "new a",
    "hr/deep/b": "new b",
    "hr/empty": "",
    "hr/same": "->hr/a",
    "it/a": "new it",
    "it/linked": "->hr/deep/b",
    "top.txt": "new top",
}


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["hr/**"], {"hr", "hr/a", "hr/deep", "hr/deep/b", "hr/empty", "hr/same"}),
        (["hr"], {"hr", "hr/a", "hr/deep", "hr/deep/b", "hr/empty", "hr/same"}),
        (["hr/*"], {"hr", "hr/a", "hr/deep", "hr/deep/b", "hr/empty", "hr/same"}),
        (["*.txt", "hr/empty"], {"top.txt", "hr", "hr/empty"}),
        (["**/a"], {"hr", "hr/a", "it", "it/a"}),
        (["it/linked"], {"it", "it/linked"}),
        (["hr/same"], {"hr", "hr/same"}),
        (["hr/deep/*", "it/linked"], {"hr", "hr/deep", "hr/deep/b", "it", "it/linked"}),
    ],
)
def test_what_patterns_mean_is_what_comes(site: Path, patterns: list[str], found: set[str]) -> None:
    """With the directories it is in; a hard link comes with its contents, also when its first name does not."""
    write(site / "source", SOURCE)
    tape, document = read(volume("source"))
    done = put(volume("live", select=patterns), "uid", tape, document, strategy="NewDatabase")
    new, all_of_it = described(site / "live"), described(site / "source")
    assert {os.fsdecode(path) for path in new} == found
    assert {path: (one[:4], one[4] and one[4][:2]) for path, one in new.items()} == {
        path: (one[:4], one[4] and one[4][:2]) for path, one in all_of_it.items() if path in new
    }
    assert done["files"] == sum(
        path.is_file() for path in (site / "live").rglob("[!.]*") if ".tenant" not in str(path)
    )
    alone = (site / "live" / "it" / "linked").exists() and not (site / "live" / "hr").exists()
    assert not alone or (site / "live" / "it" / "linked").stat().st_nlink == 1


@pytest.mark.parametrize(
    "pattern", ["hrr/**", "HR/a", "hr/a/", "../source/hr/a", "hr/../hr/a", ".tenant-backup/**"]
)
def test_a_pattern_that_means_nothing_is_refused_before_anything_is_touched(site: Path, pattern: str) -> None:
    """By name, also beside one that means something."""
    write(site / "source", SOURCE)
    write(site / "live", {"hr/a": "old"})
    tape, document = read(volume("source"))
    old = described(site / "live")
    with pytest.raises(Failure, match="no file of volume live in the backup is meant by live:") as caught:
        merge(volume("live", select=["hr/a", pattern]), "uid", tape, document)
    assert (caught.value.reason, pattern in caught.value.message) == (Reason.FILES_NOT_FOUND, True)
    assert described(site / "live") == old


OLD = {
    "hr/a": "old a",
    "hr/mine": "kept",
    "hr/deep": "a file in the place of a directory",
    "it/a": "old it",
    "other": "kept",
}


def grown(site: Path) -> tuple[bytes, dict[str, Any]]:
    """A backup, and a volume that has other files by now."""
    write(site / "source", SOURCE)
    (site / "source" / "hr").chmod(0o555)
    return read(volume("source"))


def texts(top: Path) -> dict[str, str]:
    """All files of a volume."""
    found = (path for path in sorted(top.rglob("*")) if ".tenant-backup" not in str(path))
    return {str(path.relative_to(top)): path.read_text() for path in found if path.is_file()}


MERGED = {
    "hr/a": "new a",
    "hr/deep/b": "new b",
    "hr/mine": "kept",
    "hr/same": "new a",
    "it/a": "old it",
    "it/linked": "new b",
    "other": "kept",
}
SELECTED = ["hr/**", "it/linked"]


def test_chosen_files_come_among_others_and_an_undo_brings_back_what_they_replaced(site: Path) -> None:
    """What is beside them stays through both, and directories that are there stay as they are."""
    tape, document = grown(site)
    write(site / "live", OLD)
    top, target = site / "live", volume("live", select=SELECTED)
    old = described(top)
    for _ in range(2):
        assert merge(target, "uid", tape, document)["files"] == 4
        assert texts(top) == MERGED
    assert (top / "hr").stat().st_mode & 0o777 == 0o755
    assert (top / "hr" / "empty").is_dir()
    (top / "hr" / "since").write_text("since")
    for _ in range(2):
        switch(volume("live"), "uid", "Undo")
        assert texts(top) == OLD | {"hr/since": "since"}
    (top / "hr" / "since").unlink()
    assert {path: one[:3] for path, one in described(top).items()} == {
        path: one[:3] for path, one in old.items()
    }
    switch(volume("live"), "uid", "DropPrevious")
    assert (texts(top), list((top / ".tenant-backup").iterdir())) == (OLD, [])


def test_a_merge_that_is_killed_anywhere_is_ended_by_the_next_and_so_is_its_undo(site: Path) -> None:
    """SIGKILL before every third step, and again somewhere in the attempt after it."""
    tape, document = grown(site)
    chance = random.Random(4)
    for step in count(step=3):
        top, target = site / f"v{step}", volume(f"v{step}", select=SELECTED)
        top.mkdir()
        write(top, OLD)
        doing, undo = partial(merge, target, "uid", tape, document), partial(switch, target, "uid", "Undo")
        killed = is_killed_before(step, doing)
        is_killed_before(chance.randrange(40), doing)
        doing()
        assert texts(top) == MERGED
        is_killed_before(step % 45, undo)
        is_killed_before(chance.randrange(20), undo)
        undo()
        assert texts(top) == OLD
        if not killed:
            break
    assert step > 60


def test_a_merge_needs_no_rights_but_on_the_directories_it_changes(site: Path) -> None:
    """One that may not be written is named, and all is taken back."""
    tape, document = grown(site)
    write(site / "live", OLD)
    top, target = site / "live", volume("live", select=SELECTED)
    for path in (top, *top.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    as_nobody(lambda: merge(target, "uid", tape, document))
    assert texts(top) == MERGED
    as_nobody(lambda: switch(target, "uid", "Undo"))
    (top / "it").chmod(0o555)
    with pytest.raises(Failure, match="cannot write to linked on volume live") as caught:
        as_nobody(lambda: merge(target, "again", tape, document))
    assert (caught.value.reason, texts(top)) == (Reason.PERMISSION_DENIED, OLD)


@pytest.mark.parametrize("link", ["hr", "hr/deep"])
def test_a_merge_follows_no_link_out_of_the_volume(site: Path, link: str) -> None:
    """A link in the place of a directory is replaced, and comes back with the undo."""
    tape, document = grown(site)

    def outside() -> list[Path]:
        return sorted((site / "outside").rglob("*"))

    write(site / "outside", {"deep/b": "theirs"})
    before, top = outside(), site / "live"
    (top / link).parent.mkdir(exist_ok=True)
    (top / link).symlink_to(site / "outside")
    merge(volume("live", select=["hr/deep/b"]), "uid", tape, document)
    assert (outside(), (site / "outside" / "deep" / "b").read_text()) == (before, "theirs")
    assert texts(top) == {"hr/deep/b": "new b"}
    switch(volume("live"), "uid", "Undo")
    assert (outside(), (top / link).is_symlink()) == (before, True)


@pytest.mark.parametrize("seed", range(4))
def test_of_every_tree_any_part_comes_as_it_was(site: Path, seed: int) -> None:
    """Odd names, holes, links, attributes: what is chosen is the same, and what is not stays away."""
    grow(site / "source", seed)
    tape, document = read(volume("source"))
    names = [os.fsdecode(path) for path in described(site / "source")]
    chosen = [name for name in random.Random(seed).sample(names, 4) if not set("*?") & set(name)]
    put(volume("live", select=chosen), "uid", tape, document, strategy="NewDatabase")
    new, old = described(site / "live"), described(site / "source")
    wanted = [os.fsencode(name) for name in chosen]
    for path, one in old.items():
        is_meant = any(path == each or path.startswith(each + b"/") for each in wanted)
        leads = any(each.startswith(path + b"/") for each in wanted)
        assert (path in new) == (is_meant or leads)
        if path in new and not isinstance(one[4], tuple):
            assert new[path] == one
        elif path in new:
            assert (new[path][:4], new[path][4][:2], new[path][5]) == (one[:4], one[4][:2], one[5])

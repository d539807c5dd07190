"""Database and files restored by the real stages as processes of their own, one of which kills itself on the way."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Failure
from tenant_backup.stages import load, place
from tests.engines.peer import Kept, OpenPeer
from tests.engines.trees import described, read, volume

VOLUME = volume("uploads")
KILLED = -signal.SIGKILL

# Who dies, and before or after which step it is at with the others. Between `placed` and `ended` files are
# in place; before `load` says `ended` the database is, too.
DEATHS = [
    ("load", "before", "ready"),
    ("place", "before", "placed"),
    ("place", "after", "placed"),
    ("load", "after", "placed"),
    ("load", "before", "ended"),
    ("place", "after", "ended"),
]


@dataclass
class Both:
    """A backup of a database and of a volume, whose files have changed since."""

    kept: Kept
    new: dict[bytes, tuple[object, ...]]
    old: dict[bytes, tuple[object, ...]]

    def files_are_new(self) -> bool:
        """Whether the volume holds the backup; if not, it has to hold what was there before."""
        found = described(paths.FILES / VOLUME.name)
        assert found in (self.new, self.old)
        return found == self.new

    def restore(self, job: Restore, *death: str) -> dict[str, int]:
        """Run `load` and `place` side by side; return their exit codes."""
        stages: dict[str, Callable[[], object]] = {
            "load": lambda: load.run(job),
            "place": lambda: place.run(job, VOLUME.name),
        }
        running = {
            name: _start(doing, death[1:] if name in death[:1] else ()) for name, doing in stages.items()
        }
        peer = OpenPeer(self.kept, parts=["", VOLUME.name])
        try:
            return {name: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for name, pid in running.items()}
        finally:
            peer.close()


def both(kept: Kept, folder: Path) -> Both:
    """Back up a volume, too, and change all of its files."""
    top = folder / VOLUME.name
    (top / "a").mkdir(parents=True)
    (top / "a" / "x").write_bytes(b"new")
    (top / "same").write_bytes(b"new")
    tape, document = read(VOLUME)
    new = described(top)
    kept.catalogue["files"] = [document]
    (segment,) = document["segments"]
    kept.segments[segment], kept.rows[segment] = [tape], None
    (top / "a" / "x").unlink()
    (top / "same").write_bytes(b"old")
    (top / "since").write_bytes(b"old")
    return Both(kept, new, described(top))


def _start(doing: Callable[[], object], death: tuple[str, ...]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if death:
            load.FromOpen.come = _dying(load.FromOpen.come, *death)  # type: ignore[method-assign]
        doing()
        code = 0
    except Failure as failure:
        code = failure.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _dying(real: Callable[..., bool], when: str, step: str) -> Callable[..., bool]:
    def come(self: load.FromOpen, at: str, *, committed: bool) -> bool:
        if (at, when) == (step, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(self, at, committed=committed)
        if (at, when) == (step, "after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return come

"""The stages of one Job as child processes of the command line, joined by the same sockets as in a pod.

Each gets folders as a container would, below a folder of this run, and answers as to a kubelet. What a pod's
containers may not see of each other they see here: all run as the same user.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.contract.results import Result, decode

from . import console

_STEPS: dict[type[jobs.Job], Sequence[Sequence[str]]] = {
    jobs.Backup: (("prepare",), ("dump", "archive", "upload")),
    jobs.Restore: (("download", "open", "load"),),
    jobs.Verify: (("download", "examine"),),
}
_OF_A_VOLUME: dict[type[jobs.Job], str] = {
    jobs.Backup: "gather",
    jobs.Restore: "place",
    jobs.Swap: "switch",
}
_TICK = 0.02  # seconds between looks at the children
_FAREWELL = 30.0  # seconds a stage gets to clear away what it made in a server
_SOCKET_PATH = 107  # bytes
_LONGEST = "/download/run/tenant-backup/download.binding"  # below the folder of a run
_OWN_VARIABLES = ("PG", "MYSQL_", "AWS_")  # libraries would believe them instead of what the job says


@dataclass(frozen=True)
class Running:
    """One stage's process."""

    stage: str
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def stdout(self) -> Path:
        """What it printed: progress, one JSON document a line."""
        return self.folder / "stdout"

    def ended(self) -> Ended:
        """How the process ended; it must have."""
        message = (self.folder / paths.TERMINATION_MESSAGE.relative_to(paths.ROOT)).read_text()
        errors = (self.folder / "stderr").read_text(errors="replace")
        return Ended(self.stage, self.process.wait(), decode(message), errors)


@dataclass(frozen=True)
class Ended:
    """How one stage's process ended."""

    stage: str
    code: int
    result: Result | None  # None: it was killed before it could answer
    stderr: str


@dataclass(frozen=True)
class Mounts:
    """What the stages find as a pod's containers find their volumes."""

    secrets: Path
    volume: Path | None  # of a volume store
    files: Path | None = None  # a folder for each of the tenant's volumes


Watch = Callable[[Sequence[Running]], None]  # called every few hundredths of a second


def steps(job: jobs.Job) -> Sequence[Sequence[str]]:
    """Return the stages of a job: those of a step run side by side, one step after the other.

    A stage of a volume has the volume's name behind its own and a space.
    """
    found = _STEPS.get(type(job), ((type(job).__name__.lower(),),))
    if not isinstance(job, jobs.Backup | jobs.Restore | jobs.Swap):
        return found
    alone = () if job.database.engine else ("dump", "load", "swap")
    last = [name for name in found[-1] if name not in alone]
    return (*found[:-1], [*last, *(f"{_OF_A_VOLUME[type(job)]} {volume.name}" for volume in job.files)])


def run(job: jobs.Job, folder: Path, mounts: Mounts, watch: Watch) -> dict[str, Ended]:
    """Run the stages of a job as long as all end well.

    `folder` is new, and private. Whatever ends this function ends the stages first.
    """
    if len(os.fsencode(folder)) + len(_LONGEST) > _SOCKET_PATH:
        message = f"{folder} is too long a path for Unix sockets; set TMPDIR to a shorter one, such as /tmp"
        raise Failure(Reason.INVALID_SPEC, message)
    _lay_out(folder, mounts)
    ended: dict[str, Ended] = {}
    for stages in steps(job):
        running: list[Running] = []
        try:
            running += (_start(stage, job, folder) for stage in stages)
            _wait(running, watch)
        finally:
            _stop(running)
        ended |= {item.stage: item.ended() for item in running}
        if any(item.code for item in ended.values()):
            break
    return ended


def facts(ended: Mapping[str, Ended], spokesman: str) -> dict[str, object]:
    """Return what the job came to. Raises the Failure that ended it, not one of its consequences."""
    failed = [item for item in ended.values() if item.code]
    causes = [item for item in failed if item.code != ExitCode.PEER_FAILED] or failed
    if not causes:
        result = ended[spokesman].result
        return {} if result is None else result.facts
    # Who was told to stop, or died without a word, may be a consequence too: what a stage names comes first.
    cause = min(causes, key=lambda item: item.result is None or item.result.reason is Reason.CANCELLED)
    if cause.result is None:
        said = cause.stderr.strip().rpartition("\n")[2] or f"exit code {cause.code}"
        raise Failure(
            Reason.STAGE_KILLED, f"{cause.stage} ended before it could say why ({said})", retriable=True
        )
    told = cause.result
    if told.reason is Reason.INTERNAL_ERROR:
        console.say(cause.stderr)  # its log, which nobody else keeps
    raise Failure(told.reason, told.message, retriable=told.retriable)


def _lay_out(folder: Path, mounts: Mounts) -> None:
    for name in ("run/tenant-backup", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "secrets").symlink_to(mounts.secrets)
    if mounts.volume is not None:
        (folder / "store").symlink_to(mounts.volume)
    if mounts.files is not None:
        (folder / "files").symlink_to(mounts.files)


def _start(stage: str, job: jobs.Job, folder: Path) -> Running:
    own = folder / stage.replace(" ", "-")
    for name in ("dev", "scratch"):
        (own / name).mkdir(parents=True)
    for name in ("run", "spool", "store", "secrets", "files"):
        (own / name).symlink_to(folder / name)
    (own / "dev" / "termination-log").touch()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_OWN_VARIABLES)}
    environment = {jobs.ENVIRONMENT_VARIABLE: jobs.to_json(job), "TENANT_BACKUP_ROOT": str(own)}
    with (own / "stdout").open("wb") as output, (own / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tenant_backup.stages", *stage.split()],
            env=inherited | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us: we ask the stages to stop, and they clear away
        )
    return Running(stage, process, own)


def _wait(running: Sequence[Running], watch: Watch) -> None:
    while True:
        watch(running)
        if all([item.process.poll() is not None for item in running]):  # a list: each one is looked at
            return
        time.sleep(_TICK)


def _stop(running: Sequence[Running]) -> None:
    """End what still runs: first by asking, so that a half-built database is dropped."""
    alive = [item for item in running if item.process.poll() is None]
    for item in alive:
        item.process.terminate()
    give_up = time.monotonic() + _FAREWELL
    try:
        for item in alive:
            with suppress(subprocess.TimeoutExpired):
                item.process.wait(max(0.0, give_up - time.monotonic()))
    finally:
        for item in alive:
            if item.process.poll() is None:
                os.killpg(item.process.pid, signal.SIGKILL)
                item.process.wait()

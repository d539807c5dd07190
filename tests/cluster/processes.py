"""The stages' real processes on this node: found by what they run, frozen and killed by process id."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find(stage: str, namespace: str, seconds: float = 30, *, other_than: int = 0) -> int:
    """Return the process id of a stage of a Job in `namespace`, waiting for it to start.

    Raises TimeoutError when none comes.
    """
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != other_than and _is(process, stage, namespace):
                return int(process.name)
        time.sleep(0.01)
    raise TimeoutError(f"no process of stage {stage} in {namespace} within {seconds:.0f} s")


def find_listening(stage: str, namespace: str, socket: str, *, other_than: int = 0) -> int:
    """Return the process id of a stage once the file `socket` is there: its peers can reach it."""
    found = find(stage, namespace, 60, other_than=other_than)
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if Path(f"/proc/{found}/root/run/tenant-backup/{socket}").exists():
            return found
        time.sleep(0.005)
    raise TimeoutError(f"stage {stage} does not listen on {socket}")


@contextmanager
def frozen(stage: str, namespace: str, socket: str) -> Iterator[int]:
    """Stop a stage as soon as it listens, and let it go on at the end: its peers stand in mid-work."""
    pid = find_listening(stage, namespace, socket)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """End a process as an out-of-memory kill would."""
    os.kill(pid, signal.SIGKILL)


def _is(process: Path, stage: str, namespace: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        if b"tenant_backup.stages" not in words or stage.encode() not in words:
            return False
        return f'"namespace":"{namespace}"'.encode() in (process / "environ").read_bytes()
    except OSError:  # ended while we looked
        return False

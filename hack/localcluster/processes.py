"""Starting, finding and stopping the processes of the node.

There are no pid files to go stale: each process carries a mark in its environment, which its children (the
containers' shims) inherit. Whoever carries the mark is ours, whichever checkout started it and however it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .say import Problem
from .settings import STATE

MARK = "TENANT_BACKUP_CLUSTER_PART"


# Memory is cheaper here than processor time: Go's collector runs a quarter as often.
LAZY = {"GOGC": "400"}


def start(part: str, command: list[str], path: str | None = None) -> None:
    """Start a part of the node in the background; its output goes to a log file."""
    log = STATE / "log" / f"{part}.log"
    environment = {"PATH": path or "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(STATE), **LAZY, MARK: part}
    with log.open("ab") as output:
        subprocess.Popen(
            command,
            env=environment,
            cwd=STATE,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def running() -> dict[int, str]:
    """{pid: part} of every living process of the node."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (part := _part(int(folder.name))):
            found[int(folder.name)] = part
    return found


def stop(parts: Iterable[str] | None = None, patience: float = 5) -> None:
    """End these parts, or all: politely first, by force after `patience` seconds."""
    wanted = set(parts) if parts is not None else None
    _signal_until_gone(wanted, signal.SIGTERM, patience)
    _signal_until_gone(wanted, signal.SIGKILL, 5)
    left = _select(wanted)
    if left:
        raise Problem(f"these processes of the local cluster cannot be stopped: {left}; restart the machine.")


def kill_containers() -> None:
    """Kill what runs in the pods' control groups; their data goes away with the node anyway."""
    for members in Path("/sys/fs/cgroup").glob("**/kubepods/**/cgroup.procs"):
        with suppress(OSError):
            for pid in members.read_text().split():
                os.kill(int(pid), signal.SIGKILL)


def _signal_until_gone(wanted: set[str] | None, number: signal.Signals, patience: float) -> None:
    deadline = time.monotonic() + patience
    for pid in _select(wanted):
        _signal(pid, number)
    while _select(wanted) and time.monotonic() < deadline:
        time.sleep(0.05)


def _select(wanted: set[str] | None) -> dict[int, str]:
    return {pid: part for pid, part in running().items() if wanted is None or part in wanted}


def _signal(pid: int, number: signal.Signals) -> None:
    # The pid may have ended and been given to a stranger since we looked; a pidfd holds on to one process.
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _part(pid):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _part(pid: int) -> str | None:
    """The mark of a process, None when it has none, has ended or is a zombie."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(f"{MARK}=".encode()):
            return entry.partition(b"=")[2].decode()
    return None

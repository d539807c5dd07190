"""Operator processes: started as users do, or forked from a process that has imported everything.

A start spends more than a second of processor time on imports, and the sweeps start many hundred operators.
Forked or not, each is a process of its own that dies by SIGKILL like any other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

from hack.lab.kubectl import ROOT
from tests.operator import crashing

_PATH = f"{ROOT}/operator:{ROOT}"
_FORKED = multiprocessing.get_context("forkserver")


class Process(Protocol):
    """What tests need of subprocess.Popen."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, at most so many seconds; return its exit code."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """End it at once."""

    def terminate(self) -> None:
        """Ask it to end."""


Start = Callable[[Mapping[str, str], Path], Process]  # environment, and the file its output is added to


def fresh(environment: Mapping[str, str], log: Path) -> Process:
    """Start an operator as users do, imports included."""
    command = [sys.executable, str(ROOT / "tests/operator/crashing.py")]
    with log.open("ab") as file:
        return subprocess.Popen(command, env={**environment, "PYTHONPATH": _PATH}, stdout=file, stderr=file)


def forked(environment: Mapping[str, str], log: Path) -> Process:
    """Start an operator in a moment."""
    _FORKED.set_forkserver_preload([crashing.__name__])
    with patch.dict(os.environ, PYTHONPATH=_PATH):
        forkserver.ensure_running()
    process = _FORKED.Process(target=crashing.forked, args=(dict(environment), str(log)), daemon=True)
    process.start()
    return _Forked(process)


class _Forked:
    def __init__(self, process: BaseProcess) -> None:
        assert process.pid
        self.pid, self._process = process.pid, process

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"the operator did not end within {timeout} s")
        return code

    def send_signal(self, number: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

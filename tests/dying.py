"""Work that kills itself on the way: in a process of its own, forked from this one."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any


def is_killed(doing: Callable[[], object]) -> bool:
    """Do it in a process of its own; return whether that one was killed by SIGKILL. All else has to end well."""
    child = os.fork()
    if child == 0:
        try:
            doing()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


_STEPS = (
    "mkdir",
    "rename",
    "symlink",
    "link",
    "chown",
    "chmod",
    "fchmod",
    "utime",
    "fsync",
    "pwrite",
    "open",
    "unlink",
    "rmdir",
)


def is_killed_before(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed before its step of that number, on a file system; return whether it was."""
    left = [step]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*arguments, **options)

        return call

    def doomed() -> None:
        for name in _STEPS:
            setattr(os, name, dying(getattr(os, name)))
        work()

    return is_killed(doomed)

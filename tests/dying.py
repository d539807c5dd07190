"""Work that kills itself on the way: in a process of its own, forked from this one."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


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

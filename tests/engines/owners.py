"""Work without any rights of root's, in a process of its own."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

from tenant_backup.contract.reasons import Failure, Reason

NOBODY = 65534


def as_nobody(work: Callable[[], Any]) -> Any:
    """Run `work` in a process without any rights of root's; return what it returns, or raise its Failure."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                said: dict[str, Any] = {"done": work()}
            except Failure as failure:
                said = {"reason": failure.reason, "message": failure.message}
            os.write(writer, json.dumps(said).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = json.loads(pipe.read() or "{}")
    os.waitpid(child, 0)
    if "reason" in said:
        raise Failure(Reason(said["reason"]), said["message"])
    return said["done"]

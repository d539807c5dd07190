"""Work with fewer rights than root's, in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import traceback
from collections.abc import Callable
from typing import Any

from tenant_backup.contract.reasons import Failure, Reason

NOBODY = 65534


PRIVILEGED = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4}  # numbers in capability.h
_VERSION_3 = 0x20080522  # of the structures that capset takes


def as_nobody(work: Callable[[], Any]) -> Any:
    """Run `work` in a process without any rights of root's; return what it returns, or raise its Failure."""
    return _apart(_become_nobody, work)


def as_privileged(work: Callable[[], Any]) -> Any:
    """Likewise as root with the rights of a container of a privileged volume, and no others."""
    return _apart(_keep_few_rights, work)


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _keep_few_rights() -> None:
    kept = sum(1 << number for number in PRIVILEGED.values())
    header, data = struct.pack("Ii", _VERSION_3, 0), struct.pack("6I", kept, kept, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _apart(prepare: Callable[[], None], work: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            prepare()
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

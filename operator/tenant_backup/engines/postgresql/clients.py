"""The server's own client programs: which version to run, and how to run it and believe it.

A program's environment is scrubbed of PG* variables and carries no secret; its success is its exit code,
never the end of its output.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tenant_backup.contract.reasons import Failure, Reason

INSTALLED = Path("/usr/lib/postgresql")
_STDERR_LIMIT = 64 << 10  # bytes of a program's complaints that are kept


def program(name: str, server_version: int, installed: Path = INSTALLED) -> str:
    """Return the path of a client program, of the smallest major version not below the server's.

    Raises Failure(CLIENT_TOO_OLD) when the server is newer than every client in the image.
    """
    major = server_version // 10000
    known = sorted(int(path.name) for path in installed.glob("*") if path.name.isdigit())
    fitting = [
        version
        for version in known
        if version >= major and (installed / str(version) / "bin" / name).exists()
    ]
    if not fitting:
        have = ", ".join(map(str, known)) or "none"
        message = f"the server is PostgreSQL {major}, the clients here are {have}; use a newer runner image"
        raise Failure(Reason.CLIENT_TOO_OLD, f"{message}, or install postgresql-client-{major}")
    return str(installed / str(fitting[0]) / "bin" / name)


def major_of(path: str) -> int:
    """Return the major version of a program found by `program`."""
    found = re.search(r"/(\d+)/bin/", path)
    assert found
    return int(found[1])


def environment(**more: str) -> dict[str, str]:
    """Return an environment without libpq's variables: everything is in the connection string."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8", **more}


def buffered(command: list[str]) -> list[str]:
    """Let a program write to a socket in 64 KiB pieces instead of 4 KiB (measured: a quarter faster)."""
    return ["stdbuf", "-o65536", *command] if shutil.which("stdbuf") else command


def start(command: list[str], stdout: int, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a program whose output goes straight to `stdout`, a file descriptor."""
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment())


def complaints(child: subprocess.Popen[bytes]) -> str:
    """Read what a child says on standard error until it ends; the last 64 KiB count."""
    assert child.stderr
    tail = b""
    while piece := child.stderr.read1(8192):  # type: ignore[attr-defined]
        tail = (tail + piece)[-_STDERR_LIMIT:]
    return tail.decode(errors="replace")

"""A database's definitions, and its large objects, written by pg_dump straight into a file descriptor."""

from __future__ import annotations

import subprocess

from . import clients, reader

_LOCK_WAIT = "10s"  # a queued exclusive lock must end the dump, not hang it behind the leader
_FORMAT = ["-Fc", "-Z0", "-w", f"--lock-wait-timeout={_LOCK_WAIT}"]


def start_definitions(program: str, conninfo: str, snapshot: str, out: int) -> subprocess.Popen[bytes]:
    """Start dumping every definition, uncompressed (the archive compresses), without subscriptions."""
    # From version 18 on pg_dump adds statistics, which hold values of excluded columns.
    more = ["--no-statistics"] if clients.major_of(program) >= 18 else []
    flags = ["--schema-only", "--no-subscriptions", f"--snapshot={snapshot}", *more]
    return clients.start([program, *_FORMAT, *flags, "-d", conninfo], out)


def start_large_objects(program: str, conninfo: str, snapshot: str, out: int) -> subprocess.Popen[bytes]:
    """Start dumping every large object and nothing else."""
    more = ["--no-statistics"] if clients.major_of(program) >= 18 else []
    flags = [
        "--data-only",
        "--large-objects" if more else "--blobs",
        "--exclude-table=*.*",
        f"--snapshot={snapshot}",
    ]
    return clients.start([program, *_FORMAT, *flags, *more, "-d", conninfo], out)


def finish(child: subprocess.Popen[bytes], what: str) -> None:
    """Wait for pg_dump. Only its exit code says that it is complete. Raises Failure."""
    said = clients.complaints(child)
    if child.wait():
        raise reader.ended(child, said, what)

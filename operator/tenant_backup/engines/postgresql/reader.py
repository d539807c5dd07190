"""One psql child that copies rows straight into a file descriptor: no row passes through Python.

Python types statements on its standard input and waits for a line of its own on standard error. psql prints
that line after the COPY before it, and has flushed standard output by then (handleCopyOut ends with a checked
fflush), so what Python writes to the same descriptor afterwards comes after the rows. One child serves a
worker for the whole dump: starting a process is paid once per worker, not per table.

psql forgets how many rows a COPY sent when they go where its query output goes. So query output goes to
/dev/null, and rows are copied to "pstdout", the process's own standard output.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import subprocess

from tenant_backup.contract.reasons import Failure, Reason

from . import clients, failures, session
from .endpoint import Endpoint

# Standard input is a script: the first error ends psql, and it says the SQLSTATE.
_FLAGS = ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
_KEPT = 20  # lines of complaint


class Reader:
    """A psql session inside the leader's snapshot whose standard output is `out`, somebody's socket."""

    def __init__(
        self, program: str, endpoint: Endpoint, version: int, encoding: tuple[str, str], out: int
    ) -> None:
        """Start psql. `encoding` is the database's: PostgreSQL's name and Python's."""
        self._encoding, self._codec = encoding
        conninfo = endpoint.conninfo(session.for_reading(version), client_encoding=self._encoding)
        command = clients.buffered([program, *_FLAGS, "-d", conninfo])
        self._child = clients.start(command, out, subprocess.PIPE)

    def join(self, snapshot: str) -> None:
        """Enter the leader's snapshot. Raises Failure."""
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSET TRANSACTION SNAPSHOT '{snapshot}';"
        self._run(f"\\o /dev/null\n{begin}", "joining the snapshot")

    def copy(self, table: str, query: str, what: str) -> int:
        """Write the rows of `query` to `out` as COPY text; return how many there were. Raises Failure.

        The table (quoted) is locked at once, or this fails. Waiting could be for ever: an exclusive lock
        queued behind the leader's stands before us.
        """
        lock = f"LOCK TABLE ONLY {table} IN ACCESS SHARE MODE NOWAIT;"
        if "\n" in query or "\r" in query:
            return self._copy_under_odd_name(lock, query, what)
        return self._run(f"{lock}\n\\copy ({query}) to pstdout (encoding '{self._encoding}')", what)

    def close(self) -> None:
        """Let psql end by itself."""
        assert self._child.stdin
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        self._child.wait()

    def kill(self) -> None:
        """End psql at once, from any thread."""
        self._child.kill()

    def _copy_under_odd_name(self, lock: str, query: str, what: str) -> int:
        """Copy where a name has a line break, which psql's own copy cannot take: rows are counted apart."""
        count = f"SELECT pg_catalog.count(*) AS counted FROM ({query}) q \\gset"  # noqa: S608
        copy = f"\\o\nCOPY ({query}) TO STDOUT (ENCODING '{self._encoding}');\n\\o /dev/null"
        return self._run(f"{lock}\n{count}\n{copy}", what, ":counted")

    def _run(self, script: str, what: str, answer: str = ":ROW_COUNT") -> int:
        token = secrets.token_hex(16)
        self._type(f"{script}\n\\warn {token} {answer}\n")
        return self._answer(token, what)

    def _type(self, text: str) -> None:
        assert self._child.stdin
        # A child that has ended says why on standard error, which `_answer` reads.
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(text.encode(self._codec))
            self._child.stdin.flush()

    def _answer(self, token: str, what: str) -> int:
        assert self._child.stderr
        said: list[str] = []
        for line in self._child.stderr:
            text = line.decode(errors="replace").rstrip()
            if text.startswith(token):
                return int(text.split()[1])
            said = [*said[-_KEPT:], text]
        raise ended(self._child, "\n".join(said), what)


def ended(child: subprocess.Popen[bytes], said: str, what: str) -> Failure:
    """The failure of a client program that ended: PEER_FAILED when whoever reads its output went away."""
    code = child.wait()
    if code == -signal.SIGPIPE or re.search(r"could not write (COPY data|to output file)", said):
        return Failure(Reason.PEER_FAILED, "container archive ended before its work was complete")
    if code < 0 and not said:
        name = signal.Signals(-code).name
        return Failure(Reason.DUMP_FAILED, f"{what}: the client program was ended by {name}", retriable=True)
    return failures.of_text(said, Reason.DUMP_FAILED, what, retriable=True)

"""A PostgreSQL server of this machine's own package, as a process on loopback: for bench and stage tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "lab"


@dataclass(frozen=True)
class HostPostgres:
    """A running server; `bin` has the programs of its version."""

    port: int
    bin: Path

    def sql(self, statements: str, database: str = "postgres", user: str = "postgres") -> str:
        """Run statements; return unaligned rows without headings."""
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        done = subprocess.run(
            command,
            input=statements,
            env=self.environment(database, user),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def environment(self, database: str, user: str = "postgres") -> dict[str, str]:
        """What libpq's programs need to connect."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": user, "PGPASSWORD": PASSWORD}
        return {**os.environ, **where, "PGDATABASE": database, "PATH": f"{self.bin}:{os.environ['PATH']}"}


@contextmanager
def host_postgres() -> Iterator[HostPostgres]:
    """Start a server in a temporary folder, tuned for neither safety nor lies; stop it at the end."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    folder = Path(tempfile.mkdtemp(prefix="tenant-backup-pg-"))
    shutil.chown(folder, "postgres")
    port = _free_port()
    data = folder / "data"
    (folder / "pw").write_text(PASSWORD)
    (folder / "pw").chmod(0o644)
    _as_postgres(
        programs / "initdb",
        "-D",
        data,
        "-A",
        "scram-sha-256",
        "-U",
        "postgres",
        f"--pwfile={folder}/pw",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    )
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=512MB -c max_wal_size=4GB"
    _as_postgres(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", settings, "start")
    try:
        yield HostPostgres(port, programs)
    finally:
        _as_postgres(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def _as_postgres(*command: object) -> None:
    words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *map(str, command)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd="/")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

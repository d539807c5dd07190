"""A real PostgreSQL of this machine, for tests: started once, on loopback, as the user postgres."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tenant_backup.contract.job import Database

INSTALLED = Path("/usr/lib/postgresql")
PASSWORDS = {"postgres": "super:secret\\word", "tenant": "te'nant secret", "app_admin": "admin secret"}
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
fsync = off
full_page_writes = off
max_connections = 60
shared_buffers = 256MB
max_wal_size = 4GB
autovacuum = off
wal_level = logical
log_min_messages = warning
"""
_ACCESS = """
local all postgres trust
host all all 127.0.0.1/32 scram-sha-256
"""


def _run(*command: str) -> None:
    as_postgres = (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
    )
    subprocess.run([*as_postgres, *command], check=True, stdout=subprocess.DEVNULL)


@dataclass
class Server:
    """One PostgreSQL server with its own folder and port."""

    version: int = 15
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tb-pg-")))
    port: int = 0

    def create(self) -> None:
        """Make the cluster and start it."""
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        self.port = _free_port()
        self._program("initdb", "-D", str(self.data), "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        configuration = _CONFIGURATION.format(folder=self.folder)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(configuration)
        (self.data / "pg_hba.conf").write_text(_ACCESS)
        self.start()
        self.sql("SET password_encryption = 'scram-sha-256'")
        for name, password in PASSWORDS.items():
            text = password.replace("'", "''")
            verb = "ALTER" if name == "postgres" else "CREATE"
            self.sql(f"{verb} ROLE {name} LOGIN PASSWORD '{text}'")
        self.sql("ALTER ROLE app_admin CREATEDB CREATEROLE")

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        log = str(self.folder / "log")
        self._program("pg_ctl", "-D", str(self.data), "-o", f"-p {self.port}", "-l", log, "-w", "start")

    def kill(self) -> None:
        """End the server at once, as a lost node would."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        self._program("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")
        while _alive(pid):
            time.sleep(0.02)

    def alive(self) -> bool:
        """Whether the server runs."""
        return (self.data / "postmaster.pid").exists()

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self._program("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True
        )

    def sql(self, text: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as superuser; return the rows of the last one."""
        with self.connect(database) as connection:
            cursor = connection.execute(text)  # type: ignore[arg-type]
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def scalar(self, text: str, database: str = "postgres") -> object:
        """Run one query; return its first value."""
        return self.sql(text, database)[0][0]

    def psql(self, database: str, file: Path, **variables: str) -> None:
        """Run a script."""
        settings = [item for key, value in variables.items() for item in ("-v", f"{key}={value}")]
        program = str(INSTALLED / str(self.version) / "bin" / "psql")
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", database]
        subprocess.run([program, "-X", "-q", *where, *settings, "-f", str(file)], check=True)

    def pg_dump(self, database: str, *flags: str) -> str:
        """What pg_dump writes about a database, without its random lines."""
        program = str(INSTALLED / str(self.version) / "bin" / "pg_dump")
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", database]
        text = subprocess.run([program, *where, *flags], check=True, capture_output=True).stdout.decode(
            "latin-1"
        )
        return "\n".join(
            line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
        )

    def database(self, name: str, connections: int = 4) -> Database:
        """The database as a job description names it."""
        return Database(
            "PostgreSQL", "127.0.0.1", self.port, name, "Prefer", connections, "tenant-db", "pg-admin"
        )

    def drop(self, *databases: str) -> None:
        """Drop databases, whoever is connected."""
        for name in databases:
            self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextlib.contextmanager
    def watched(self, words: str, times: int = 1) -> Iterator[threading.Event]:
        """Set an event as soon as the server has logged statements with these words so many times."""
        self.sql("ALTER SYSTEM SET log_statement = 'all'")
        self.sql("SELECT pg_reload_conf()")
        self.sql("SELECT 1")
        reached, over = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._follow, args=(words, times, reached, over))
        thread.start()
        try:
            yield reached
        finally:
            over.set()
            thread.join()
            self.sql("ALTER SYSTEM RESET log_statement")
            self.sql("SELECT pg_reload_conf()")

    def _follow(self, words: str, times: int, reached: threading.Event, over: threading.Event) -> None:
        with (self.folder / "log").open() as log:
            log.seek(0, os.SEEK_END)
            while not over.is_set():
                times -= log.read().count(words)
                if times <= 0:
                    reached.set()
                time.sleep(0.002)

    def fingerprint(self, database: str) -> dict[str, str]:
        """Rows and an order-independent hash per table, computed by the server."""
        found = self.sql(
            """SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'""",
            database,
        )
        query = "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM ONLY {} t"
        return {str(name): str(self.scalar(query.format(name), database)) for (name,) in sorted(found)}

    def _program(self, name: str, *arguments: str) -> None:
        _run(str(INSTALLED / str(self.version) / "bin" / name), *arguments)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)

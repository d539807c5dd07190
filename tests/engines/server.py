"""A real PostgreSQL on this machine, for tests: started once, on loopback, never as root.

Version 15 is the machine's own package; others run in the file system of their test image.
"""

from __future__ import annotations

import contextlib
import functools
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

from hack.lab import roots
from tenant_backup.contract.job import Database

INSTALLED = Path("/usr/lib/postgresql")
OWN = 15  # the version of this machine's package
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
local all,replication postgres trust
host all all 127.0.0.1/32 scram-sha-256
"""


@functools.cache
def _root(version: int) -> Path:
    return roots.root(f"test-postgres:{version}")


def client(version: int, name: str, folder: Path) -> Path:
    """Return a client program of a version, made below `folder` as it would be below /usr/lib/postgresql.

    That of an image is started by the image's loader, with its libraries: it is this machine's process.
    """
    made = folder / str(version) / "bin" / name
    program = INSTALLED / str(version) / "bin" / name
    if made.is_symlink() or made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    if version == OWN:
        made.symlink_to(program)
        return made
    root = _root(version)
    (loader,) = root.glob("usr/lib*/ld-linux*.so.*")
    (libpq,) = root.glob("usr/lib/*/libpq.so.5")
    made.write_text(f'#!/bin/sh\nexec {loader} --library-path {libpq.parent} {root}{program} "$@"\n')
    made.chmod(0o755)
    return made


@dataclass
class Server:
    """One PostgreSQL server with its own folder and port."""

    version: int = OWN
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tb-pg-")))
    port: int = 0
    settings: dict[str, str] = field(default_factory=dict)  # beside those of the configuration file

    def create(self) -> None:
        """Make the cluster and start it."""
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres" if self.version == OWN else roots.USER)
        self.port = free_port()
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
        options = [f"-p {self.port}", *(f"-c {name}={value}" for name, value in self.settings.items())]
        self._program("pg_ctl", "-D", str(self.data), "-o", " ".join(options), "-l", log, "-w", "start")

    def standby(self, **settings: str) -> Server:
        """Copy this server as it runs and start the copy, which follows it from now on."""
        copy = Server(self.version)
        copy.settings = {"unix_socket_directories": str(copy.folder), **settings}
        if os.getuid() == 0:
            shutil.chown(copy.folder, "postgres")
        copy.port = free_port()
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres"]
        self._program("pg_basebackup", *where, "-D", str(copy.data), "-R", "-c", "fast", "--no-sync")
        copy.start()
        return copy

    def caught_up(self, primary: Server) -> None:
        """Wait until everything that `primary` has committed is here."""
        position = primary.scalar("SELECT pg_current_wal_lsn()")
        while not self.scalar(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"):
            time.sleep(0.01)

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

    def psql(self, database: str, *scripts: Path) -> None:
        """Run scripts in one session."""
        files = [word for script in scripts for word in ("-f", str(script))]
        subprocess.run([*self._client("psql", database), "-X", "-q", *files], check=True)

    def pg_dump(self, database: str, *flags: str, version: int | None = None) -> str:
        """What pg_dump, of the server's version unless told, writes about a database; without its random lines."""
        command = [*self._client("pg_dump", database, version), *flags]
        text = subprocess.run(command, check=True, capture_output=True).stdout.decode("latin-1")
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
        """Rows and a hash per table, computed by the server, whatever the order of rows and columns.

        A column that a parent got after its child comes first in the child's definition.
        """
        found = self.sql(
            """SELECT format('%I.%I', n.nspname, c.relname), (
               SELECT coalesce(string_agg('t.' || quote_ident(attname), ', ' ORDER BY attname), '')
               FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'""",
            database,
        )
        query = (
            "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(ROW({})::text, 0)), 0) FROM ONLY {} t"
        )
        return {
            str(name): str(self.scalar(query.format(columns, name), database))
            for name, columns in sorted(found)
        }

    def _client(self, name: str, database: str, version: int | None = None) -> list[str]:
        program = client(version or self.version, name, self.folder)
        return [str(program), "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", database]

    def _program(self, name: str, *arguments: str) -> None:
        who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
        if self.version != OWN:
            who = roots.inside(_root(self.version), self.folder)
        command = [*who, str(INSTALLED / str(self.version) / "bin" / name), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """Return a port on loopback that nobody has."""
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

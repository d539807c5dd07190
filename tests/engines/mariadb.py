"""A real MariaDB of this machine, for tests: on loopback, in a folder of its own, as the user mysql."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from MySQLdb import Error, _mysql

from tenant_backup.contract.job import Database
from tenant_backup.engines.mysql.dialects import OF_ENGINE, Dialect

INSTALLED = Path("/usr/sbin/mariadbd")
PASSWORDS = {"boss": "super:secret\\word", "tenant": "te'nant secret"}
_AS_MYSQL = ["--user=mysql"] if os.getuid() == 0 else []
_OPTIONS = ["--no-defaults", "--innodb-flush-log-at-trx-commit=0"]
_SAME_OPTIONS = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=128M",
    "--performance-schema=OFF",
    "--general-log-file=statements",
]


@dataclass
class MariaDB:
    """One MariaDB server with its own folder and port."""

    engine: ClassVar[Literal["MariaDB", "MySQL"]] = "MariaDB"
    programs: ClassVar[tuple[str, str]] = ("mariadb", "mariadb-dump")
    dump_options: ClassVar[tuple[str, ...]] = ("--dump-history",)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tb-maria-")))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    options: list[str] = field(default_factory=list)

    def create(self) -> None:
        """Make the data directory and start on it."""
        self.folder.chmod(0o755)
        # One of its own: a server that starts deletes every temporary table it finds, also of another server.
        self._temporary.mkdir(mode=0o777)
        self._temporary.chmod(0o777)
        self.port = _free_port()
        self.prepare()
        self.start()
        for name, password in PASSWORDS.items():
            text = password.replace("\\", "\\\\").replace("'", "\\'")
            self.sql(f"CREATE USER {name}@'%' IDENTIFIED BY '{text}'")
        self.sql("GRANT ALL PRIVILEGES ON *.* TO boss@'%' WITH GRANT OPTION")

    def prepare(self) -> None:
        """Make the data directory."""
        if os.getuid() == 0:
            shutil.chown(self.folder, "mysql")
        made = ["--no-defaults", *_AS_MYSQL, *self.places, "--skip-test-db"]
        how = ["--auth-root-authentication-method=normal", "--skip-name-resolve"]
        subprocess.run(["mariadb-install-db", *made, *how], check=True, capture_output=True)

    @property
    def daemon(self) -> list[str]:
        """The server's program and its options."""
        return [str(INSTALLED), *_OPTIONS, *_AS_MYSQL]

    @property
    def inside(self) -> list[str]:
        """What stands before a program of the server's packages."""
        return []

    @property
    def dialect(self) -> Dialect:
        """What is said to this kind of server."""
        return OF_ENGINE[self.engine]

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def places(self) -> list[str]:
        """The folders of the server."""
        return [f"--datadir={self.data}", f"--tmpdir={self._temporary}"]

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.folder / "socket"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        where = [*self.places, f"--port={self.port}", f"--socket={self.socket}"]
        log = (self.folder / "log").open("ab")
        command = [*self.daemon, *_SAME_OPTIONS, *self.options, *where]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            with contextlib.suppress(Error):
                self._connect("").close()
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server at once, as a lost node would."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder)

    def flavoured(self, script: str) -> str:
        """Return a script as this server understands it."""
        return script

    def sql(self, text: str, database: str = "", user: str = "root") -> list[tuple[Any, ...]]:
        """Run one statement; return its rows, text and numbers as str."""
        connection = self._connect(database, user)
        try:
            connection.query(b"SET NAMES utf8mb4")
            connection.query(self.flavoured(text).encode())
            result = connection.store_result()
            rows = result.fetch_row(0) if result else ()
            return [
                tuple(v.decode("utf-8", "replace") if v is not None else None for v in row) for row in rows
            ]
        finally:
            connection.close()

    def scalar(self, text: str, database: str = "") -> Any:
        """Run one query; return its first value."""
        return self.sql(text, database)[0][0]

    def script(self, database: str, text: str, user: str = "tenant") -> None:
        """Run a script with the server's own client."""
        command = [
            *self.inside,
            self.programs[0],
            *self.client(user),
            "--default-character-set=utf8mb4",
            database,
        ]
        done = subprocess.run(
            command,
            input=self.flavoured(text).encode(),
            env=_environment(user),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def dump(self, database: str, *flags: str) -> list[str]:
        """What mariadb-dump or mysqldump writes about a database, code included."""
        how = [
            "--skip-dump-date",
            "--skip-comments",
            "--order-by-primary",
            "--hex-blob",
            "--routines",
            "--events",
            *self.dump_options,
        ]
        command = [*self.inside, self.programs[1], *self.client("root"), *how, *flags, database]
        done = subprocess.run(command, env=_environment("root"), capture_output=True, check=True)
        return done.stdout.decode("utf-8", "surrogateescape").splitlines()

    def checksums(self, database: str) -> dict[str, str]:
        """Rows and the server's own checksum of each table, which sees every bit of a value."""
        query = f"SELECT table_name FROM information_schema.TABLES WHERE table_schema = '{database}'"
        kinds = "table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        tables = [str(row[0]) for row in self.sql(f"{query} AND {kinds} ORDER BY 1")]
        return {name: self.checksum("`" + name.replace("`", "``") + "`", database) for name in tables}

    def checksum(self, table: str, database: str) -> str:
        """Likewise of one table, in backticks."""
        count = self.scalar(f"SELECT count(*) FROM {table}", database)
        return f"{count} {self.sql(f'CHECKSUM TABLE {table} EXTENDED', database)[0][1]}"

    def database(self, name: str, connections: int = 4) -> Database:
        """The database as a job description names it."""
        return Database(
            self.engine, "127.0.0.1", self.port, name, "Prefer", connections, "tenant-db", "maria-admin"
        )

    def databases(self, name: str) -> list[str]:
        """The databases that grew from one name."""
        return [str(row[0]) for row in self.sql(f"SHOW DATABASES LIKE '{name}%'")]

    def logins(self) -> list[tuple[Any, ...]]:
        """The temporary logins that are there."""
        return self.sql("SELECT user FROM mysql.user WHERE user LIKE 'tbr%'")

    @contextlib.contextmanager
    def watched(self, words: str) -> Iterator[threading.Event]:
        """Set an event as soon as the server is asked a statement with these words."""
        log = self.data / "statements"
        log.unlink(missing_ok=True)
        self.sql("FLUSH GENERAL LOGS")
        self.sql("SET GLOBAL general_log = ON")
        reached, over = threading.Event(), threading.Event()
        thread = threading.Thread(target=_follow, args=(log, words, reached, over))
        thread.start()
        try:
            yield reached
        finally:
            over.set()
            thread.join()
            self.sql("SET GLOBAL general_log = OFF")

    def client(self, user: str) -> list[str]:
        """The arguments with which a client program reaches the server."""
        return ["--no-defaults", f"--socket={self.socket}", f"--user={user}"]

    def _connect(self, database: str, user: str = "root") -> Any:
        known = {"database": database} if database else {}
        # On the Unix socket root is another account, without a password.
        password = "" if user == "root" else PASSWORDS[user]
        return _mysql.connect(unix_socket=str(self.socket), user=user, password=password, **known)


def _follow(log: Path, words: str, reached: threading.Event, over: threading.Event) -> None:
    while not over.is_set():
        if log.exists() and words in log.read_text(errors="replace"):
            reached.set()
        time.sleep(0.005)


def _environment(user: str) -> dict[str, str]:
    return {**os.environ, "MYSQL_PWD": "" if user == "root" else PASSWORDS[user]}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])

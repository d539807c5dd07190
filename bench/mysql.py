"""A large MariaDB or MySQL database against its own client programs, on this machine, no cluster.

Another server of the family is a line in FAMILIES.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hack.lab.chain import Ended
from tests.engines.mariadb import PASSWORDS, MariaDB
from tests.engines.mysql import MySQL

from .figures import Figures
from .stages import NAME, TABLES, Stages, in_memory, many_tables, seconds, shell, store

# The rows that bench.big has in PostgreSQL.
_ROWS_PER_GB = {"log": 2_200_000, "message": 900_000}
_FILL = """
SET SESSION sql_mode = '' /*M! , max_recursive_iterations = 1000000000 */ /*!80000 , cte_max_recursion_depth = 1000000000 */;
CREATE TABLE log (id bigint PRIMARY KEY, at datetime, actor int, action varchar(40), details json, amount decimal(20, 6), hash char(32));
INSERT INTO log WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {log})
  SELECT i, '2024-01-01' + INTERVAL i SECOND, i % 5000, concat('action ', i % 40),
  json_object('i', i, 'text', concat('invoice ', md5(i DIV 9), ' was sent to customer ', i % 9999)), i / 7.0, md5(i) FROM n;
CREATE TABLE message (id bigint PRIMARY KEY, thread int, body text);
INSERT INTO message WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {message})
  SELECT i, i % 90000, concat_ws(' is what we agreed upon in the meeting, ', md5(i * 8 + 1), md5(i * 8 + 2), md5(i * 8 + 3),
  md5(i * 8 + 4), md5(i * 8 + 5), md5(i * 8 + 6), md5(i * 8 + 7), '') FROM n;
ANALYZE TABLE log, message;
"""
_PIPE = (
    "{dump} --single-transaction {name} | zstd -3 -c | openssl enc -aes-256-ctr -K $KEY -iv $IV | sha256sum"
)
_SCRIPT = "{dump} --single-transaction {name} > big.sql"
_RESTORE = "{client} -e 'CREATE DATABASE theirs'; {client} theirs < big.sql"
_EVERYTHING = "{dump} --single-transaction --routines --events {name} > /dev/null"
_STAGES = ("dump", "archive", "upload", "open", "load")


@dataclass(frozen=True)
class Family:
    """One kind of server."""

    key: str  # begins the names of its figures
    server: type[MariaDB]
    log: str  # the option that makes its log as large as what is loaded

    @contextmanager
    def start(self, size: float) -> Iterator[MariaDB]:
        """Start one, with more memory than in tests, its files in memory if there is room; it goes away."""
        folder = Path(tempfile.mkdtemp(prefix="tb-bench-", dir=in_memory(10 * size)))
        server = self.server(folder, options=["--innodb-buffer-pool-size=512M", self.log])
        try:
            server.create()
            yield server
        finally:
            server.remove()


FAMILIES = (
    Family("mariadb", MariaDB, "--innodb-log-file-size=2G"),
    Family("mysql", MySQL, "--innodb-redo-log-capacity=2G"),
)


class Subject(Stages):
    """One database, backed up by us and by the server's own programs."""

    def __init__(self, server: MariaDB, folder: Path) -> None:
        tenant, admin = (("tenant", PASSWORDS["tenant"]), ("boss", PASSWORDS["boss"]))
        super().__init__(server.database(NAME), folder, tenant, admin)
        self.server = server
        where = ["--no-defaults", "--host=127.0.0.1", f"--port={server.port}", "--user=boss"]
        client, dump = (shlex.join([*server.inside, program, *where]) for program in server.programs)
        self._words = {"client": client, "dump": dump, "name": NAME}

    def rival(self, command: str) -> None:
        """Run a rival's command line."""
        environment = {**os.environ, "MYSQL_PWD": PASSWORDS["boss"]}
        shell(command.format(**self._words), environment, self.folder)

    def drop(self, database: str) -> None:
        """Drop what a restore made."""
        self.server.sql(f"DROP DATABASE {database}")


def measure(figures: Figures, family: Family, size: float, runs: int) -> None:
    """Full backup and restore against the server's own programs, alternately, and the stages' memory."""
    print(f"{family.server.engine}: filling a database with about {size:g} GB of rows …", flush=True)
    rows = {table: int(size * count) for table, count in _ROWS_PER_GB.items()}
    peaks: dict[str, list[float]] = {}
    with _subject(family, _FILL.format(**rows), size) as subject:
        _full(figures, family.key, subject, runs, peaks)
        _restore(figures, family.key, subject, runs, peaks)
    for stage in _STAGES:
        figures.add(f"{family.key}_rss_{stage}", "bytes", peaks[stage], max)


def measure_many_tables(figures: Figures, family: Family, runs: int) -> None:
    """A database of very many small tables, against the server's own dump."""
    print(f"{family.server.engine}: creating {TABLES} tables …", flush=True)
    with _subject(family, many_tables("datetime"), 0.1) as subject:
        ours, theirs = [], []
        for _ in range(runs):
            theirs.append(seconds(lambda: subject.rival(_EVERYTHING)))
            ours.append(seconds(lambda: subject.back_up("Full")))
    figures.add(f"{family.key}_5000_tables_seconds", "seconds", ours)
    figures.add_ratio(f"{family.key}_5000_tables_vs_dump", theirs, ours)


@contextmanager
def _subject(family: Family, script: str, size: float) -> Iterator[Subject]:
    with family.start(size) as server, store(size) as folder:
        server.sql(f"CREATE DATABASE {NAME} CHARACTER SET utf8mb4")
        server.sql(f"GRANT ALL PRIVILEGES ON {NAME}.* TO tenant@'%'")
        server.script(NAME, script)
        yield Subject(server, Path(folder))


def _full(figures: Figures, key: str, subject: Subject, runs: int, peaks: dict[str, list[float]]) -> None:
    ours, theirs = [], []
    for _ in range(runs):
        theirs.append(seconds(lambda: subject.rival(_PIPE)))
        ours.append(seconds(lambda: _note(peaks, subject.back_up("Full"))))
    figures.add(f"{key}_full_seconds", "seconds", ours)
    figures.add_ratio(f"{key}_full_vs_openssl_pipe", theirs, ours)


def _restore(figures: Figures, key: str, subject: Subject, runs: int, peaks: dict[str, list[float]]) -> None:
    subject.rival(_SCRIPT)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(seconds(lambda: _note(peaks, subject.restore("ours"))))
        subject.drop("ours")
        theirs.append(seconds(lambda: subject.rival(_RESTORE)))
        subject.drop("theirs")
    figures.add(f"{key}_restore_seconds", "seconds", ours)
    figures.add_ratio(f"{key}_restore_vs_client", theirs, ours)


def _note(peaks: dict[str, list[float]], ended: Mapping[str, Ended]) -> None:
    for stage, item in ended.items():
        peaks.setdefault(stage, []).append(float(item.peak_rss))

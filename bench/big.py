"""A large PostgreSQL database of this machine, and what our stages and rivals need to reach it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from tenant_backup.contract import job as jobs

from .stages import NAME, Stages, shell, store

# Half the bytes in narrow rows of many types, half in long texts; both compress about 3:1.
ROWS_PER_GB = {"log": 2_200_000, "message": 900_000}
_FILL = """
SET ROLE big;
CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, actor int, action text, details jsonb, amount numeric, hash text);
INSERT INTO log SELECT i, timestamptz '2024-01-01' + i * interval '1 second', i % 5000, 'action ' || i % 40,
  jsonb_build_object('i', i, 'text', 'invoice ' || md5((i / 9)::text) || ' was sent to customer ' || i % 9999),
  i / 7.0, md5(i::text) FROM generate_series(1, {log}) i;
CREATE TABLE message (id bigint PRIMARY KEY, thread int, body text);
INSERT INTO message SELECT i, i % 90000, string_agg(md5((i * 8 + n)::text) || ' is what we agreed upon in the meeting, ', '')
  FROM generate_series(1, {message}) i, generate_series(1, 7) n GROUP BY i ORDER BY i;
"""


@contextmanager
def big_database(size: float) -> Iterator[Big]:
    """A server with `size` GB of rows, and a folder for what is made of them; both go away."""
    rows = {table: int(size * count) for table, count in ROWS_PER_GB.items()}
    print(f"PostgreSQL: filling a database with about {size:g} GB of rows …", flush=True)
    with _filled(_FILL.format(**rows)) as server, store(size) as folder:
        server.sql("VACUUM ANALYZE", NAME)
        yield Big(server, Path(folder), rows)


@contextmanager
def with_script(script: str) -> Iterator[Big]:
    """A server with the tables that a script creates."""
    with _filled(f"SET ROLE big; {script}") as server, store(1) as folder:
        yield Big(server, Path(folder), {})


@contextmanager
def _filled(script: str) -> Iterator[HostPostgres]:
    with host_postgres() as server:
        server.sql(f"CREATE ROLE big LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE big OWNER big")
        server.sql(script, NAME)
        yield server


class Big(Stages):
    """Backs that database up and restores it."""

    def __init__(self, server: HostPostgres, folder: Path, rows: Mapping[str, int]) -> None:
        database = jobs.Database("PostgreSQL", "127.0.0.1", server.port, NAME, tls_mode="Disable")
        super().__init__(database, folder, (NAME, PASSWORD), ("postgres", PASSWORD))
        self.server, self.rows = server, rows

    def shell(self, command: str) -> None:
        """Run a rival's command line; it finds the database in its environment."""
        shell(command, self.server.environment(NAME), self.folder)

    def change(self, share: float) -> None:
        """Change this share of the rows, side by side in the middle of each table."""
        for (table, count), column in zip(self.rows.items(), ("hash", "body"), strict=True):
            first, changed = count // 2, int(count * share)
            where = f"id BETWEEN {first} AND {first + changed - 1}"
            self.server.sql(f"UPDATE {table} SET {column} = md5({column}) || {column} WHERE {where}", NAME)

    def drop(self, database: str) -> None:
        """Drop what a restore made."""
        self.server.sql(f'DROP DATABASE "{database}"')

"""A large PostgreSQL database of this machine, our stages as processes on it, and what rivals need to reach it."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyrage

from hack.lab.chain import Chain, Ended
from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from tenant_backup.contract import job as jobs

NAME = "big"
# Half the bytes in narrow rows of many types, half in long texts; both compress about 3:1.
_ROWS_PER_GB = {"log": 2_200_000, "message": 900_000}
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
_TENANT = jobs.Tenant("bench", "default", NAME, NAME)


@contextmanager
def big_database(size: float) -> Iterator[Big]:
    """A server with `size` GB of rows, and a folder for what is made of them; both go away."""
    with host_postgres() as server, store(size) as folder:
        print(f"PostgreSQL: filling a database with about {size:g} GB of rows …", flush=True)
        server.sql(f"CREATE ROLE big LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE big OWNER big")
        rows = {table: int(size * count) for table, count in _ROWS_PER_GB.items()}
        server.sql(_FILL.format(**rows), NAME)
        server.sql("VACUUM ANALYZE", NAME)
        yield Big(server, Path(folder), rows)


def store(size: float) -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, where it is large enough: the pipes write nothing, so no disk is measured."""
    memory = Path("/dev/shm")
    room = memory.is_dir() and shutil.disk_usage(memory).free > 4 * size * 1e9
    return tempfile.TemporaryDirectory(prefix="tenant-backup-bench-", dir=memory if room else None)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Big:
    """Backs that database up and restores it."""

    def __init__(self, server: HostPostgres, folder: Path, rows: Mapping[str, int]) -> None:
        self.server, self.folder, self.rows = server, folder, rows
        self._chain = Chain(folder)
        self._identity = pyrage.x25519.Identity.generate()
        self._chain.write_keys()
        self._chain.write_secret("database", {"username": NAME, "password": PASSWORD})
        self._chain.write_secret("admin", {"username": "postgres", "password": PASSWORD})
        self._chain.write_secret("identity", {"identity": str(self._identity)})
        self.backup_id = ""  # of the last backup
        self.added = self.stored = self.logical = 0  # bytes, of the last backup

    def back_up(self, mode: Literal["Full", "Incremental"]) -> dict[str, Ended]:
        """One backup; return how each stage ended."""
        uid = uuid.uuid4().hex
        backup = jobs.Backup(
            uid=uid,
            backup_id=f"{NAME}_{time.time_ns()}",
            name="bench",
            tenant=_TENANT,
            database=self._database(),
            store=jobs.Store("volume"),
            recipients=[str(self._identity.to_public())],
            mode=mode,
            verify=False,  # the rivals read nothing back either
        )
        ended = self._run(backup)
        result = ended["upload"].result
        assert result is not None
        self.backup_id = result.facts["backupId"]
        sizes = result.facts["bytes"]
        self.added, self.stored, self.logical = sizes["added"], sizes["stored"], sizes["logical"]
        return ended

    def restore(self, database: str) -> None:
        """Restore the last backup into a new database."""
        self._run(
            jobs.Restore(
                uid=uuid.uuid4().hex,
                name="bench",
                strategy="NewDatabase",
                source=_TENANT,
                tenant=_TENANT,
                database=self._database(),
                target_database=database,
                store=jobs.Store("volume"),
                backup_id=self.backup_id,
                manifest_sha256="",
                signing_key=self._chain.signing_key,
                identity_secret="identity",
            )
        )

    def shell(self, command: str) -> None:
        """Run a rival's command line; it finds the database in its environment."""
        keys = {"KEY": secrets.token_hex(32), "IV": secrets.token_hex(16), "RESTIC_PASSWORD": PASSWORD}
        environment = self.server.environment(NAME) | keys
        words = ["bash", "-e", "-o", "pipefail", "-c", command]
        subprocess.run(words, env=environment, cwd=self.folder, check=True, capture_output=True)

    def change(self, share: float) -> None:
        """Change this share of the rows, side by side in the middle of each table."""
        for (table, count), column in zip(self.rows.items(), ("hash", "body"), strict=True):
            first, changed = count // 2, int(count * share)
            where = f"id BETWEEN {first} AND {first + changed - 1}"
            self.server.sql(f"UPDATE {table} SET {column} = md5({column}) || {column} WHERE {where}", NAME)

    def drop(self, database: str) -> None:
        """Drop what a restore made."""
        self.server.sql(f'DROP DATABASE "{database}"')

    def _database(self) -> jobs.Database:
        return jobs.Database("PostgreSQL", "127.0.0.1", self.server.port, NAME, tls_mode="Disable")

    def _run(self, job: jobs.Backup | jobs.Restore) -> dict[str, Ended]:
        ended = self._chain.run(job, seconds=1800)
        for item in ended.values():
            if item.code:
                raise RuntimeError(f"stage {item.stage} ended with {item.code}: {item.stderr[-2000:]}")
        return ended

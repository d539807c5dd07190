"""Our stages as processes on one database of this machine: what the bench measures of us."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pyrage

from hack.lab.chain import Chain, Ended
from tenant_backup.contract import job as jobs

NAME = "big"  # of the database and its tenant
TABLES = 5000  # of a database with many
_TENANT = jobs.Tenant("bench", "default", NAME, NAME)

Login = tuple[str, str]  # user, password


def in_memory(size: float) -> Path | None:
    """Where files are kept in memory, if there is room for so many GB."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > size * 1e9 else None


def store(size: float) -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, where it is large enough: the pipes write nothing, so no disk is measured."""
    return tempfile.TemporaryDirectory(prefix="tenant-backup-bench-", dir=in_memory(4 * size))


def many_tables(moment: str) -> str:
    """Return the script that creates TABLES small tables; `moment` is the server's type of a time."""
    columns = f"id int PRIMARY KEY, name varchar(100) NOT NULL, at {moment}, parent int, note text"
    rows = ", ".join(f"({n}, 'name {n}', '2024-01-0{n} 12:00:00', {n}, 'some words')" for n in range(1, 6))
    return "".join(
        f"CREATE TABLE t{number} ({columns}); CREATE INDEX i{number} ON t{number} (parent);"
        f" INSERT INTO t{number} VALUES {rows};\n"
        for number in range(TABLES)
    )


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def shell(command: str, environment: Mapping[str, str], folder: Path) -> None:
    """Run a rival's command line, with keys for what it encrypts. Raises CalledProcessError."""
    keys = {"KEY": secrets.token_hex(32), "IV": secrets.token_hex(16), "RESTIC_PASSWORD": "bench"}
    words = ["bash", "-e", "-o", "pipefail", "-c", command]
    subprocess.run(words, env={**environment, **keys}, cwd=folder, check=True, capture_output=True)


class Stages:
    """Backs one database up into a folder and restores it beside itself."""

    def __init__(self, database: jobs.Database, folder: Path, tenant: Login, admin: Login) -> None:
        self.folder = folder
        self._database = database
        self._chain = Chain(folder)
        self._identity = pyrage.x25519.Identity.generate()
        self._chain.write_keys()
        for name, (user, password) in {"database": tenant, "admin": admin}.items():
            self._chain.write_secret(name, {"username": user, "password": password})
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
            database=self._database,
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

    def restore(self, database: str) -> dict[str, Ended]:
        """Restore the last backup into a new database; return how each stage ended."""
        return self._run(
            jobs.Restore(
                uid=uuid.uuid4().hex,
                name="bench",
                strategy="NewDatabase",
                source=_TENANT,
                tenant=_TENANT,
                database=self._database,
                target_database=database,
                store=jobs.Store("volume"),
                backup_id=self.backup_id,
                manifest_sha256="",
                signing_key=self._chain.signing_key,
                identity_secret="identity",
            )
        )

    def _run(self, job: jobs.Backup | jobs.Restore) -> dict[str, Ended]:
        ended = self._chain.run(job, seconds=1800)
        for item in ended.values():
            if item.code:
                raise RuntimeError(f"stage {item.stage} ended with {item.code}: {item.stderr[-2000:]}")
        return ended

"""A tenant with two backups in a store on disk, and the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from hack.lab.chain import Chain
from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from hack.lab.servers import HR_SQL
from tenant_backup.contract import job as jobs

COMMAND = [sys.executable, "-m", "tenant_backup.cli"]


def run(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `tenant-backup` as a user would; nothing of AWS's is inherited."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PG"))}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=inherited | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="session")
def server() -> Iterator[HostPostgres]:
    """One PostgreSQL for all tests of this folder."""
    with host_postgres() as running:
        yield running


@dataclass
class Owner:
    """A tenant: its database, its keys as files, its store on disk."""

    server: HostPostgres
    folder: Path
    database: str
    identity: pyrage.x25519.Identity = field(default_factory=pyrage.x25519.Identity.generate)
    trusted: str = ""  # the key that signs; else the chain's own

    def __post_init__(self) -> None:
        self.chain = Chain(self.folder)
        self.chain.write_keys()
        self.chain.write_secret("database", {"username": self.database, "password": PASSWORD})
        self.key.write_text(f"# made by age-keygen\n{self.identity}\n")
        self.password.write_text(PASSWORD + "\n")

    @property
    def slug(self) -> str:
        """The tenant's name in the store."""
        return self.database.replace("_", "-")

    @property
    def key(self) -> Path:
        """The age key file."""
        return self.folder / "key.txt"

    @property
    def password(self) -> Path:
        """The file with the administrator's password."""
        return self.folder / "password"

    @property
    def trust(self) -> str:
        """The line on the recovery sheet."""
        return self.trusted or f"ed25519:{self.chain.signing_key}"

    @property
    def prefix(self) -> Path:
        """Where the tenant's objects are."""
        return self.folder / "store" / "lab" / self.slug

    @property
    def url(self) -> str:
        """STORE-URL."""
        return f"file://{self.prefix}"

    @property
    def reading(self) -> list[str]:
        """The options of whoever has the key and the sheet."""
        return ["--trust", self.trust, "--identity", str(self.key)]

    def job(self, second: int = 0, **changes: Any) -> jobs.Backup:
        """A backup of everything."""
        job = jobs.Backup(
            uid=str(uuid.uuid4()),
            backup_id=f"{self.slug}_2026-01-01_00-00-{second:02}",
            name="b1",
            tenant=jobs.Tenant("cluster", "lab", self.database, self.slug),
            database=jobs.Database(
                "PostgreSQL", "127.0.0.1", self.server.port, self.database, tls_mode="Disable"
            ),
            store=jobs.Store("volume", prefix="lab"),
            recipients=[str(self.identity.to_public())],
        )
        return replace(job, **changes)

    def back_up(self, second: int = 0, **changes: Any) -> dict[str, Any]:
        """Make a backup with the same stages as a Job; return its facts."""
        ended = self.chain.run(self.job(second, **changes))
        assert {item.code for item in ended.values()} == {0}, [item.stderr for item in ended.values()]
        result = ended["upload"].result
        assert result is not None
        return result.facts

    def dump_schema(self, database: str) -> list[str]:
        """The definitions only."""
        return self.dump(database, "--schema-only")

    def dump(self, database: str, *options: str) -> list[str]:
        """pg_dump's own text, without its random restrict key."""
        command = [self.server.bin / "pg_dump", *options]
        done = subprocess.run(
            command, env=self.server.environment(database), check=True, capture_output=True, text=True
        )
        lines = done.stdout.splitlines()
        return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


def make_owner(server: HostPostgres, folder: Path) -> Owner:
    """A tenant with an HR product's database."""
    name = f"hr_{uuid.uuid4().hex[:8]}"
    server.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    server.sql(f"CREATE DATABASE {name} OWNER {name}")
    server.sql(f"\\set tenant {name}\n\\set scale 1\nSET ROLE {name};\n{HR_SQL.read_text()}", name)
    return Owner(server, folder, name)


def into(owner: Owner, database: str) -> list[str]:
    """The arguments of a restore into a new database."""
    where = ["--host", "127.0.0.1", "--port", str(owner.server.port), "--user", "postgres"]
    login = [*where, "--password-file", str(owner.password)]
    return ["restore", owner.url, "latest", *owner.reading, *login, "--database", database]


@pytest.fixture(scope="module")
def owner(server: HostPostgres, tmp_path_factory: pytest.TempPathFactory) -> Owner:
    """A tenant with one backup, which nobody changes."""
    made = make_owner(server, tmp_path_factory.mktemp("owner"))
    made.back_up()
    return made


@pytest.fixture
def own_owner(server: HostPostgres, tmp_path: Path) -> Owner:
    """A tenant of this test's own, with one backup: to be damaged."""
    made = make_owner(server, tmp_path)
    made.back_up()
    return made

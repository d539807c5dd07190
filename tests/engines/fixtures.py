"""Fixtures for tests of the database parts: a PostgreSQL server of this machine and the folders of a pod."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenant_backup.contract import paths
from tests.engines.peer import write_secrets
from tests.engines.server import INSTALLED, PASSWORDS, Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests that do not kill it."""
    if not (INSTALLED / "15" / "bin" / "postgres").exists():
        pytest.skip("needs the Debian package postgresql-15")
    server = Server()
    server.create()
    yield server
    server.remove()


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folders of a pod, with the Secrets of tenant and administrator."""
    logins = {"database": ("tenant", PASSWORDS["tenant"]), "admin": ("postgres", PASSWORDS["postgres"])}
    root = pod_folders(monkeypatch, **logins)
    yield root
    shutil.rmtree(root)


def pod_folders(monkeypatch: pytest.MonkeyPatch, **logins: tuple[str, str]) -> Path:
    """Make the folders of a pod below one short path (sockets), with Secrets: folder=(username, password)."""
    root = Path(tempfile.mkdtemp(prefix="tb-"))
    folders = {"RUN": "run/tenant-backup", "SPOOL": "spool", "SCRATCH": "scratch", "SECRETS": "secrets"}
    for name, folder in folders.items():
        (root / folder).mkdir(parents=True)
        monkeypatch.setattr(paths, name, root / folder)
    write_secrets(root / "secrets", **logins)
    return root


@pytest.fixture
def new_database(server: Server) -> Iterator[Callable[..., str]]:
    """A factory of empty databases owned by the tenant; they are dropped afterwards, with what grew from them."""
    made: list[str] = []

    def make(script: str = "", owner: str = "tenant", options: str = "") -> str:
        name = f"acme{next(_numbers)}"
        made.append(name)
        server.sql(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 {options}")
        if script:
            server.sql(f"SET ROLE {owner}; {script}", name)
        return name

    yield make
    for name in made:
        grown = server.sql(f"SELECT datname FROM pg_database WHERE datname ~ '^{name}($|_)'")
        server.drop(*(str(row[0]) for row in grown))

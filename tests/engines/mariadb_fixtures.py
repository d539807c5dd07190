"""Fixtures for tests of MariaDB: a server of this machine and the folders of a pod."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.fixtures import pod_folders
from tests.engines.mariadb import INSTALLED, PASSWORDS, MariaDB

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def maria() -> Iterator[MariaDB]:
    """One server for all tests that do not kill it."""
    if not INSTALLED.exists():
        pytest.skip("needs the Debian package mariadb-server")
    server = MariaDB()
    server.create()
    yield server
    server.remove()


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folders of a pod, with the Secrets of tenant and administrator."""
    logins = {"database": ("tenant", PASSWORDS["tenant"]), "admin": ("boss", PASSWORDS["boss"])}
    root = pod_folders(monkeypatch, **logins)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def new_database(maria: MariaDB) -> Iterator[Callable[..., str]]:
    """A factory of databases that belong to the tenant; they are dropped afterwards, with what grew from them."""
    made: list[str] = []

    def make(script: str = "", rights: str = "ALL PRIVILEGES") -> str:
        name = f"acme{next(_numbers)}"
        made.append(name)
        maria.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        maria.sql(f"GRANT {rights} ON {name}.* TO tenant@'%'")
        if script:
            maria.script(name, script, "tenant" if rights == "ALL PRIVILEGES" else "root")
        return name

    yield make
    for name in made:
        for grown in maria.databases(name):
            maria.sql(f"DROP DATABASE `{grown}`")
        maria.sql(f"REVOKE ALL PRIVILEGES ON {name}.* FROM tenant@'%'")

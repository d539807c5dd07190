"""Real parts: a MariaDB 11.8 of this machine, its databases, and the folders of a pod.

Tests that are written for MariaDB and say something of this version too are imported by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engines.mariadb_11_8 import MariaDB118
from tests.engines.mariadb_fixtures import maria as older
from tests.engines.mariadb_fixtures import new_database, pod

__all__ = ["maria", "new_database", "older", "pod"]


@pytest.fixture(scope="session")
def maria() -> Iterator[MariaDB118]:
    """One server for all tests that do not kill it."""
    if os.getuid() != 0:
        pytest.skip("needs root, to start programs in the file system of an image")
    server = MariaDB118()
    server.create()
    yield server
    server.remove()

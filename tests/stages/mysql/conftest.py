"""Real parts: a MySQL server of this machine, its databases, and the folders of a pod.

Tests that are written for MariaDB and say something of MySQL too are imported by name; they find it as `maria`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engines.mariadb_fixtures import new_database, pod
from tests.engines.mysql import MySQL

__all__ = ["maria", "new_database", "pod"]


@pytest.fixture(scope="session")
def maria() -> Iterator[MySQL]:
    """One server for all tests that do not kill it."""
    if os.getuid() != 0:
        pytest.skip("needs root, to start programs in the file system of an image")
    server = MySQL()
    server.create()
    yield server
    server.remove()

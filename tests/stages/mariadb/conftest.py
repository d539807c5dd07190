"""Real parts: a MariaDB server of this machine, its databases, and the folders of a pod."""

from __future__ import annotations

from tests.engines.mariadb_fixtures import maria, new_database, pod

__all__ = ["maria", "new_database", "pod"]

"""Real parts: a PostgreSQL server of this machine, its databases, and the folders of a pod."""

from __future__ import annotations

from tests.engines.fixtures import new_database, pod, server

__all__ = ["new_database", "pod", "server"]

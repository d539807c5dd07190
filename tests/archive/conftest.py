"""Fixtures of the archive tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tenant_backup.archive.keys import IndexKey
from tests.archive.sample import Folder, Keyring


@pytest.fixture(scope="session")
def keys() -> Keyring:
    """The keys of tenant acme. Where chunks are cut depends on the index key: the same in every run."""
    return replace(Keyring.fresh(), index=IndexKey(bytes([1]) * 32))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty store."""
    return Folder(tmp_path)

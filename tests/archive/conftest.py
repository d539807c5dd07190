"""Fixtures of the archive tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.sample import Folder, Keyring


@pytest.fixture(scope="session")
def keys() -> Keyring:
    """The keys of tenant acme."""
    return Keyring.fresh()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty store."""
    return Folder(tmp_path)

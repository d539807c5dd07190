"""The main thread of a stage: it waits for its threads and for connections."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenant_backup.stages import wire
from tenant_backup.stages.crew import Crew

MANY = 1100  # more than select() can watch


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """A process with more than a thousand descriptors open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MANY), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(MANY)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_open_files")
def test_connections_are_served_with_a_thousand_files_open(tmp_path: Path) -> None:
    """A restore of a thousand segments keeps many files open."""
    crew = Crew()
    served: list[socket.socket] = []
    with wire.listen(tmp_path / "stage.sock") as server, wire.connect(tmp_path / "stage.sock", "stage"):
        crew.wait(lambda: bool(served), lambda: None, server, served.append)
    crew.close()
    served[0].close()

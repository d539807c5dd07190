"""The main thread of a stage: it waits for its threads and for connections."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenant_backup.contract.reasons import Failure
from tenant_backup.stages import crew as crews
from tenant_backup.stages import wire
from tenant_backup.stages.crew import Crew, Patience

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


def test_a_peer_that_came_and_ended_well_while_it_was_looked_for_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore with little to do is over before a busy machine has asked whether it began."""
    patience = Patience(tmp_path, "place-uploads")
    patience.check()

    def has_ended(_run: Path, _peer: str) -> bool:
        patience.came = True
        return True

    monkeypatch.setattr(crews, "has_ended", has_ended)
    patience.check()
    patience.came = False
    monkeypatch.setattr(crews, "has_ended", lambda _run, _peer: True)
    with pytest.raises(Failure, match=r"place-uploads"):
        patience.check()

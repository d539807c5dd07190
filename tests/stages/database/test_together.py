"""Database and files are one recovery point: whoever is killed, both are new in the end, or both are old."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenant_backup.stages import swap, switch
from tests.engines.server import Server
from tests.engines.trees import mounted
from tests.stages.database import jobs
from tests.stages.together import DEATHS, KILLED, VOLUME, Both, both


@pytest.fixture
def live(pod: Path, server: Server, new_database: Callable[..., str]) -> Iterator[tuple[str, Both]]:
    """A database and a volume, both of which have changed since they were backed up."""
    name = new_database("CREATE TABLE t AS SELECT 'new' AS version")
    with mounted(pod / "files"):
        found = both(jobs.dumped(server, name), pod / "files")
        server.sql("UPDATE t SET version = 'old'", name)
        yield name, found


def database_is_new(server: Server, name: str) -> bool:
    """Whether the live database is the backup's."""
    return bool(server.scalar("SELECT version = 'new' FROM t", name))


@pytest.mark.parametrize("death", DEATHS, ids=" ".join)
def test_a_kill_leaves_all_new_or_all_old_once_the_restore_runs_again(
    server: Server, live: tuple[str, Both], death: tuple[str, str, str]
) -> None:
    """SIGKILL of a stage, an attempt that gets no further than to look, and one that ends it."""
    name, found = live
    job = jobs.restore(server, name, name, files=[VOLUME])
    assert found.restore(job, *death)[death[0]] == KILLED
    committed = database_is_new(server, name)
    found.restore(job, "load", "before", "ready")
    assert (database_is_new(server, name), found.files_are_new()) == (committed, committed)
    assert set(found.restore(job).values()) == {0}
    assert (database_is_new(server, name), found.files_are_new()) == (True, True)


def test_a_database_that_cannot_be_replaced_takes_the_files_back(
    server: Server, live: tuple[str, Both], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same attempt; an undo brings both back, and what is dropped is gone in both places."""
    from tenant_backup.engines.postgresql import exchange

    name, found = live
    job = jobs.restore(server, name, name, files=[VOLUME])
    with monkeypatch.context() as patched:
        patched.setattr(exchange, "carry_over", lambda *_: ["ALTER DATABASE nowhere OWNER TO nobody"])
        codes = found.restore(job)
    assert 0 not in codes.values()
    assert (database_is_new(server, name), found.files_are_new()) == (False, False)
    assert set(found.restore(job).values()) == {0}
    for action in ("Undo", "DropPrevious"):
        after = jobs.swap(server, name, action, files=[VOLUME])
        swap.run(after)
        switch.run(after, VOLUME.name)
        assert (database_is_new(server, name), found.files_are_new()) == (False, False)

"""Files beside a MariaDB database: all new or all old, though its tables and code move in several steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.mariadb import MariaDB
from tests.engines.trees import mounted
from tests.stages.database.jobs import dumped, restore
from tests.stages.together import KILLED, VOLUME, both


@pytest.mark.parametrize(
    "death",
    [("load", "after", "placed"), ("load", "before", "ended"), ("place", "after", "placed")],
    ids=" ".join,
)
def test_a_kill_leaves_all_new_or_all_old_once_the_restore_runs_again(
    pod: Path, maria: MariaDB, new_database: Callable[..., str], death: tuple[str, str, str]
) -> None:
    """SIGKILL of a stage, an attempt that gets no further than to look, and one that ends it."""
    name = new_database("CREATE TABLE t (version varchar(9)); INSERT INTO t VALUES ('new')")

    def database_is_new() -> bool:
        return maria.sql(f"SELECT version FROM {name}.t") == [("new",)]

    with mounted(pod / "files"):
        found = both(dumped(maria, name), pod / "files")
        maria.script(name, "UPDATE t SET version = 'old'")
        job = restore(maria, name, name, files=[VOLUME])
        assert found.restore(job, *death)[death[0]] == KILLED
        committed = database_is_new()
        found.restore(job, "load", "before", "ready")
        assert (database_is_new(), found.files_are_new()) == (committed, committed)
        assert set(found.restore(job).values()) == {0}
        assert (database_is_new(), found.files_are_new()) == (True, True)

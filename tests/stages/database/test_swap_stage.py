"""The stage swap after a real Replace: there and back, dropped, and every action twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.postgresql import names
from tenant_backup.stages import swap as stage
from tests.engines.server import Server
from tests.stages.database.jobs import dumped, loaded, restore, swap

pytestmark = pytest.mark.usefixtures("pod")


@pytest.fixture
def replaced(server: Server, new_database: Callable[..., str]) -> str:
    """A database of which the live one has three rows, and the previous one none."""
    name = new_database("CREATE TABLE t AS SELECT generate_series(1, 3) AS a")
    server.sql(f"COMMENT ON DATABASE {name} IS 'live'")
    kept = dumped(server, name)
    server.sql("DELETE FROM t", name)
    loaded(kept, restore(server, name, name))
    return name


def rows(server: Server, database: str) -> object:
    """How many rows the one table has."""
    return server.scalar("SELECT count(*) FROM t", database)


def comment(server: Server, database: str) -> object:
    """A database's comment."""
    return server.scalar(
        f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'"
    )


def test_undo_switches_back_once_however_often_it_runs(server: Server, replaced: str) -> None:
    """A second run after a lost pod must not switch forth again; both databases live."""
    previous = names.previous_database(replaced, "uid-r")
    for _ in range(2):
        assert stage.run(swap(server, replaced, "Undo"))["previousDatabase"] == previous
        assert (rows(server, replaced), rows(server, previous)) == (0, 3)
        assert comment(server, replaced) == "live"


def test_the_previous_database_is_dropped_once(server: Server, replaced: str) -> None:
    """Dropping what is gone is success; undoing then is not."""
    for _ in range(2):
        assert stage.run(swap(server, replaced, "DropPrevious"))["previousDatabase"] is None
    assert rows(server, replaced) == 3
    with pytest.raises(Failure) as caught:
        stage.run(swap(server, replaced, "Undo"))
    assert caught.value.reason is Reason.DATABASE_NOT_FOUND


def test_after_an_undo_it_is_the_restored_one_that_goes(server: Server, replaced: str) -> None:
    """The live database is never the one that is dropped."""
    stage.run(swap(server, replaced, "Undo"))
    stage.run(swap(server, replaced, "DropPrevious"))
    assert rows(server, replaced) == 0


def test_undo_of_a_live_database_that_was_lost_brings_the_previous_back(
    server: Server, replaced: str
) -> None:
    """Half of the pair is enough."""
    server.drop(replaced)
    stage.run(swap(server, replaced, "Undo"))
    assert rows(server, replaced) == 0


def test_another_restores_previous_database_is_not_touched(server: Server, replaced: str) -> None:
    """Names carry the restore they belong to."""
    stage.run(swap(server, replaced, "DropPrevious", uid="another"))
    assert rows(server, names.previous_database(replaced, "uid-r")) == 0

"""The stage preflight: what a backup would say, without a backup."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stages import preflight
from tests.engines.server import Server
from tests.stages.database.jobs import TENANT

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")


def test_a_healthy_database_is_described(server: Server, new_database: Make) -> None:
    """Version, size in bytes, tables that hold rows."""
    name = new_database("CREATE TABLE a (x int); CREATE TABLE b (x int) PARTITION BY LIST (x)")
    found = preflight.run(jobs.Preflight(TENANT, server.database(name)))["database"]
    assert (found["tables"], found["version"].split(".")[0]) == (1, "15")
    assert found["sizeBytes"] > 1 << 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modules": [jobs.Module("m", ["public.nobody"])]}, Reason.TABLE_NOT_FOUND),
        ({"exclude_columns": [jobs.Column("public.a", "nobody")]}, Reason.COLUMN_NOT_FOUND),
        ({}, Reason.PERMISSION_DENIED),
    ],
)
def test_what_a_backup_would_refuse_is_refused(
    server: Server, new_database: Make, changes: dict[str, list[object]], reason: Reason
) -> None:
    """The same reasons, before anybody waits for a backup."""
    name = new_database("CREATE TABLE a (x int)")
    if not changes:
        server.sql("CREATE TABLE closed (x int)", name)
    with pytest.raises(Failure) as caught:
        preflight.run(jobs.Preflight(TENANT, server.database(name), **changes))  # type: ignore[arg-type]
    assert caught.value.reason is reason


def test_a_database_that_is_not_there_is_said_so(server: Server) -> None:
    """With the server's own words."""
    with pytest.raises(Failure) as caught:
        preflight.run(jobs.Preflight(TENANT, server.database("nobody")))
    assert (caught.value.reason, '"nobody" does not exist' in caught.value.message) == (
        Reason.DATABASE_NOT_FOUND,
        True,
    )

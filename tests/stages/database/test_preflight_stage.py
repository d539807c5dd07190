"""The stage preflight: what a backup would say, without a backup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def test_a_look_tells_what_modules_leave_out(server: Server, new_database: Make) -> None:
    """Tables that nobody claims, and foreign keys that leave a module or the backup."""
    name = new_database(
        """CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE left_out (id int PRIMARY KEY);
        CREATE TABLE b (id int CONSTRAINT b_a REFERENCES a); CREATE TABLE c (id int CONSTRAINT c_l REFERENCES left_out);
        CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT"""
    )
    modules = [jobs.Module("x", ["public.b"])]
    job = jobs.Preflight(TENANT, server.database(name), [], ["public.left_out"], modules)
    found = preflight.run(job)["database"]
    assert found["unclaimedTables"] == {"count": 3, "names": ["public.a", "public.c", "public.p"]}
    assert found["leavingForeignKeys"]["names"] == ["public.c.c_l", "public.b.b_a (module x)"]


@pytest.mark.parametrize(
    ("column", "rule", "advice"),
    [
        ("s", "Null", "use onRestore: Value"),
        ("s", "Default", "use onRestore: Value"),
        ("s", "KeepLive", "as else"),
        ("d", "Null", "use onRestore: Default or Value"),
        ("o", "Null", "use onRestore: Value"),
    ],
)
def test_a_required_column_that_could_not_come_back_is_refused(
    server: Server, new_database: Make, column: str, rule: Any, advice: str
) -> None:
    """With the way out in the message; what the server fills may come back so."""
    name = new_database(
        """CREATE DOMAIN needed AS int NOT NULL; CREATE TABLE t (id int PRIMARY KEY, s text NOT NULL,
        d int NOT NULL DEFAULT 7, n text, o needed, i int GENERATED ALWAYS AS IDENTITY)"""
    )

    def look(*columns: jobs.Column) -> None:
        preflight.run(jobs.Preflight(TENANT, server.database(name), list(columns)))

    with pytest.raises(Failure) as caught:
        look(jobs.Column("public.t", column, rule))
    assert (caught.value.reason, advice in caught.value.message) == (Reason.INVALID_SPEC, True), caught.value
    look(*(jobs.Column("public.t", name, "Default") for name in "di"), jobs.Column("public.t", "n", "Null"))


def test_many_tables_that_may_not_be_read_need_one_grant(server: Server, new_database: Make) -> None:
    """Running the printed statements is all it takes, however many there are."""
    name = new_database("")
    server.sql("".join(f"CREATE TABLE t{number} (id serial);" for number in range(9)), name)
    job = jobs.Preflight(TENANT, server.database(name))
    with pytest.raises(Failure) as caught:
        preflight.run(job)
    server.sql(caught.value.message.partition("run: ")[2], name)
    assert preflight.run(job)["database"]["tables"] == 9


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

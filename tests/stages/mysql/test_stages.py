"""The stages dump and load against a real MySQL: what differs from MariaDB, and promises that stand on the server."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from MySQLdb import Error

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.mysql import names, snapshot
from tenant_backup.stages import preflight
from tests.engines.mysql import MySQL
from tests.engines.peer import OpenPeer
from tests.stages.database.jobs import TENANT, dumped, loaded, restore, start
from tests.stages.mariadb import test_dump_stage
from tests.stages.mariadb.test_dump_stage import (
    refused,
    test_a_look_tells_what_modules_leave_out,
    test_a_required_column_that_could_not_come_back_is_refused,
)
from tests.stages.mariadb.test_load_stage import (
    FOREIGN_CODE,
    USERS,
    finished,
    test_a_name_with_an_underscore_gives_rights_on_no_other_database,
    test_a_stop_order_leaves_nothing_behind,
    test_a_trigger_that_was_typed_with_its_database_is_made_in_the_new_one,
    test_a_view_that_reads_from_elsewhere_too_reads_its_own_tables_in_the_new_database,
    test_a_view_whose_tables_are_gone_is_told,
    test_a_zombie_of_an_earlier_attempt_can_do_nothing_any_more,
    test_excluded_columns_follow_their_rules,
    test_the_temporary_login_sees_one_database_only,
)

__all__ = [
    "test_a_look_tells_what_modules_leave_out",
    "test_a_name_with_an_underscore_gives_rights_on_no_other_database",
    "test_a_required_column_that_could_not_come_back_is_refused",
    "test_a_stop_order_leaves_nothing_behind",
    "test_a_trigger_that_was_typed_with_its_database_is_made_in_the_new_one",
    "test_a_view_that_reads_from_elsewhere_too_reads_its_own_tables_in_the_new_database",
    "test_a_view_whose_tables_are_gone_is_told",
    "test_a_zombie_of_an_earlier_attempt_can_do_nothing_any_more",
    "test_excluded_columns_follow_their_rules",
    "test_the_temporary_login_sees_one_database_only",
]

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")


def test_missing_rights_are_named_with_their_grants(maria: MySQL, new_database: Make) -> None:
    """Without them things would be missing in silence: the text of a routine is shown to few."""
    name = new_database("CREATE TABLE t (a int); CREATE PROCEDURE p() SELECT 1;", rights="SELECT")
    for words in ("SHOW VIEW, TRIGGER, EVENT, EXECUTE", "SHOW_ROUTINE ON *.*"):
        failure = refused(maria, name)
        assert (failure.reason, words in failure.message) == (Reason.PERMISSION_DENIED, True)
        maria.sql(failure.message.partition("run: ")[2])
    try:
        assert dumped(maria, name).catalogue["tables"][0]["name"] == f"{name}.t"
    finally:
        maria.sql("REVOKE SHOW_ROUTINE ON *.* FROM tenant@'%'")


def test_everything_in_a_backup_is_of_one_moment(
    maria: MySQL, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed once the snapshot is taken is not in it, and no table goes away under it."""
    name = new_database(
        "CREATE TABLE a (n int); CREATE TABLE b (n int); INSERT INTO a VALUES (0); INSERT INTO b VALUES (0)"
    )
    lock, refused_with = snapshot.lock, []

    def change_first(*arguments: Any) -> None:
        maria.sql("UPDATE a, b SET a.n = 1, b.n = 1", name)
        lock(*arguments)
        connection = maria._connect(name)
        connection.query(b"SET lock_wait_timeout = 1")
        with pytest.raises(Error) as caught:
            connection.query(b"DROP TABLE a")
        refused_with.append(caught.value.args[0])
        connection.close()

    monkeypatch.setattr(snapshot, "lock", change_first)
    kept = dumped(maria, name)
    rows = {kept.tables[key]: b"".join(blocks) for key, blocks in kept.segments.items() if key != "schema"}
    assert (rows, refused_with) == ({f"{name}.a": b"0\n", f"{name}.b": b"0\n"}, [1205])
    assert kept.catalogue["consistency"] == "Snapshot"


@pytest.mark.parametrize(
    ("change", "tables"),
    [
        ("TRUNCATE users", [(0, "password")]),
        ("ALTER TABLE users ADD COLUMN late int", [(1000, "late")]),
        ("DROP TABLE users", []),
    ],
)
def test_a_table_that_changes_before_it_is_locked_is_read_as_it_now_is(
    maria: MySQL, new_database: Make, monkeypatch: pytest.MonkeyPatch, change: str, tables: list[object]
) -> None:
    """The snapshot is taken again; what was created since it was taken is not in it, and needs no other."""
    test_dump_stage.test_a_table_that_changes_before_it_is_locked_is_read_as_it_now_is(
        maria, new_database, monkeypatch, change, tables
    )


def test_a_role_may_hold_the_rights(maria: MySQL, new_database: Make) -> None:
    """A default role counts as its members' own rights."""
    name = new_database(USERS, rights="SHOW VIEW")
    maria.sql("CREATE ROLE reader")
    try:
        maria.sql(f"GRANT SELECT, TRIGGER, EVENT, EXECUTE ON {name}.* TO reader")
        maria.sql("GRANT reader TO tenant@'%'")
        maria.sql("SET DEFAULT ROLE reader TO tenant@'%'")
        assert dumped(maria, name).catalogue["tables"][0]["rows"] == 100
    finally:
        maria.sql("DROP ROLE reader")


def test_what_could_not_come_back_is_refused(maria: MySQL, new_database: Make) -> None:
    """Libraries are not in a backup; tables without a key would get one where the server wants it so."""
    name = new_database("CREATE TABLE t (a int); CREATE LIBRARY l LANGUAGE JAVASCRIPT AS 'x'")
    failures = [refused(maria, name)]
    with pytest.raises(Failure) as caught:
        preflight.run(jobs.Preflight(TENANT, maria.database(name)))
    failures.append(caught.value)
    maria.sql("DROP LIBRARY l", name)
    kept = dumped(maria, name)
    maria.sql("SET GLOBAL sql_generate_invisible_primary_key = ON")
    try:
        with pytest.raises(Failure) as caught:
            loaded(kept, restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql("SET GLOBAL sql_generate_invisible_primary_key = OFF")
    failures.append(caught.value)
    assert [failure.reason for failure in failures] == [Reason.UNSUPPORTED_CONTENT] * 3
    words = ("(l)", "(l)", f"{name}.t")
    assert [word in failure.message for word, failure in zip(words, failures, strict=True)] == [True] * 3


def test_a_generated_key_is_a_column_like_others(maria: MySQL, new_database: Make) -> None:
    """Its values come back, whether or not the server shows it to others."""
    maria.sql("SET GLOBAL sql_generate_invisible_primary_key = ON")
    maria.sql("SET GLOBAL show_gipk_in_create_table_and_information_schema = OFF")
    try:
        name = new_database(
            "CREATE TABLE t (a int); INSERT INTO t VALUES (3), (1); DELETE FROM t WHERE a = 3"
        )
        loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql("SET GLOBAL sql_generate_invisible_primary_key = OFF")
        maria.sql("SET GLOBAL show_gipk_in_create_table_and_information_schema = ON")
    assert maria.sql("SELECT my_row_id, a FROM t", f"{name}_copy") == [("2", "1")]
    assert maria.dump(name) == maria.dump(f"{name}_copy")


SETTINGS = {
    "sql_mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ZERO_DATE",
    "time_zone": "+05:45",
    "sql_select_limit": "3",
    "max_execution_time": "1",
    "autocommit": "OFF",
    "sql_quote_show_create": "OFF",
    "character_set_client": "latin1",
    "character_set_results": "latin1",
    "transaction_isolation": "READ-COMMITTED",
    "completion_type": "CHAIN",
    "explicit_defaults_for_timestamp": "OFF",
    "information_schema_stats_expiry": "86400",
}


def test_settings_somebody_made_for_the_server_change_nothing(maria: MySQL, new_database: Make) -> None:
    """They are for people at a keyboard."""
    name = new_database(
        """CREATE TABLE t (id int PRIMARY KEY, z timestamp NULL, c char(5), d date, w varchar(9), bare timestamp NOT NULL);
        SET time_zone = '+00:00', sql_mode = '';
        INSERT INTO t SELECT seq, '2024-03-31 01:30:00' + INTERVAL seq HOUR, 'a', '0000-00-00', 'ü\\\\', 0 FROM seq_1_to_50"""
    )
    before = {variable: maria.scalar(f"SELECT @@GLOBAL.{variable}") for variable in SETTINGS}
    _set(maria, SETTINGS)
    try:
        loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    finally:
        _set(maria, before)
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")
    assert maria.dump(name) == maria.dump(f"{name}_copy")


def _set(maria: MySQL, values: dict[str, str]) -> None:
    for variable, value in values.items():
        shown = value if value.isdigit() else f"'{value}'"
        maria.sql(f"SET GLOBAL {variable} = {shown}")


def test_code_of_others_becomes_the_tenants_and_is_told(maria: MySQL, new_database: Make) -> None:
    """Nothing is created that runs as an administrator, or as an account that is not there."""
    name = new_database()
    maria.script(name, FOREIGN_CODE, "root")
    maria.sql("GRANT SHOW_ROUTINE ON *.* TO tenant@'%'")
    try:
        facts = loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql("REVOKE SHOW_ROUTINE ON *.* FROM tenant@'%'")
    assert sorted(facts["skipped"]) == [
        "1 objects of nobody@nowhere now belong to tenant@%",
        "3 objects of root@localhost now belong to tenant@%",
    ]


@pytest.mark.parametrize("right", ["SUPER", "SET_ANY_DEFINER", "SELECT"])
def test_code_never_becomes_that_of_an_account_with_rights_on_the_server(
    maria: MySQL, new_database: Make, right: str
) -> None:
    """A trigger would run with them."""
    name = new_database(f"{USERS} CREATE VIEW v AS SELECT id FROM users")
    kept = dumped(maria, name)
    maria.sql(f"GRANT {right} ON *.* TO tenant@'%'")
    try:
        with pytest.raises(Failure, match=right) as caught:
            loaded(kept, restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql(f"REVOKE {right} ON *.* FROM tenant@'%'")
    assert (caught.value.reason, maria.databases(name)) == (Reason.PERMISSION_DENIED, [name])


# Words of a statement that stands for a step: before and after the database is created, and its mark confirmed.
@pytest.mark.parametrize(
    "step", ["REPLACE INTO", "CREATE DATABASE `acme", "CREATE USER", "INSERT INTO `acme", "GRANT ALL"]
)
def test_a_load_killed_at_any_point_converges_when_it_runs_again(
    maria: MySQL, new_database: Make, pod: Path, step: str
) -> None:
    """SIGKILL when the server has begun a certain statement: the next run finishes, and leaves nothing else."""
    name = new_database(f"{USERS} CREATE VIEW v AS SELECT id FROM users")
    copy = f"{name}_copy"
    job, peer = restore(maria, name, copy), OpenPeer(dumped(maria, name))
    with maria.watched(step) as reached:
        stage = start("load", job, pod)
        assert reached.wait(60)
        stage.send_signal(signal.SIGKILL)
        stage.wait()
    finished(start("load", job, pod))
    peer.close()
    assert maria.scalar("SELECT count(*) FROM v", copy) == "100"
    assert (maria.logins(), maria.databases(name)) == ([], [name, copy])
    assert maria.dump(name) == maria.dump(copy)


def test_a_database_that_somebody_created_meanwhile_is_not_ours(maria: MySQL, new_database: Make) -> None:
    """A restore noted that it was about to create one, and died; in what has that name now there is something."""
    name = new_database(USERS)
    kept, marks = dumped(maria, name), names.quoted(names.REGISTRY, "marks")
    loaded(kept, restore(maria, name, f"{name}_copy"))  # so there is a registry
    other = f"{name}_else"
    maria.sql(f"CREATE DATABASE {other}")
    maria.sql(
        f"INSERT INTO {marks} SELECT '{other}', replace(mark, 'restored', 'restoring'), 0 FROM {marks} WHERE name = '{name}_copy'"
    )
    maria.sql("CREATE TABLE mine (a int)", other)
    with pytest.raises(Failure) as caught:
        loaded(kept, restore(maria, name, other))
    assert (caught.value.reason, maria.sql("SHOW TABLES", other)) == (Reason.NAME_TAKEN, [("mine",)])
    maria.sql("DROP TABLE mine", other)
    assert loaded(kept, restore(maria, name, other))["restored"]["rows"] == 100

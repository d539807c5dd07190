"""Strategy Replace on a real MariaDB, there and back: all new or all old, complete, and nobody stays locked out."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from MySQLdb import Error

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.engines.marks import noted
from tenant_backup.engines.mysql import endpoint, exchange, names, session
from tenant_backup.engines.mysql.administrator import administer
from tenant_backup.engines.mysql.endpoint import Connection, Login
from tenant_backup.stages import load
from tenant_backup.stages import swap as swap_stage
from tests.dying import is_killed
from tests.engines.mariadb import PASSWORDS, MariaDB
from tests.engines.peer import OpenPeer, write_secrets
from tests.stages.database.jobs import dumped, loaded, restore, start, swap

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
TORTURE = (Path(__file__).parents[2] / "engines" / "torture_mariadb.sql").read_text()

# Two versions of one database, with everything that a RENAME does not take along or stumbles over: the same names
# for other things, too.
COMMON = """CREATE SEQUENCE numbers START WITH {start} NOCACHE;
CREATE TABLE parent (id bigint DEFAULT (NEXT VALUE FOR numbers) PRIMARY KEY, version varchar(9), note varchar(99), twice int AS (id * 2) STORED);
CREATE TABLE child (id int PRIMARY KEY, parent bigint, CONSTRAINT belongs FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent (version) VALUES ('{version}'), ('{version}');
INSERT INTO child VALUES (1, {start});
CREATE TABLE kept_out (id int PRIMARY KEY, version varchar(9) DEFAULT 'val(`x');
CREATE TRIGGER `stamp` BEFORE INSERT ON `parent` FOR EACH ROW SET NEW.note = '{version}';
CREATE TRIGGER `again` BEFORE INSERT ON `parent` FOR EACH ROW SET NEW.note = concat(NEW.note, '!');
CREATE FUNCTION which() RETURNS varchar(9) DETERMINISTIC RETURN '{version}';
CREATE PROCEDURE same() SELECT 1;
CREATE VIEW b_view AS SELECT version FROM parent;
CREATE VIEW a_view AS SELECT version, which() AS f FROM b_view;
CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO INSERT INTO child VALUES (99, NULL);
CREATE EVENT never ON SCHEDULE EVERY '1:30' HOUR_MINUTE STARTS '2024-01-01 00:00:00' DISABLE COMMENT 'ENABLE' DO SELECT 'ON COMPLETION PRESERVE ENABLE';
"""
OLD = COMMON.format(version="old", start=10) + "CREATE TABLE x (a int); CREATE VIEW y AS SELECT 1 AS a;"
NEW = COMMON.format(version="new", start=500) + "CREATE VIEW x AS SELECT 1 AS a; CREATE TABLE y (a int);"


def content(maria: MariaDB, database: str) -> list[str]:
    """Everything in a database, as mariadb-dump writes it; its name and whether its events run are left out."""
    kept = (
        "_old_" in database
    )  # no account has rights on it, and mariadb-dump reads no view whose definer may not
    if kept:
        maria.sql(f"GRANT SELECT, EXECUTE ON {database}.* TO tenant@'%'")
    lines = maria.dump(database)
    if kept:
        maria.sql(f"REVOKE ALL PRIVILEGES ON {database}.* FROM tenant@'%'")
    parked = maria.dialect.parked
    return [line.replace(f"`{database}`.", "").replace(parked, "ENABLE") for line in lines]


def statuses(maria: MariaDB, database: str) -> list[tuple[Any, ...]]:
    """The events of a database and whether they run."""
    query = "SELECT event_name, status FROM information_schema.EVENTS WHERE event_schema = '{}' ORDER BY 1"
    return maria.sql(query.format(database))


def grants(maria: MariaDB) -> list[tuple[Any, ...]]:
    """What the tenant's account may do."""
    return sorted(maria.sql("SHOW GRANTS FOR tenant@'%'"))  # in no order


def nobody_is_locked_out(maria: MariaDB, *users: str) -> None:
    """Each can log in, and nothing is left of a journal, a side database or a login."""
    for user in users or ("tenant",):
        maria.sql("SELECT 1", user=user)
    assert ({*maria.databases("~tenantbackup")} - {names.REGISTRY}, maria.logins()) == (set(), [])


@pytest.fixture
def expected(maria: MariaDB, new_database: Make) -> dict[str, list[str]]:
    """Both versions as they have to look, wherever they are."""
    return {word: content(maria, new_database(script)) for word, script in (("old", OLD), ("new", NEW))}


def test_the_replaced_database_is_the_backup_and_undo_brings_everything_back(
    maria: MariaDB, new_database: Make
) -> None:
    """One of everything: dumps and checksums of both databases, before, after and after the undo."""
    name = new_database(TORTURE)
    backed_up, kept = (content(maria, name), maria.checksums(name)), dumped(maria, name)
    maria.script(
        name,
        """DROP VIEW calls; DROP TRIGGER `after`; DELETE FROM pairs; DROP TABLE old, squeezed; INSERT INTO pairs VALUES (1, 'k', 1);
        CREATE VIEW old AS SELECT 1 AS a; CREATE TABLE calls (a int PRIMARY KEY); SELECT NEXT VALUE FOR counter; CREATE TABLE later (a int);
        CREATE TRIGGER `later` BEFORE INSERT ON `later` FOR EACH ROW SET NEW.a = 1; DROP PROCEDURE note; CREATE FUNCTION more() RETURNS int NO SQL RETURN 1""",
    )
    maria.sql(f"ALTER DATABASE {name} COMMENT 'mine'")
    rights, was_live = grants(maria), (content(maria, name), maria.checksums(name))
    facts = loaded(kept, restore(maria, name, name))
    previous = names.previous_database(name, "uid-r")
    assert (facts["previousDatabase"], facts["skipped"]) == (previous, [])
    assert (content(maria, name), maria.checksums(name)) == backed_up
    assert (content(maria, previous), maria.checksums(previous)) == was_live
    assert (maria.databases(name), grants(maria)) == ([name, previous], rights)
    for _ in range(2):  # a second one, after a lost pod, does not switch forth again
        assert swap_stage.run(swap(maria, name, "Undo"))["previousDatabase"] == previous
        assert (content(maria, name), maria.checksums(name)) == was_live
        assert (content(maria, previous), maria.checksums(previous)) == backed_up
    for _ in range(2):
        assert swap_stage.run(swap(maria, name, "DropPrevious"))["previousDatabase"] is None
        assert (maria.databases(name), content(maria, name)) == ([name], was_live[0])
    with pytest.raises(Failure) as caught:
        swap_stage.run(swap(maria, name, "Undo"))
    assert caught.value.reason is Reason.DATABASE_NOT_FOUND
    assert grants(maria) == rights
    nobody_is_locked_out(maria)


def test_character_set_and_collation_go_with_the_contents(maria: MariaDB, new_database: Make) -> None:
    """New tables of the application get those that its other tables have; a comment is of the name."""
    name = new_database("CREATE TABLE t (a int)")
    kept = dumped(maria, name)
    maria.sql(f"ALTER DATABASE {name} CHARACTER SET latin1 COLLATE latin1_german1_ci COMMENT 'mine'")
    query = "SELECT default_collation_name, schema_comment FROM information_schema.SCHEMATA WHERE schema_name = '{}'"
    previous = loaded(kept, restore(maria, name, name))["previousDatabase"]
    assert maria.sql(query.format(name)) == [("utf8mb4_general_ci", "mine")]
    assert maria.sql(query.format(previous))[0][0] == "latin1_german1_ci"
    swap_stage.run(swap(maria, name, "Undo"))
    assert maria.sql(query.format(name)) == [("latin1_german1_ci", "mine")]
    assert maria.sql(query.format(previous))[0][0] == "utf8mb4_general_ci"


def test_the_same_restore_again_answers_and_builds_nothing(maria: MariaDB, new_database: Make) -> None:
    """A pod was lost after the end; and what another restore keeps is not touched."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    first = loaded(kept, restore(maria, name, name))
    maria.sql("DELETE FROM child", name)
    again = loaded(kept, restore(maria, name, name))
    assert first["previousDatabase"] == again["previousDatabase"]
    assert maria.scalar("SELECT count(*) FROM child", name) == "0"
    swap_stage.run(swap(maria, name, "DropPrevious", uid="another"))
    assert maria.databases(name) == [name, first["previousDatabase"]]


def test_keys_triggers_and_sequences_work_on_both_sides(maria: MariaDB, new_database: Make) -> None:
    """Each refers to what is beside it, and events run in the live database only."""
    name = new_database(NEW)
    kept = dumped(maria, name)
    maria.sql(f"DROP DATABASE {name}")
    maria.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    maria.script(name, OLD)
    previous = loaded(kept, restore(maria, name, name))["previousDatabase"]
    maria.sql(f"GRANT ALL PRIVILEGES ON {previous}.* TO tenant@'%'")  # whose triggers they are
    for database, word, first in ((name, "new", "502"), (previous, "old", "12")):
        maria.sql("INSERT INTO parent (version) VALUES ('x')", database)
        assert maria.sql("SELECT id, note, twice FROM parent WHERE version = 'x'", database) == [
            (first, f"{word}!", str(int(first) * 2))
        ]
        with pytest.raises(Error, match="foreign key"):
            maria.sql("INSERT INTO child VALUES (5, 7)", database)
        maria.sql("DELETE FROM parent WHERE id < 600", database)
        assert maria.scalar("SELECT count(*) FROM child", database) == "0"
        with pytest.raises(Error, match="foreign key"):
            maria.sql(f"DROP TABLE {database}.parent")
    maria.sql(f"REVOKE ALL PRIVILEGES ON {previous}.* FROM tenant@'%'")
    assert statuses(maria, name) == [("never", "DISABLED"), ("tick", "ENABLED")]
    assert statuses(maria, previous) == [("never", "DISABLED"), ("tick", "SLAVESIDE_DISABLED")]
    swap_stage.run(swap(maria, name, "Undo"))
    assert statuses(maria, name) == [("never", "DISABLED"), ("tick", "ENABLED")]


def test_a_lost_database_is_restored_without_it(maria: MariaDB, new_database: Make) -> None:
    """Created with what the backup says about it; its account has its rights again."""
    name = new_database(NEW)
    maria.sql(f"ALTER DATABASE {name} COMMENT 'mine'")
    wanted, kept = content(maria, name), dumped(maria, name)
    maria.sql(f"DROP DATABASE {name}")
    maria.sql(f"REVOKE ALL PRIVILEGES ON {name}.* FROM tenant@'%'")
    job = restore(maria, name, name)
    assert loaded(kept, job)["previousDatabase"] is None
    assert (content(maria, name), maria.databases(name)) == (wanted, [name])
    maria.sql("SELECT * FROM a_view", name, "tenant")
    maria.sql("DELETE FROM child", name)
    assert loaded(kept, job)["restored"]["rows"] == 3  # the same restore again answers, and builds nothing
    assert maria.scalar("SELECT count(*) FROM child", name) == "0"
    assert dumped(maria, name).catalogue["database"]["comment"] == "mine"
    nobody_is_locked_out(maria)


def test_undo_of_a_live_database_that_was_lost_brings_the_previous_back(
    maria: MariaDB, new_database: Make, expected: dict[str, list[str]]
) -> None:
    """Half of the pair is enough, however often it runs."""
    name = new_database(OLD)
    loaded(dumped(maria, name), restore(maria, name, name))
    maria.sql(f"DROP DATABASE {name}")
    for _ in range(2):
        swap_stage.run(swap(maria, name, "Undo"))
        assert content(maria, name) == expected["old"]


def test_replace_from_a_partial_backup_is_refused(maria: MariaDB, new_database: Make) -> None:
    """Rows of the other modules would be gone."""
    name = new_database(OLD)
    modules = [jobs.Module("m", [f"{name}.parent"])]
    kept = dumped(maria, name, modules=modules, only_modules=["m"])
    with pytest.raises(Failure) as caught:
        loaded(kept, restore(maria, name, name))
    assert (caught.value.reason, maria.databases(name)) == (Reason.PARTIAL_BACKUP, [name])


def failed(maria: MariaDB, kept: Any, job: jobs.Restore) -> Failure:
    """Load, expecting a failure that changes nothing."""
    before = (maria.sql("SHOW DATABASES"), content(maria, job.target_database), grants(maria))
    peer = OpenPeer(kept)
    with pytest.raises(Failure) as caught:
        load.run(job)
    peer.close()
    assert before == (maria.sql("SHOW DATABASES"), content(maria, job.target_database), grants(maria))
    assert statuses(maria, job.target_database) == [("never", "DISABLED"), ("tick", "ENABLED")]
    nobody_is_locked_out(maria)
    return caught.value


def test_somebody_elses_lock_is_told_and_nothing_changes(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator's open transaction: triggers that were dropped meanwhile are back."""
    monkeypatch.setitem(session._EXCHANGING, "lock_wait_timeout", "1")
    name = new_database(OLD)
    kept = dumped(maria, name)
    holder = maria._connect(name)
    holder.query(b"START TRANSACTION")
    holder.query(b"SELECT * FROM kept_out")
    holder.store_result()
    try:
        failure = failed(maria, kept, restore(maria, name, name))
    finally:
        holder.close()
    assert (failure.reason, failure.retriable) == (Reason.LOAD_FAILED, True)
    assert "holds a lock" in failure.message
    assert "SHOW PROCESSLIST" in failure.message


def test_a_foreign_key_of_another_database_is_told(maria: MariaDB, new_database: Make) -> None:
    """It would go with the previous database, and keep it from being dropped."""
    name, other = new_database(OLD), new_database()
    kept = dumped(maria, name)
    maria.sql(f"CREATE TABLE far (a bigint, FOREIGN KEY (a) REFERENCES {name}.parent (id))", other)
    failure = failed(maria, kept, restore(maria, name, name))
    maria.sql("DROP TABLE far", other)
    assert (failure.reason, f"{other}.far" in failure.message) == (Reason.UNSUPPORTED_CONTENT, True)


def test_rights_of_everybody_are_told(maria: MariaDB, new_database: Make) -> None:
    """Nobody could be locked out."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    maria.sql(f"GRANT SELECT ON {name}.* TO PUBLIC")
    failure = failed(maria, kept, restore(maria, name, name))
    maria.sql(failure.message.partition("run: ")[2])
    assert (failure.reason, "PUBLIC" in failure.message) == (Reason.PERMISSION_DENIED, True)
    loaded(kept, restore(maria, name, name))


def test_a_trigger_that_cannot_be_created_again_is_told_before_it_is_dropped(
    maria: MariaDB, new_database: Make
) -> None:
    """Its column is gone; a restore would lose it."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    maria.sql("ALTER TABLE kept_out ADD gone int", name)
    maria.sql(
        "CREATE TRIGGER `broken` BEFORE INSERT ON `kept_out` FOR EACH ROW SET NEW.gone = 1", name, "tenant"
    )
    maria.sql("ALTER TABLE kept_out DROP gone", name)
    failure = failed(maria, kept, restore(maria, name, name))
    assert (failure.reason, "TRIGGER broken" in failure.message) == (Reason.LOAD_FAILED, True)
    assert "repair or drop it" in failure.message


def test_an_application_sees_the_old_or_the_new_database_and_no_row_misses_its_trigger(
    maria: MariaDB, new_database: Make
) -> None:
    """It comes back again and again, and writes whenever it can."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    stop, seen = threading.Event(), set()
    wrote = "SELECT count(*) FROM parent WHERE version = 'app'"

    def hammer(number: int) -> None:
        at = itertools.count(1_000_000 * number)
        while not stop.is_set():
            try:
                connection = maria._connect(name, "tenant")
                for _ in range(20):
                    connection.query(b"INSERT INTO parent (id, version) VALUES (%d, 'app')" % next(at))
            except Error as error:
                seen.add(error.args[0])

    threads = [threading.Thread(target=hammer, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        previous = loaded(kept, restore(maria, name, name))["previousDatabase"]
        while maria.scalar(wrote, name) == "0":
            pass
        swap_stage.run(swap(maria, name, "Undo"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # Sessions ended, accounts locked; never a table that is not there.
    assert seen <= {1927, 2006, 2013, 4151}
    assert 4151 in seen
    for database in (name, previous):
        assert maria.scalar(wrote, database) != "0"
        assert maria.scalar(f"{wrote} AND NOT note <=> 'old!'", database) == "0"


def test_code_keeps_its_definer_and_accounts_their_rights(maria: MariaDB, new_database: Make) -> None:
    """Of others, of nobody, on single tables and routines, by a role; and only its own accounts are locked out."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    maria.script(
        name,
        """CREATE DEFINER = root@localhost TRIGGER `r` BEFORE INSERT ON `child` FOR EACH ROW SET NEW.id = NEW.id;
        CREATE DEFINER = nobody@nowhere FUNCTION which2() RETURNS int DETERMINISTIC RETURN 1;
        CREATE OR REPLACE DEFINER = tenant FUNCTION which() RETURNS varchar(9) DETERMINISTIC RETURN 'changed';""",
        "root",
    )
    for statement in (
        "CREATE ROLE readers",
        "CREATE USER guest@'%'",
        f"GRANT SELECT ON {name}.parent TO readers",
        "GRANT readers TO guest@'%'",
        f"GRANT EXECUTE ON FUNCTION {name}.which TO guest@'%' WITH GRANT OPTION",
        f"GRANT EXECUTE ON FUNCTION {name}.which2 TO readers",
    ):
        maria.sql(statement)
    three = ("guest@'%'", "readers", "tenant@'%'")
    everybody = [sorted(maria.sql(f"SHOW GRANTS FOR {who}")) for who in three]
    before = content(maria, name)
    loaded(kept, restore(maria, name, name))
    definers = f"SELECT DISTINCT definer FROM information_schema.TRIGGERS WHERE trigger_schema = '{name}'"
    assert maria.sql(definers) == [("tenant@%",)]
    assert f"FUNCTION `{name}`.`which` TO" in str(maria.sql("SHOW GRANTS FOR guest@'%'"))
    swap_stage.run(swap(maria, name, "Undo"))
    assert content(maria, name) == before
    swap_stage.run(swap(maria, name, "DropPrevious"))
    assert everybody == [sorted(maria.sql(f"SHOW GRANTS FOR {who}")) for who in three]
    maria.sql("DROP USER guest@'%'")
    maria.sql("DROP ROLE readers")


def test_the_administrator_needs_the_rights_that_the_message_prints_and_no_others(
    maria: MariaDB, new_database: Make, pod: Path
) -> None:
    """Whoever has none is told what to run, once, and then everything works, for the next restore too."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    maria.sql("CREATE USER helper@'%' IDENTIFIED BY 'pass word'")
    write_secrets(pod / "secrets", admin=("helper", "pass word"))
    failure = failed(maria, kept, restore(maria, name, name))
    assert failure.reason is Reason.PERMISSION_DENIED
    statements = failure.message.partition("run: ")[2].split("; ")
    assert [re.sub(r" ON .*", "", statement) for statement in statements] == [
        "GRANT CREATE USER, PROCESS, CONNECTION ADMIN, SET USER",
        *["GRANT ALL PRIVILEGES"] * 4,
        "GRANT SELECT",
    ]
    try:
        for statement in statements:
            maria.sql(statement)
        loaded(kept, restore(maria, name, name))
        swap_stage.run(swap(maria, name, "Undo"))
        swap_stage.run(swap(maria, name, "DropPrevious"))
        loaded(kept, restore(maria, name, name, uid="next"))
    finally:
        maria.sql("DROP USER helper@'%'")
    nobody_is_locked_out(maria)


def act(maria: MariaDB, what: Callable[[Any], object], uid: str = "uid-r") -> None:
    """Do something as a restore's administrator would."""
    login = Login("boss", PASSWORDS["boss"])
    with administer(endpoint.find(maria.database("x"), login), login, uid) as admin:
        what(admin)


def killed(step: int, doing: Callable[[], None], after: str = "") -> bool:
    """Do it in a process that is killed before its n-th statement that changes something; whether it was.

    With `after` they are counted from the first statement with these words on.
    """
    counted, run = [] if after else [""], Connection.run

    def counting(self: Connection, statement: str | bytes) -> int:
        text = statement.decode() if isinstance(statement, bytes) else statement
        if (counted or after in text) and not re.match("SET|USE|DO", text):
            if len(counted) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            counted.append(text)
        return run(self, statement)

    def doomed() -> None:
        Connection.run = counting  # type: ignore[method-assign]
        doing()

    return is_killed(doomed)


# Little of everything: every statement more is a place more where it is killed.
SMALL = """CREATE SEQUENCE numbers START WITH {start} NOCACHE;
CREATE TABLE parent (id bigint DEFAULT (NEXT VALUE FOR numbers) PRIMARY KEY, version varchar(9));
CREATE TABLE child (id int PRIMARY KEY, parent bigint, CONSTRAINT belongs FOREIGN KEY (parent) REFERENCES parent (id));
INSERT INTO parent (version) VALUES ('{version}'); INSERT INTO child VALUES (1, {start});
CREATE TRIGGER `stamp` BEFORE INSERT ON `parent` FOR EACH ROW SET NEW.version = '{version}';
CREATE FUNCTION which() RETURNS varchar(9) DETERMINISTIC RETURN '{version}';
CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO SELECT '{version}';
CREATE TABLE {table} (a int); CREATE VIEW {view} AS SELECT version, which() AS f FROM parent;
"""
VERSIONS = {
    "old": SMALL.format(version="old", start=10, table="x", view="y"),
    "new": SMALL.format(version="new", start=500, table="y", view="x"),
}
OTHER = {"old": "new", "new": "old"}


@pytest.fixture
def small(maria: MariaDB, new_database: Make) -> dict[str, list[str]]:
    """Both small versions as they have to look, wherever they are."""
    return {word: content(maria, new_database(script)) for word, script in VERSIONS.items()}


def version(maria: MariaDB, database: str) -> str:
    """Which version a database has."""
    return str(maria.scalar("SELECT version FROM parent", database))


def side_of(maria: MariaDB, name: str, script: str) -> None:
    """What a Replace has built beside the live database when it begins to put it in place."""
    side, mark = names.side_database(name, "uid-r"), noted("restoring", "uid-r")
    act(maria, lambda admin: admin.create(side, admin.properties(name), mark))
    maria.sql(f"GRANT ALL PRIVILEGES ON {side}.* TO tenant@'%'")
    maria.script(side, script.replace("' DO SELECT", f"' {maria.dialect.parked} DO SELECT"))
    maria.sql(f"REVOKE ALL PRIVILEGES ON {side}.* FROM tenant@'%'")


def end_of_killed(maria: MariaDB, step: int, doing: Callable[[Any], None], name: str) -> bool:
    """Kill it before its n-th statement, kill the recovery too, and recover; whether it was killed."""
    settle = partial(act, maria, lambda admin: exchange.settle(admin, name))
    was_killed = killed(step, partial(act, maria, doing))
    killed(1 + step % 7, settle)
    settle()
    assert statuses(maria, name) == [("tick", "ENABLED")]
    nobody_is_locked_out(maria)
    return was_killed


def changes_once(changed: list[bool]) -> bool:
    """Whether nothing had changed for each earlier step, and everything for each later one."""
    first = changed.index(True)
    return 5 < first < len(changed) - 5 and all(changed[first:]) and len(changed) > 15


def test_a_replace_killed_before_any_statement_ends_all_new_or_all_old(
    maria: MariaDB, new_database: Make, small: dict[str, list[str]]
) -> None:
    """SIGKILL, then another in the middle of the recovery; at last everything is as before or as it should be."""
    name, changed = new_database(VERSIONS["old"]), []
    previous, side = names.previous_database(name, "uid-r"), names.side_database(name, "uid-r")
    for step in itertools.count(1):
        before = version(maria, name)
        maria.sql(f"DROP DATABASE IF EXISTS {side}")  # as a re-run does that finds no journal
        side_of(maria, name, VERSIONS[OTHER[before]])
        was_killed = end_of_killed(maria, step, lambda admin: exchange.replace(admin, name, {}), name)
        now = version(maria, name)
        changed.append(now != before)
        assert content(maria, name) == small[now]
        assert {*maria.databases(name)} == {
            name,
            *([previous] if changed[-1] else [side] if step < 3 else []),
        }
        if changed[-1]:
            assert content(maria, previous) == small[before]
            maria.sql(f"DROP DATABASE {previous}")
        if not was_killed:
            break
    assert changes_once(changed)


def test_an_undo_killed_before_any_statement_ends_all_new_or_all_old(
    maria: MariaDB, new_database: Make, small: dict[str, list[str]]
) -> None:
    """The same there and back, at every other statement: both databases are complete, whichever is live."""
    name, changed = new_database(VERSIONS["old"]), []
    previous = names.previous_database(name, "uid-r")
    side_of(maria, name, VERSIONS["new"])
    act(maria, lambda admin: exchange.replace(admin, name, {}))
    for step in itertools.count(1, 2):
        before = version(maria, name)
        was_killed = end_of_killed(maria, step, lambda admin: exchange.switch_back(admin, name), name)
        now = version(maria, name)
        changed.append(now != before)
        assert (content(maria, name), content(maria, previous)) == (small[now], small[OTHER[now]])
        assert maria.databases(name) == [name, previous]
        if not was_killed:
            break
    assert changes_once(changed)


@pytest.mark.parametrize("step", ["ACCOUNT LOCK", "RENAME TABLE", "ACCOUNT UNLOCK"])
def test_a_load_killed_while_it_replaces_converges_when_it_runs_again(
    maria: MariaDB, new_database: Make, pod: Path, step: str, expected: dict[str, list[str]]
) -> None:
    """The whole stage, as a Job would run it again."""
    name = new_database(OLD)
    kept = dumped(maria, name)
    maria.sql("DELETE FROM child", name)
    job, peer = restore(maria, name, name), OpenPeer(kept)
    with maria.watched(step) as reached:
        stage = start("load", job, pod)
        assert reached.wait(60)
        stage.send_signal(signal.SIGKILL)
        stage.wait()
    _, errors = (again := start("load", job, pod)).communicate(timeout=60)
    peer.close()
    assert again.returncode == ExitCode.SUCCESS, errors.decode()
    assert content(maria, name) == expected["old"]
    assert maria.databases(name) == [name, names.previous_database(name, "uid-r")]
    nobody_is_locked_out(maria)


def test_what_a_failed_restore_left_is_taken_back_by_the_next_one(
    maria: MariaDB, new_database: Make, expected: dict[str, list[str]]
) -> None:
    """It has nobody who runs it again, and left the tenant locked out, with the tables in their new places."""
    name = new_database(OLD)
    kept = dumped(maria, name)

    side = names.side_database(name, "failed")
    maria.sql(f"CREATE DATABASE {side} COMMENT '\ntenantbackup.dev/{noted('restoring', 'failed')}'")
    renames = partial(act, maria, lambda admin: exchange.replace(admin, name, {}), "failed")
    assert killed(1, renames, after="RENAME TABLE")
    assert maria.sql("SHOW TABLES", name) == [("a_view",), ("b_view",), ("y",)]
    with pytest.raises(Error):
        maria.sql("SELECT 1", user="tenant")
    copy = f"{name}_copy"
    loaded(kept, restore(maria, name, copy, uid="next"))
    assert content(maria, name) == expected["old"]
    assert maria.databases(name) == [name, copy]
    nobody_is_locked_out(maria)


def test_only_one_restore_exchanges_at_a_time(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undo of an earlier restore does not come between."""
    monkeypatch.setattr("tenant_backup.engines.mysql.administrator._LOCK_WAIT", 0.2)
    name = new_database(OLD)

    def hold(admin: Any) -> None:
        began = time.monotonic()
        with admin.hold(name), pytest.raises(Failure) as caught:
            swap_stage.run(swap(maria, name, "Undo"))
        assert "another restore" in caught.value.message
        assert time.monotonic() - began < 10

    act(maria, hold, "other")

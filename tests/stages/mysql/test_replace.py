"""Strategy Replace on a real MySQL, there and back: all new or all old, complete, and nobody stays locked out."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.mysql import exchange, names
from tenant_backup.stages import swap as swap_stage
from tests.engines.mysql import MySQL
from tests.engines.peer import write_secrets
from tests.stages.database.jobs import dumped, loaded, restore, swap
from tests.stages.mariadb.test_replace import (
    act,
    content,
    end_of_killed,
    grants,
    nobody_is_locked_out,
    side_of,
    statuses,
    version,
)

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
TORTURE = (Path(__file__).parents[2] / "engines" / "torture_mysql.sql").read_text()

# Little of everything: every statement more is a place more where it is killed.
SMALL = """CREATE TABLE parent (id bigint PRIMARY KEY, version varchar(9) CHECK (version <> ''), KEY ((id + 1)));
CREATE TABLE child (id int PRIMARY KEY, parent bigint, CONSTRAINT belongs FOREIGN KEY (parent) REFERENCES parent (id));
INSERT INTO parent VALUES (1, '{version}'); INSERT INTO child VALUES (1, 1);
CREATE TRIGGER `stamp` BEFORE INSERT ON `parent` FOR EACH ROW SET NEW.version = '{version}';
CREATE FUNCTION which() RETURNS varchar(9) DETERMINISTIC RETURN '{version}';
CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO SELECT '{version}';
CREATE TABLE {table} (a int); CREATE VIEW {view} AS SELECT version, which() AS f FROM parent;
"""
VERSIONS = {
    "old": SMALL.format(version="old", table="x", view="y"),
    "new": SMALL.format(version="new", table="y", view="x"),
}
OTHER = {"old": "new", "new": "old"}


def test_the_replaced_database_is_the_backup_and_undo_brings_everything_back(
    maria: MySQL, new_database: Make
) -> None:
    """One of everything: dumps and checksums of both databases, before, after and after the undo."""
    name = new_database(TORTURE)
    backed_up, kept = (content(maria, name), maria.checksums(name)), dumped(maria, name)
    maria.script(
        name,
        """DROP VIEW calls; DROP TRIGGER `after`; DELETE FROM pairs; DROP TABLE old, squeezed; INSERT INTO pairs VALUES (1, 'k', 1);
        CREATE VIEW old AS SELECT 1 AS a; CREATE TABLE calls (a int PRIMARY KEY); CREATE TABLE later (a int);
        CREATE TRIGGER `later` BEFORE INSERT ON `later` FOR EACH ROW SET NEW.a = 1; DROP PROCEDURE note; CREATE FUNCTION more() RETURNS int NO SQL RETURN 1;
        CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO SELECT 1""",
    )
    rights, was_live = grants(maria), (content(maria, name), maria.checksums(name))
    facts = loaded(kept, restore(maria, name, name))
    previous = names.previous_database(name, "uid-r")
    assert (facts["previousDatabase"], facts["skipped"]) == (previous, [])
    assert (content(maria, name), maria.checksums(name)) == backed_up
    assert (content(maria, previous), maria.checksums(previous)) == was_live
    assert statuses(maria, previous) == [("nightly", "DISABLED"), ("tick", "REPLICA_SIDE_DISABLED")]
    assert (
        loaded(kept, restore(maria, name, name))["previousDatabase"] == previous
    )  # answers, and builds nothing
    for _ in range(2):  # a second one, after a lost pod, does not switch forth again
        assert swap_stage.run(swap(maria, name, "Undo"))["previousDatabase"] == previous
        assert (content(maria, name), maria.checksums(name)) == was_live
        assert (content(maria, previous), maria.checksums(previous)) == backed_up
    assert swap_stage.run(swap(maria, name, "DropPrevious"))["previousDatabase"] is None
    assert (maria.databases(name), content(maria, name), grants(maria)) == ([name], was_live[0], rights)
    nobody_is_locked_out(maria)


@pytest.fixture
def small(maria: MySQL, new_database: Make) -> dict[str, list[str]]:
    """Both small versions as they have to look, wherever they are."""
    return {word: content(maria, new_database(script)) for word, script in VERSIONS.items()}


def test_a_replace_killed_before_a_statement_ends_all_new_or_all_old(
    maria: MySQL, new_database: Make, small: dict[str, list[str]]
) -> None:
    """SIGKILL, then another in the middle of the recovery; at last everything is as before or as it should be."""
    name, changed = new_database(VERSIONS["old"]), []
    previous, side = names.previous_database(name, "uid-r"), names.side_database(name, "uid-r")
    for step in itertools.count(2, 5):
        before = version(maria, name)
        act(maria, lambda admin: admin.drop(side))  # as a re-run does that finds no journal
        side_of(maria, name, VERSIONS[OTHER[before]])
        was_killed = end_of_killed(maria, step, lambda admin: exchange.replace(admin, name, {}), name)
        now = version(maria, name)
        changed.append(now != before)
        assert content(maria, name) == small[now]
        if changed[-1]:
            assert content(maria, previous) == small[before]
            act(maria, lambda admin: admin.drop(previous))
        if not was_killed:
            break
    first = changed.index(True)
    assert 2 < first < len(changed) - 2
    assert all(changed[first:])


def test_the_administrator_needs_the_rights_that_the_message_prints_and_no_others(
    maria: MySQL, new_database: Make, pod: Path
) -> None:
    """Whoever has none is told what to run, once, and then everything works, for the next restore too."""
    name = new_database(VERSIONS["old"])
    kept = dumped(maria, name)
    maria.sql("CREATE USER helper@'%' IDENTIFIED BY 'pass word'")
    write_secrets(pod / "secrets", admin=("helper", "pass word"))
    try:
        for target, rights in ((f"{name}_copy", ["CREATE USER"]), (name, maria.dialect.exchanges[1:])):
            with pytest.raises(Failure, match="adminCredentialsSecretRef lacks rights") as caught:
                loaded(kept, restore(maria, name, target))
            assert caught.value.reason is Reason.PERMISSION_DENIED
            statements = caught.value.message.partition("run: ")[2].split("; ")
            for right in rights:
                assert re.search(rf"\b{right}\b", statements[0])
            for statement in statements:
                maria.sql(statement)
            loaded(kept, restore(maria, name, target))
        swap_stage.run(swap(maria, name, "Undo"))
        swap_stage.run(swap(maria, name, "DropPrevious"))
        loaded(kept, restore(maria, name, name, uid="next"))
    finally:
        maria.sql("DROP USER helper@'%'")
    nobody_is_locked_out(maria)


def test_code_keeps_its_definer_and_accounts_their_rights(maria: MySQL, new_database: Make) -> None:
    """Of others, of nobody, on single tables and routines, by a role."""
    name = new_database(VERSIONS["old"])
    kept = dumped(maria, name)
    maria.script(
        name,
        """CREATE DEFINER = root@localhost TRIGGER `r` BEFORE INSERT ON `child` FOR EACH ROW SET NEW.id = NEW.id;
        CREATE DEFINER = nobody@nowhere FUNCTION which2() RETURNS int DETERMINISTIC RETURN 1;
        DROP FUNCTION which; CREATE DEFINER = tenant FUNCTION which() RETURNS varchar(9) DETERMINISTIC RETURN 'changed'""",
        "root",
    )
    for statement in (
        "CREATE ROLE readers",
        "CREATE USER guest@'%' IDENTIFIED BY 'x'",
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


def test_roles_that_everybody_has_are_told(maria: MySQL, new_database: Make) -> None:
    """Nobody could be locked out."""
    name = new_database(VERSIONS["old"])
    kept = dumped(maria, name)
    maria.sql("CREATE ROLE anybody")
    maria.sql(f"GRANT SELECT ON {name}.* TO anybody")
    maria.sql("SET GLOBAL mandatory_roles = 'anybody'")
    try:
        with pytest.raises(Failure, match="anybody") as caught:
            loaded(kept, restore(maria, name, name))
        maria.sql(caught.value.message.partition("run: ")[2])
        loaded(kept, restore(maria, name, name))
    finally:
        maria.sql("SET GLOBAL mandatory_roles = ''")
        maria.sql("DROP ROLE anybody")
    assert caught.value.reason is Reason.PERMISSION_DENIED


def test_no_row_misses_its_trigger(maria: MySQL, new_database: Make) -> None:
    """An application comes back again and again, and writes whenever it can."""
    name = new_database(
        "CREATE TABLE parent (id bigint PRIMARY KEY, note varchar(9)); INSERT INTO parent (id) VALUES (1);"
        " CREATE TRIGGER s BEFORE INSERT ON parent FOR EACH ROW SET NEW.note = 'old!'"
    )
    kept = dumped(maria, name)
    stop, seen = threading.Event(), set()

    def hammer(number: int) -> None:
        at = itertools.count(1_000_000 * number)
        while not stop.is_set():
            try:
                connection = maria._connect(name, "tenant")
                for _ in range(20):
                    connection.query(b"INSERT INTO parent (id) VALUES (%d)" % next(at))
            except Error as error:
                seen.add(error.args[0])

    threads = [threading.Thread(target=hammer, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        previous = loaded(kept, restore(maria, name, name))["previousDatabase"]
        while maria.scalar("SELECT count(*) FROM parent", name) == "1":
            pass
        swap_stage.run(swap(maria, name, "Undo"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # Sessions ended, accounts locked; never a table that is not there.
    assert 3118 in seen <= {2006, 2013, 3118, 4031}
    for database in (name, previous):
        counted = "SELECT count(*) > 1, sum(id > 1 AND NOT note <=> 'old!') FROM parent"
        assert maria.sql(counted, database) == [("1", "0")]


def test_a_foreign_key_of_another_database_is_told(maria: MySQL, new_database: Make) -> None:
    """It would go with the previous database, and keep it from being dropped."""
    name, other = new_database(VERSIONS["old"]), new_database()
    kept = dumped(maria, name)
    maria.sql(f"CREATE TABLE far (a bigint, FOREIGN KEY (a) REFERENCES {name}.parent (id))", other)
    with pytest.raises(Failure, match=f"{other}.far") as caught:
        loaded(kept, restore(maria, name, name))
    maria.sql("DROP TABLE far", other)
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT
    assert maria.databases(name) == [name]

"""The stage dump against a real MariaDB: what it refuses, what never leaves, and how it ends when others die."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from MySQLdb import Error as MySQLError

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.engines.mysql import endpoint, snapshot
from tenant_backup.engines.mysql.endpoint import Connection
from tenant_backup.stages import dump, preflight
from tests.engines.mariadb import MariaDB
from tests.engines.peer import ArchivePeer
from tests.stages.database.jobs import TENANT, backup, dumped

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
USERS = """CREATE TABLE users (id int PRIMARY KEY, name text, password text);
           INSERT INTO users SELECT seq, concat('n', seq), concat('SECRET', seq) FROM seq_1_to_1000;"""
BIG = """CREATE TABLE big (id int PRIMARY KEY, t text);
         INSERT INTO big SELECT seq, repeat(md5(seq), 8) FROM seq_1_to_200000;"""


def refused(maria: MariaDB, name: str, **changes: object) -> Failure:
    """Dump, expecting a refusal before a byte is sent."""
    peer = ArchivePeer()
    with pytest.raises(Failure) as caught:
        dump.run(backup(maria, name, **changes))  # type: ignore[arg-type]
    peer.die()
    assert (peer.kept.segments, peer.kept.size) == ({}, 0)
    return caught.value


def looked(maria: MariaDB, name: str, **changes: object) -> Failure:
    """Look, expecting a refusal."""
    with pytest.raises(Failure) as caught:
        preflight.run(jobs.Preflight(TENANT, maria.database(name), **changes))  # type: ignore[arg-type]
    return caught.value


def test_a_value_of_an_excluded_column_is_in_no_byte_that_leaves(maria: MariaDB, new_database: Make) -> None:
    """Not in rows, not in definitions, not in the catalogue, and not in what the server is asked."""
    name = new_database(USERS)
    columns = [jobs.Column(f"{name}.users", "password")]
    kept = dumped(maria, name, exclude_columns=columns)
    assert b"n1000\n" in kept.everything()
    assert b"SECRET" not in kept.everything() + str(kept.catalogue).encode()
    assert kept.catalogue["tables"][0]["rows"] == 1000


def test_tables_and_modules_choose_rows_and_structure_is_complete(maria: MariaDB, new_database: Make) -> None:
    """Names and patterns are database.table."""
    name = new_database(
        "CREATE TABLE hr_a SELECT 1 AS x; CREATE TABLE hr_b SELECT 2 AS x; CREATE TABLE other SELECT 3 AS x"
    )
    modules = [jobs.Module("hr", [f"{name}.hr_*"]), jobs.Module("rest", [f"{name}.other"])]
    tables = [f"{name}.hr_b"]
    kept = dumped(maria, name, modules=modules, only_modules=["hr"], exclude_tables=tables)
    assert {table["name"]: table["rows"] for table in kept.catalogue["tables"]} == {
        f"{name}.hr_a": 1,
        f"{name}.hr_b": 0,
        f"{name}.other": 0,
    }
    assert (kept.catalogue["partial"], kept.catalogue["modules"]) == (True, ["hr"])
    assert kept.segments["schema"][0].count(b'"kind": "TABLE"') == 3


@pytest.mark.parametrize(
    ("column", "table", "reason"),
    [
        ("x", "nobody", Reason.TABLE_NOT_FOUND),
        ("pasword", "users", Reason.COLUMN_NOT_FOUND),
        ("id", "users", Reason.INVALID_SPEC),
    ],
)
def test_a_name_that_matches_nothing_ends_the_backup_before_a_row_is_read(
    maria: MariaDB, new_database: Make, column: str, table: str, reason: Reason
) -> None:
    """A typing error must not put a password into a backup."""
    name = new_database(USERS)
    columns = [jobs.Column(f"{name}.{table}", column)]
    failure = refused(maria, name, exclude_columns=columns)
    assert (failure.reason, failure.exit_code) == (reason, ExitCode.PERMANENT)
    assert looked(maria, name, exclude_columns=columns).message == failure.message


@pytest.mark.parametrize(
    ("column", "rule", "advice"),
    [
        ("s", "Null", "use onRestore: Value"),
        ("s", "Default", "use onRestore: Value"),
        ("s", "KeepLive", "as else"),
        ("d", "Null", "use onRestore: Default or Value"),
    ],
)
def test_a_required_column_that_could_not_come_back_is_refused(
    maria: MariaDB, new_database: Make, column: str, rule: Any, advice: str
) -> None:
    """By backup and preflight, with the way out in the message; what the server fills may come back so."""
    name = new_database(
        "CREATE TABLE t (id int PRIMARY KEY, s text NOT NULL, d int NOT NULL DEFAULT 7, n varchar(9) DEFAULT 'NULL')"
    )
    columns = [jobs.Column(f"{name}.t", column, rule)]
    failure = refused(maria, name, exclude_columns=columns)
    assert (failure.reason, advice in failure.message) == (Reason.INVALID_SPEC, True), failure.message
    assert looked(maria, name, exclude_columns=columns).message == failure.message
    possible = [jobs.Column(f"{name}.t", "d", "Default"), jobs.Column(f"{name}.t", "n", "Null")]
    assert dumped(maria, name, exclude_columns=possible).complete


def test_a_look_tells_what_modules_leave_out(maria: MariaDB, new_database: Make) -> None:
    """Tables that nobody claims, and foreign keys that leave a module or the backup."""
    name = new_database(
        """CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE left_out (id int PRIMARY KEY);
        CREATE TABLE b (id int, CONSTRAINT b_a FOREIGN KEY (id) REFERENCES a (id));
        CREATE TABLE c (id int, CONSTRAINT c_l FOREIGN KEY (id) REFERENCES left_out (id)); CREATE VIEW v AS SELECT 1"""
    )
    modules = [jobs.Module("x", [f"{name}.b"])]
    job = jobs.Preflight(TENANT, maria.database(name), [], [f"{name}.left_out"], modules)
    found = preflight.run(job)["database"]
    assert found["unclaimedTables"] == {"count": 2, "names": [f"{name}.a", f"{name}.c"]}
    assert found["leavingForeignKeys"]["names"] == [f"{name}.c.c_l", f"{name}.b.b_a (module x)"]


def test_a_table_with_a_past_keeps_no_live_values(maria: MariaDB, new_database: Make) -> None:
    """To put them in would be a change that never was."""
    name = new_database("CREATE TABLE t (id int PRIMARY KEY, s text) WITH SYSTEM VERSIONING")
    failure = refused(maria, name, exclude_columns=[jobs.Column(f"{name}.t", "s")])
    assert (failure.reason, "onRestore: Default" in failure.message) == (Reason.INVALID_SPEC, True)


CODE = """CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1;
CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;"""


@pytest.mark.parametrize("missing", ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "EXECUTE"])
def test_a_missing_right_is_named_with_its_grant(maria: MariaDB, new_database: Make, missing: str) -> None:
    """Running the printed statements is all it takes; without them things would be missing in silence."""
    rights = {"SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "EXECUTE"} - {missing}
    name = new_database(CODE, rights=", ".join(sorted(rights)))
    failure = refused(maria, name)
    assert (failure.reason, failure.exit_code) == (Reason.PERMISSION_DENIED, ExitCode.PERMANENT)
    assert looked(maria, name).message == failure.message
    maria.sql(failure.message.partition("run: ")[2])
    # The procedure is root's: its text is shown to nobody else.
    hidden = refused(maria, name)
    assert (hidden.reason, "PROCEDURE p" in hidden.message) == (Reason.PERMISSION_DENIED, True)
    maria.sql(hidden.message.partition("run: ")[2])
    try:
        kinds = [line.split(b'"')[3] for line in dumped(maria, name).segments["schema"][0].splitlines()]
    finally:
        maria.sql("REVOKE SELECT ON mysql.proc FROM tenant@'%'")
    assert kinds == [b"TABLE", b"PROCEDURE", b"VIEW", b"TRIGGER", b"EVENT"]


def test_the_grant_that_is_printed_takes_nothing_away(maria: MariaDB, new_database: Make) -> None:
    """An underscore in a GRANT is a pattern, and of two that fit the server takes the more exact one alone."""
    name = f"{new_database()}_odd"
    maria.sql(f"CREATE DATABASE {name}")
    maria.sql(f"GRANT SELECT, INSERT, CREATE ON `{name}`.* TO tenant@'%'")
    try:
        maria.script(name, USERS, "tenant")
        maria.sql(refused(maria, name).message.partition("run: ")[2])
        assert dumped(maria, name).catalogue["tables"][0]["rows"] == 1000
        maria.script(name, "CREATE TABLE still_may (a int); INSERT INTO still_may VALUES (1)", "tenant")
    finally:
        maria.sql(f"REVOKE ALL PRIVILEGES ON `{name}`.* FROM tenant@'%'")


def test_a_role_may_hold_the_rights(maria: MariaDB, new_database: Make) -> None:
    """A default role counts as its members' own rights."""
    name = new_database(USERS, rights="SHOW VIEW")
    maria.sql("CREATE ROLE reader")
    try:
        maria.sql(f"GRANT SELECT, TRIGGER, EVENT, EXECUTE ON {name}.* TO reader")
        maria.sql("GRANT reader TO tenant@'%'")
        maria.sql("SET DEFAULT ROLE reader FOR tenant@'%'")
        assert dumped(maria, name).catalogue["tables"][0]["rows"] == 1000
    finally:
        maria.sql("DROP ROLE reader")


def test_what_could_not_come_back_is_refused(maria: MariaDB, new_database: Make) -> None:
    """Numbers of transactions are those of one server; the rows of a MERGE table are elsewhere."""
    versioned = new_database(
        """CREATE TABLE v (a int, b bigint unsigned GENERATED ALWAYS AS ROW START, e bigint unsigned
        GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (b, e)) WITH SYSTEM VERSIONING"""
    )
    merged = new_database(
        "CREATE TABLE a (x int) ENGINE = MyISAM; CREATE TABLE m (x int) ENGINE = MERGE UNION = (a)"
    )
    failures = [refused(maria, versioned), refused(maria, merged)]
    assert [failure.reason for failure in failures] == [Reason.UNSUPPORTED_CONTENT] * 2
    assert [f"{versioned}.v" in failures[0].message, f"{merged}.m" in failures[1].message] == [True, True]


def test_wrong_credentials_and_addresses_have_their_own_reasons(
    maria: MariaDB, new_database: Make, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reason each, permanent, with the server's own line and no password."""
    monkeypatch.setattr(endpoint, "PATIENCE", 0.5)
    name = new_database()
    maria.sql("GRANT SHOW DATABASES ON *.* TO tenant@'%'")
    found = {
        "foreign db": refused(maria, "mysql"),
        "port": refused(maria, name, database=jobs.Database("MariaDB", "127.0.0.1", 1, name)),
        "host": refused(maria, name, database=jobs.Database("MariaDB", "nowhere.invalid", 3306, name)),
    }
    maria.sql("REVOKE SHOW DATABASES ON *.* FROM tenant@'%'")
    maria.sql("GRANT ALL PRIVILEGES ON `nobody`.* TO tenant@'%'")
    found["db"] = refused(maria, "nobody")
    maria.sql("REVOKE ALL PRIVILEGES ON `nobody`.* FROM tenant@'%'")
    (pod / "secrets/database/password").write_text("wrong-secret\n")
    found["password"] = refused(maria, name)
    (pod / "secrets/database/password").unlink()
    found["key"] = refused(maria, name)
    (pod / "secrets/database/username").unlink()
    found["secret"] = refused(maria, name)
    assert {key: failure.reason for key, failure in found.items()} == {
        "foreign db": Reason.PERMISSION_DENIED,
        "db": Reason.DATABASE_NOT_FOUND,
        "port": Reason.DATABASE_UNREACHABLE,
        "host": Reason.DATABASE_UNREACHABLE,
        "password": Reason.AUTHENTICATION_FAILED,
        "key": Reason.KEY_MISSING,
        "secret": Reason.SECRET_NOT_FOUND,
    }
    assert {ExitCode.PERMANENT} == {failure.exit_code for failure in found.values()}
    assert not any("wrong-secret" in failure.message for failure in found.values())


def test_everything_in_a_backup_is_of_one_moment(maria: MariaDB, new_database: Make) -> None:
    """Two tables that change only together never differ in a backup, however busy the server is."""
    name = new_database(
        f"CREATE TABLE a (n bigint); CREATE TABLE b (n bigint); INSERT INTO a VALUES (0); INSERT INTO b VALUES (0); {BIG}"
    )
    stop = threading.Event()
    busy = f"""CREATE PROCEDURE busy() BEGIN DECLARE i int DEFAULT 0; WHILE i < 500 DO
               START TRANSACTION; UPDATE {name}.a SET n = n + 1; UPDATE {name}.b SET n = n + 1; COMMIT; SET i = i + 1;
               END WHILE; END"""
    maria.sql(busy, name, "tenant")

    def write() -> None:
        while not stop.is_set():
            maria.sql("CALL busy()", name, "tenant")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        backups = [dumped(maria, name) for _ in range(3)]
    finally:
        stop.set()
        thread.join()
    values = []
    for kept in backups:
        by_table = {kept.tables[key]: b"".join(kept.segments[key]) for key in kept.segments}
        assert by_table[f"{name}.a"] == by_table[f"{name}.b"]
        values.append(by_table[f"{name}.a"])
        assert kept.catalogue["consistency"] == "Snapshot"
    assert len(set(values)) == 3  # it really was busy


@pytest.mark.parametrize(
    ("change", "tables"),
    [
        ("TRUNCATE users", [(0, "password")]),
        ("ALTER TABLE users ADD COLUMN late int, ALGORITHM = COPY", [(1000, "late")]),
        ("DROP TABLE users", []),
        ("CREATE TABLE also (id int)", [(0, "id"), (1000, "password")]),
    ],
)
def test_a_table_that_changes_before_it_is_locked_is_read_as_it_now_is(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch, change: str, tables: list[object]
) -> None:
    """The snapshot is taken again: the old one would show it as empty, or not at all."""
    name = new_database(USERS)
    take_locks = snapshot.lock
    calls: list[int] = []

    def change_first(connection: Connection, database: str, *tables: Any) -> None:
        if not calls:
            maria.sql(change, name)
        calls.append(len(tables[0]))
        take_locks(connection, database, *tables)

    monkeypatch.setattr(snapshot, "lock", change_first)
    found = dumped(maria, name).catalogue["tables"]
    assert tables == [(table["rows"], table["columns"][-1]) for table in found]
    assert len(calls) == 2


def test_a_migration_that_holds_a_table_is_waited_for_by_the_next_attempt(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that does not come ends this attempt only."""
    from tenant_backup.engines.mysql import session

    monkeypatch.setitem(session._ALWAYS, "lock_wait_timeout", "1")
    name = new_database(USERS)
    other = maria._connect(name)
    other.query(b"LOCK TABLES users WRITE")
    failure = refused(maria, name)
    other.close()
    assert (failure.reason, failure.exit_code) == (Reason.DUMP_FAILED, ExitCode.RETRIABLE)


@pytest.mark.parametrize(
    ("kill", "reason", "code"),
    [
        ("session", Reason.DATABASE_UNREACHABLE, ExitCode.RETRIABLE),
        ("query", Reason.DUMP_FAILED, ExitCode.RETRIABLE),
        ("archive", Reason.PEER_FAILED, ExitCode.PEER_FAILED),
    ],
)
def test_a_dump_that_ends_early_is_never_a_backup(
    maria: MariaDB, new_database: Make, kill: str, reason: Reason, code: ExitCode
) -> None:
    """Whoever dies in the middle of the rows: no catalogue is sent."""
    name = new_database(BIG)
    peer: ArchivePeer
    once = threading.Lock()

    def interfere(segment: str, _size: int) -> None:
        if segment == "schema" or not once.acquire(blocking=False):
            return
        if kill == "archive":
            peer.die()
            return
        sessions = maria.sql("SELECT id FROM information_schema.PROCESSLIST WHERE user = 'tenant'")
        maria.sql(f"KILL {'QUERY' if kill == 'query' else 'CONNECTION'} {sessions[0][0]}")

    peer = ArchivePeer(on_block=interfere)
    with pytest.raises(Failure) as caught:
        dump.run(backup(maria, name))
    peer.die()
    assert (caught.value.reason, caught.value.exit_code) == (reason, code)
    assert (peer.kept.catalogue, peer.kept.complete) == ({}, False)


def test_a_database_cannot_be_dropped_in_the_middle(maria: MariaDB, new_database: Make) -> None:
    """Every table's definition is locked: who drops it waits for the end of the backup."""
    name = new_database(BIG)
    seen: list[int] = []

    def interfere(segment: str, _size: int) -> None:
        if segment == "schema" or seen:
            return
        connection = maria._connect("")
        connection.query(b"SET lock_wait_timeout = 1")
        with pytest.raises(MySQLError) as caught:
            connection.query(f"DROP DATABASE {name}".encode())
        seen.append(caught.value.args[0])
        connection.close()

    peer = ArchivePeer(on_block=interfere)
    dump.run(backup(maria, name))
    peer.die()
    assert (seen, peer.kept.complete) == ([1205], True)


def test_the_server_may_die_in_the_middle(pod: Path) -> None:
    """A lost server is retriable: it may come back."""
    server = MariaDB()
    server.create()
    try:
        server.sql("CREATE DATABASE acme")
        server.sql("GRANT ALL PRIVILEGES ON acme.* TO tenant@'%'")
        server.script("acme", BIG)
        peer = ArchivePeer(on_block=lambda segment, _: segment != "schema" and server.kill())
        with pytest.raises(Failure) as caught:
            dump.run(backup(server, "acme"))  # type: ignore[arg-type]
        peer.die()
        assert (caught.value.reason, caught.value.exit_code) == (
            Reason.DATABASE_UNREACHABLE,
            ExitCode.RETRIABLE,
        )
    finally:
        server.remove()


def test_a_healthy_database_is_described(maria: MariaDB, new_database: Make) -> None:
    """Version, size in bytes, tables that hold rows."""
    name = new_database(f"{USERS} CREATE VIEW v AS SELECT 1")
    found = preflight.run(jobs.Preflight(TENANT, maria.database(name)))["database"]
    assert (found["tables"], found["version"].count(".")) == (1, 2)
    assert found["sizeBytes"] >= 16384

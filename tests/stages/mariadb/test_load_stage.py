"""The stage load against a real MariaDB: nobody's rights grow, nothing half done stays, every re-run converges."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.stages import load
from tests.engines.mariadb import PASSWORDS, MariaDB
from tests.engines.peer import Kept, OpenPeer, write_secrets
from tests.stages.database.jobs import dumped, loaded, restore, start

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
USERS = """CREATE TABLE users (id int PRIMARY KEY, name text, password varchar(20) NOT NULL);
           INSERT INTO users SELECT seq, concat('n', seq), concat('old', seq) FROM seq_1_to_100;"""


def failed(maria: MariaDB, kept: Kept, job: jobs.Restore) -> Failure:
    """Load, expecting a failure that leaves nothing behind."""
    before = maria.sql("SHOW DATABASES")
    peer = OpenPeer(kept)
    with pytest.raises(Failure) as caught:
        load.run(job)
    peer.close()
    assert not peer.done.is_set()
    assert (maria.logins(), maria.sql("SHOW DATABASES")) == ([], before)
    lines = [str(row[0]).replace("\\", "") for row in maria.sql("SHOW GRANTS FOR tenant@'%'")]
    given = any(f"`{job.target_database}`" in line for line in lines)
    assert not given or job.target_database in maria.databases("")  # its own before we came
    return caught.value


def test_a_name_that_is_taken_is_refused_and_our_own_is_not(maria: MariaDB, new_database: Make) -> None:
    """The same restore again finds its own work; another restore finds a stranger's."""
    name = new_database(USERS)
    kept = dumped(maria, name)
    copy = f"{name}_copy"
    first = loaded(kept, restore(maria, name, copy))
    maria.sql(f"DELETE FROM {copy}.users WHERE id = 1")
    again = loaded(kept, restore(maria, name, copy))
    assert first["restored"]["rows"] == again["restored"]["rows"] == 100
    assert maria.scalar(f"SELECT count(*) FROM {copy}.users") == "99"  # it was not built again
    failure = failed(maria, kept, restore(maria, name, copy, uid="other"))
    assert (failure.reason, failure.exit_code) == (Reason.NAME_TAKEN, ExitCode.PERMANENT)
    assert failed(maria, kept, restore(maria, name, "mysql", uid="other")).reason is Reason.NAME_TAKEN


def test_a_database_keeps_its_comment_and_character_set(maria: MariaDB, new_database: Make) -> None:
    """What we note behind the comment is in no backup."""
    name = new_database(USERS)
    maria.sql(
        f"ALTER DATABASE {name} CHARACTER SET latin1 COLLATE latin1_german1_ci COMMENT 'it''s \\\\ mine'"
    )
    copy = f"{name}_copy"
    loaded(dumped(maria, name), restore(maria, name, copy))
    maria.sql(f"GRANT ALL PRIVILEGES ON {copy}.* TO tenant@'%'")
    found = dumped(maria, copy).catalogue["database"]
    assert found == {
        "name": copy,
        "characterSet": "latin1",
        "collation": "latin1_german1_ci",
        "comment": "it's \\ mine",
        "encrypted": False,
    }


def test_a_backup_of_another_engine_is_refused(maria: MariaDB, new_database: Make) -> None:
    """PostgreSQL's definitions say nothing to MariaDB."""
    name = new_database()
    kept = Kept(catalogue={"server": {"engine": "PostgreSQL", "version": "15.6"}})
    assert failed(maria, kept, restore(maria, name, f"{name}_copy")).reason is Reason.UNSUPPORTED_CONTENT


def test_a_backup_of_a_newer_server_is_refused(maria: MariaDB, new_database: Make) -> None:
    """It may hold what the older one does not know."""
    name = new_database(USERS)
    kept = dumped(maria, name)
    kept.catalogue["server"]["version"] = "99.1.0"
    assert failed(maria, kept, restore(maria, name, f"{name}_copy")).reason is Reason.UNSUPPORTED_CONTENT


def test_missing_administrator_credentials_are_named(maria: MariaDB, new_database: Make, pod: Path) -> None:
    """The Secret, and the field that names it."""
    for file in (pod / "secrets/admin").iterdir():
        file.unlink()
    failure = failed(maria, Kept(), restore(maria, "x", "x_copy"))
    assert (failure.reason, "maria-admin" in failure.message) == (Reason.SECRET_NOT_FOUND, True)


def test_an_administrator_who_may_not_create_databases_is_told_so(
    maria: MariaDB, new_database: Make, pod: Path
) -> None:
    """With the server's own line."""
    name = new_database(USERS)
    kept = dumped(maria, name)
    write_secrets(pod / "secrets", admin=("tenant", PASSWORDS["tenant"]))
    failure = failed(maria, kept, restore(maria, name, f"{name}_copy"))
    assert failure.reason is Reason.PERMISSION_DENIED
    assert "adminCredentialsSecretRef" in failure.message


FOREIGN_CODE = """CREATE TABLE t (a int);
CREATE DEFINER = root@localhost VIEW v AS SELECT a FROM t;
CREATE DEFINER = root@localhost FUNCTION f() RETURNS int DETERMINISTIC RETURN 1;
CREATE DEFINER = nobody@nowhere TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1;
CREATE DEFINER = root@localhost EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;"""


def test_code_of_others_becomes_the_tenants_and_is_told(maria: MariaDB, new_database: Make) -> None:
    """Nothing is created that runs as an administrator, or as an account that is not there."""
    name = new_database()
    maria.script(name, FOREIGN_CODE, "root")
    maria.sql("GRANT SELECT ON mysql.proc TO tenant@'%'")
    kept = dumped(maria, name)
    maria.sql("REVOKE SELECT ON mysql.proc FROM tenant@'%'")
    copy = f"{name}_copy"
    facts = loaded(kept, restore(maria, name, copy))
    query = f"""SELECT definer FROM information_schema.VIEWS WHERE table_schema = '{copy}'
        UNION ALL SELECT definer FROM information_schema.ROUTINES WHERE routine_schema = '{copy}'
        UNION ALL SELECT definer FROM information_schema.TRIGGERS WHERE trigger_schema = '{copy}'
        UNION ALL SELECT definer FROM information_schema.EVENTS WHERE event_schema = '{copy}'"""
    assert maria.sql(query) == [("tenant@%",)] * 4
    assert sorted(facts["skipped"]) == [
        "1 objects of nobody@nowhere now belong to tenant@%",
        "3 objects of root@localhost now belong to tenant@%",
    ]


@pytest.mark.parametrize("right", ["SUPER", "FILE", "ALL PRIVILEGES", "SELECT"])
def test_code_never_becomes_that_of_an_account_with_rights_on_the_server(
    maria: MariaDB, new_database: Make, right: str
) -> None:
    """A trigger would run with them."""
    name = new_database(f"{USERS} CREATE VIEW v AS SELECT id FROM users")
    kept = dumped(maria, name)
    maria.sql(f"GRANT {right} ON *.* TO tenant@'%'")
    try:
        failure = failed(maria, kept, restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql(f"REVOKE {right} ON *.* FROM tenant@'%'")
    assert (failure.reason, right in failure.message) == (Reason.PERMISSION_DENIED, True)


def test_the_temporary_login_sees_one_database_only(maria: MariaDB, new_database: Make) -> None:
    """A definition that names another database is refused by the server, and nothing is left."""
    name, other = new_database("CREATE TABLE t (a int PRIMARY KEY, KEY (a))"), new_database(USERS)
    maria.sql(f"CREATE TABLE far (a int, FOREIGN KEY (a) REFERENCES {other}.users (id))", name)
    failure = failed(maria, dumped(maria, name), restore(maria, name, f"{name}_copy"))
    assert (failure.reason, "far" in failure.message) == (Reason.PERMISSION_DENIED, True)


def test_a_name_with_an_underscore_gives_rights_on_no_other_database(
    maria: MariaDB, new_database: Make
) -> None:
    """In a GRANT an underscore stands for any character."""
    name = new_database(USERS)
    loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    lines = [str(row[0]) for row in maria.sql("SHOW GRANTS FOR tenant@'%'")]
    assert any(f"ON `{name}\\_copy`.* TO" in line for line in lines)


def test_a_trigger_that_was_typed_with_its_database_is_made_in_the_new_one(
    maria: MariaDB, new_database: Make
) -> None:
    """The live database gets no trigger from a restore."""
    name = new_database("CREATE TABLE t (a int)")
    maria.sql(f"CREATE TRIGGER {name}.r BEFORE INSERT ON {name}.t FOR EACH ROW SET NEW.a = 1", name, "tenant")
    kept = dumped(maria, name)
    maria.sql(f"DROP TRIGGER {name}.r")
    loaded(kept, restore(maria, name, f"{name}_copy"))
    query = f"SELECT trigger_schema FROM information_schema.TRIGGERS WHERE trigger_schema LIKE '{name}%'"
    assert maria.sql(query) == [(f"{name}_copy",)]


def test_a_view_that_reads_from_elsewhere_too_reads_its_own_tables_in_the_new_database(
    maria: MariaDB, new_database: Make
) -> None:
    """The server writes all names in full then; the old database's would be read."""
    other, name = new_database(USERS), new_database("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")
    strange = f"SELECT id, a, '`{name}`.`t`' AS s FROM {other}.users, t WHERE id = 1"
    maria.sql(f"CREATE VIEW far AS {strange}", name, "tenant")
    kept = dumped(maria, name)
    maria.sql("UPDATE t SET a = 8", name)
    loaded(kept, restore(maria, name, f"{name}_copy"))
    assert maria.sql("SELECT * FROM far", f"{name}_copy") == [("1", "7", f"`{name}`.`t`")]


def test_a_view_whose_tables_are_gone_is_told(maria: MariaDB, new_database: Make) -> None:
    """It was broken before; everything else comes back."""
    name = new_database(
        "CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t; DROP TABLE t; CREATE TABLE u (a int)"
    )
    facts = loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    assert [text.startswith("VIEW v: ") for text in facts["skipped"]] == [True]


def test_excluded_columns_follow_their_rules(maria: MariaDB, new_database: Make) -> None:
    """KeepLive by primary key with a value for the others, Null, Default, Value; generated columns follow."""
    name = new_database(
        """CREATE TABLE users (id int, org int, keep varchar(20) NOT NULL DEFAULT 'd', none text DEFAULT ('x'),
        dflt varchar(9) DEFAULT 'd' NOT NULL, val varchar(9) CHARACTER SET latin1 NOT NULL,
        touched timestamp DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        made varchar(20) AS (concat(keep, '!')) STORED, PRIMARY KEY (id, org));
        INSERT INTO users (id, org, keep, none, dflt, val, touched) SELECT seq, 1, concat('old', seq), 'x', 'y', 'z', '2001-01-01' FROM seq_1_to_10"""
    )
    rules = [
        ("keep", "KeepLive", "!"),
        ("none", "Null", None),
        ("dflt", "Default", None),
        ("val", "Value", "ü"),
    ]
    columns = [jobs.Column(f"{name}.users", column, rule, value) for column, rule, value in rules]  # type: ignore[arg-type]
    kept = dumped(maria, name, exclude_columns=columns)
    maria.sql("UPDATE users SET keep = concat('new', id), touched = '2001-01-01'", name)
    maria.sql("DELETE FROM users WHERE id > 8", name)
    facts = loaded(kept, restore(maria, name, f"{name}_copy", exclude_columns=columns))
    assert facts["keepLive"] == {"kept": 8, "withoutMatch": 2}
    query = "SELECT id, keep, none, dflt, val, made, date(touched) FROM users ORDER BY 1"
    expected = [
        (str(i), f"new{i}" if i < 9 else "!", None, "d", "ü", f"new{i}!" if i < 9 else "!!", "2001-01-01")
        for i in range(1, 11)
    ]
    assert maria.sql(query, f"{name}_copy") == expected


def test_a_key_to_rows_that_were_left_out_is_told(maria: MariaDB, new_database: Make) -> None:
    """It is there, guards new rows, and old ones point nowhere."""
    name = new_database(
        """CREATE TABLE s (id int PRIMARY KEY); CREATE TABLE t (id int, CONSTRAINT k FOREIGN KEY (id) REFERENCES s (id));
        INSERT INTO s VALUES (1); INSERT INTO t VALUES (1)"""
    )
    facts = loaded(dumped(maria, name, exclude_tables=[f"{name}.s"]), restore(maria, name, f"{name}_copy"))
    assert facts["skipped"] == ["FOREIGN KEY t.k: rows that it points to were left out"]
    assert maria.scalar("SELECT count(*) FROM t", f"{name}_copy") == "1"


@pytest.mark.parametrize("damage", ["row lost", "rows claimed", "table short", "row twice", "value cut"])
def test_one_row_too_few_and_nothing_stays(maria: MariaDB, new_database: Make, damage: str) -> None:
    """Rows are compared per segment and per table, and a value that the server would change is an error."""
    name = new_database(USERS)
    kept = dumped(maria, name)
    segment = kept.catalogue["tables"][0]["segments"][0]
    lines = b"".join(kept.segments[segment]).splitlines(keepends=True)
    if damage == "row lost":
        kept.segments[segment] = lines[1:]
    elif damage == "row twice":
        kept.segments[segment] = [lines[1], *lines[1:]]
    elif damage == "value cut":
        kept.segments[segment] = [lines[0].replace(b"old", b"x" * 50), *lines[1:]]
    elif damage == "rows claimed":
        kept.rows[segment] = 101
    else:
        kept.catalogue["tables"][0]["rows"] = 101
    failure = failed(maria, kept, restore(maria, name, f"{name}_copy"))
    changed = damage in ("value cut", "row twice")
    assert failure.reason is (Reason.LOAD_FAILED if changed else Reason.ROWS_DIFFER)


def test_a_segment_without_its_verdict_is_never_committed(maria: MariaDB, new_database: Make) -> None:
    """`open` dies after the last block and before it says that all of them were whole."""
    name = new_database(USERS)
    kept = dumped(maria, name)

    def die(segment: str) -> None:
        if segment != "schema":
            raise OSError("died")

    peer = OpenPeer(kept, on_segment=die)
    with pytest.raises(Failure) as caught:
        load.run(restore(maria, name, f"{name}_copy"))
    peer.close()
    assert (caught.value.reason, maria.databases(name), maria.logins()) == (Reason.PEER_FAILED, [name], [])


# Words of a statement that stands for a step.
STEPS = [
    "CREATE DATABASE",
    "CREATE USER",
    "CREATE TABLE",
    "LOAD DATA",
    "SELECT count",
    "GRANT ALL PRIVILEGES ON",
    "CREATE ALGORITHM",
    "ALTER DATABASE",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_load_killed_at_any_point_converges_when_it_runs_again(
    maria: MariaDB, new_database: Make, pod: Path, step: str
) -> None:
    """SIGKILL when the server has begun a certain statement: the next run finishes, and leaves nothing else."""
    name = new_database(f"{USERS} CREATE VIEW v AS SELECT id FROM users")
    copy = f"{name}_copy"
    kept = dumped(maria, name)
    job = restore(maria, name, copy)
    peer = OpenPeer(kept)
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


def finished(stage: subprocess.Popen[bytes]) -> None:
    """Wait for a stage; it has to end well."""
    _, errors = stage.communicate(timeout=60)
    assert stage.returncode == 0, errors.decode()


def test_a_zombie_of_an_earlier_attempt_can_do_nothing_any_more(
    maria: MariaDB, new_database: Make, pod: Path
) -> None:
    """The first pod hangs in the middle; the second finishes; the first ends, and changes nothing."""
    name = new_database(USERS)
    copy = f"{name}_copy"
    kept = dumped(maria, name)
    held, go = threading.Event(), threading.Event()

    def hang(segment: str) -> None:
        if segment != "schema" and not held.is_set():
            held.set()
            go.wait(60)

    peer = OpenPeer(kept, on_segment=hang)
    zombie = start("load", restore(maria, name, copy), pod)
    assert held.wait(60)
    finished(start("load", restore(maria, name, copy), pod))
    go.set()
    zombie.communicate(timeout=60)
    peer.close()
    assert zombie.returncode in (ExitCode.RETRIABLE, ExitCode.PERMANENT, ExitCode.PEER_FAILED)
    assert maria.scalar("SELECT count(*) FROM users", copy) == "100"
    assert (maria.logins(), maria.databases(name)) == ([], [name, copy])


def test_a_stop_order_leaves_nothing_behind(maria: MariaDB, new_database: Make, pod: Path) -> None:
    """Told to stop in the middle of the rows: neither a database nor a login, and no session of it."""
    name = new_database(USERS)
    held, go = threading.Event(), threading.Event()

    def hang(segment: str) -> None:
        if segment != "schema":
            held.set()
            go.wait(60)

    peer = OpenPeer(dumped(maria, name), on_segment=hang)
    stage = start("load", restore(maria, name, f"{name}_copy"), pod)
    assert held.wait(60)
    stage.send_signal(signal.SIGTERM)
    stage.communicate(timeout=60)
    go.set()
    peer.close()
    assert stage.returncode == ExitCode.RETRIABLE
    assert (maria.databases(name), maria.logins()) == ([name], [])
    assert maria.sql("SELECT 1 FROM information_schema.PROCESSLIST WHERE user LIKE 'tbr%'") == []

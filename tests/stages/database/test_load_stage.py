"""The stage load against a real server: nobody's rights grow, nothing half done is ever seen, every re-run converges."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.engines.postgresql import names
from tenant_backup.stages import load, wire
from tests.engines.peer import Kept, OpenPeer, write_secrets
from tests.engines.server import PASSWORDS, Server
from tests.stages.database.jobs import dumped, loaded, restore, start

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
USERS = """CREATE TABLE users (id int PRIMARY KEY, name text, password text NOT NULL);
           INSERT INTO users SELECT i, 'n' || i, 'old' || i FROM generate_series(1, 100) i"""
LOGINS = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^tbr_'"


def databases(server: Server, name: str) -> list[str]:
    """The databases that grew from one name."""
    return [
        str(row[0])
        for row in server.sql(f"SELECT datname FROM pg_database WHERE datname ~ '^{name}' ORDER BY 1")
    ]


def failed(kept: Kept, job: jobs.Restore, server: Server) -> Failure:
    """Load, expecting a failure that leaves nothing behind."""
    peer = OpenPeer(kept)
    with pytest.raises(Failure) as caught:
        load.run(job)
    peer.close()
    assert not peer.done.is_set()
    assert server.scalar(LOGINS) == 0
    side = names.side_database(job.target_database, job.uid)
    assert server.sql(f"SELECT FROM pg_database WHERE datname = '{side}'") == []
    return caught.value


def test_a_replace_keeps_the_old_database_and_what_a_rename_would_lose(
    server: Server, new_database: Make
) -> None:
    """Owner, ACL, settings of database and role, comment and limit are those of the live database."""
    name = new_database(USERS)
    kept = dumped(server, name)
    server.sql("CREATE ROLE guest")
    server.sql(
        f"""ALTER DATABASE {name} SET search_path = "$user", "odd ""name", public;
        ALTER DATABASE {name} SET work_mem = '7MB'; ALTER ROLE tenant IN DATABASE {name} SET statement_timeout = '1h';
        COMMENT ON DATABASE {name} IS 'it''s live'; ALTER DATABASE {name} CONNECTION LIMIT 17;
        REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO guest WITH GRANT OPTION"""
    )
    query = """SELECT r.rolname, datacl::text[], datconnlimit, shobj_description(d.oid, 'pg_database'), encoding, datcollate,
               ARRAY(SELECT (s.setrole, s.setconfig)::text FROM pg_db_role_setting s WHERE setdatabase = d.oid ORDER BY 1)
               FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = '{}'"""
    before = server.sql(query.format(name))
    server.sql("DELETE FROM users", name)
    facts = loaded(kept, restore(server, name, name))
    after = server.sql(query.format(name))
    assert sorted(map(str, before[0][1])) == sorted(map(str, after[0][1]))  # type: ignore[call-overload]
    assert (before[0][0], before[0][2:]) == (after[0][0], after[0][2:])
    assert (server.scalar("SELECT count(*) FROM users", name), facts["restored"]["rows"]) == (100, 100)
    assert server.scalar("SELECT count(*) FROM users", facts["previousDatabase"]) == 0
    assert server.scalar(LOGINS) == 0
    server.drop(*databases(server, name))
    server.sql("DROP ROLE guest")


def test_a_database_owned_by_an_administrator_gets_its_owner_back(server: Server, new_database: Make) -> None:
    """Loaded with the tenant's rights, owned as before."""
    name = new_database()
    server.sql(f"ALTER DATABASE {name} OWNER TO postgres; GRANT ALL ON DATABASE {name} TO tenant")
    server.sql(f"GRANT ALL ON SCHEMA public TO tenant; SET ROLE tenant; {USERS}", name)
    loaded(dumped(server, name), restore(server, name, name))
    owner = f"SELECT datdba::regrole::text FROM pg_database WHERE datname = '{name}'"
    assert server.scalar(owner) == "postgres"
    assert server.scalar("SELECT tableowner FROM pg_tables WHERE tablename = 'users'", name) == "tenant"


def test_no_ordinary_owner_is_a_clear_refusal(server: Server, new_database: Make, pod: Path) -> None:
    """What a tenant wrote never runs with administrator rights, so there must be somebody else to run it."""
    name = new_database(USERS)
    kept = dumped(server, name)
    server.sql(f"ALTER DATABASE {name} OWNER TO postgres")
    write_secrets(pod / "secrets", database=("postgres", PASSWORDS["postgres"]))
    failure = failed(kept, restore(server, name, name), server)
    assert failure.reason is Reason.PERMISSION_DENIED


@pytest.mark.parametrize(
    "grant", ["pg_execute_server_program", "pg_write_server_files", "app_admin", "postgres"]
)
def test_an_owner_who_can_become_an_administrator_is_not_used(
    server: Server, new_database: Make, grant: str
) -> None:
    """SET ROLE would be all it takes."""
    name = new_database(USERS)
    kept = dumped(server, name)
    server.sql(f"GRANT {grant} TO tenant")
    try:
        failure = failed(kept, restore(server, name, name), server)
    finally:
        server.sql(f"REVOKE {grant} FROM tenant")
    assert failure.reason is Reason.PERMISSION_DENIED


EVIL = {
    "program": "COPY (SELECT 1) TO PROGRAM 'touch {file}'",
    "file": "COPY (SELECT 1) TO '{file}'",
    "grant": "GRANT pg_execute_server_program TO tenant",
    "superuser": "ALTER ROLE tenant SUPERUSER",
    "reset": "RESET ROLE; SET ROLE NONE; ALTER ROLE tenant SUPERUSER",
    "session": "SET SESSION AUTHORIZATION postgres",
}


@pytest.mark.parametrize("kind", list(EVIL))
def test_what_a_tenant_wrote_never_runs_with_administrator_rights(
    server: Server, new_database: Make, tmp_path: Path, kind: str
) -> None:
    """An index expression that asks for more is refused by the server, and the old database stays."""
    file = server.folder / f"evil-{kind}"
    command = EVIL[kind].format(file=file).replace("'", "''")
    name = new_database(
        f"""CREATE FUNCTION f(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN IF current_setting('application_name') <> 'made' THEN EXECUTE '{command}'; END IF; RETURN i; END $$;
        SET application_name = 'made'; CREATE TABLE t (a int); CREATE INDEX ON t (f(a)); INSERT INTO t VALUES (1), (2)"""
    )
    kept = dumped(server, name)
    failure = failed(kept, restore(server, name, name), server)
    assert failure.reason in (Reason.PERMISSION_DENIED, Reason.LOAD_FAILED)
    assert not file.exists()
    assert server.sql(
        "SELECT rolsuper, pg_has_role(oid, 'pg_execute_server_program', 'MEMBER') FROM pg_roles WHERE rolname = 'tenant'"
    ) == [(False, False)]
    assert (databases(server, name), server.scalar("SELECT count(*) FROM t", name)) == ([name], 2)


def test_what_only_administrators_may_create_is_listed_and_left_out(
    server: Server, new_database: Make
) -> None:
    """Event triggers, untrusted extensions with what depends on them, native functions, foreign servers."""
    name = new_database("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    server.sql(
        """CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw;
        CREATE FOREIGN TABLE far (a int) SERVER s; CREATE VIEW near AS SELECT * FROM far;
        CREATE FUNCTION fire() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END';
        CREATE FUNCTION native(text) RETURNS int STRICT LANGUAGE internal AS 'textlen';
        CREATE PUBLICATION everything FOR ALL TABLES;
        CREATE EVENT TRIGGER evil ON ddl_command_end EXECUTE FUNCTION fire();
        ALTER EVENT TRIGGER evil DISABLE; GRANT SELECT ON far TO tenant""",
        name,
    )
    facts = loaded(dumped(server, name), restore(server, name, f"{name}_copy"))
    told = "\n".join(facts["skipped"])
    for part in (
        "EVENT TRIGGER",
        "EXTENSION - postgres_fdw",
        "FOREIGN TABLE public far",
        "near",
        "native",
        "everything",
    ):
        assert part in told
    assert server.scalar("SELECT count(*) FROM t", f"{name}_copy") == 1


def test_a_table_with_rows_is_never_left_out(server: Server, new_database: Make) -> None:
    """A column of a type that only an administrator can bring back is a failure, not a line in a list."""
    name = new_database()
    server.sql(
        "CREATE EXTENSION ltree SCHEMA public; UPDATE pg_extension SET extname = 'lost' WHERE extname = 'ltree'",
        name,
    )
    server.sql(
        "CREATE TABLE t (a public.ltree); INSERT INTO t VALUES ('a.b'); ALTER TABLE t OWNER TO tenant", name
    )
    failure = failed(dumped(server, name), restore(server, name, name), server)
    assert failure.reason is Reason.PERMISSION_DENIED
    assert "public t" in failure.message


def test_excluded_columns_follow_their_rules(server: Server, new_database: Make) -> None:
    """KeepLive by primary key with a value for the others, Null, Default, Value; then everything is as declared."""
    name = new_database(
        """CREATE TABLE users (id int, org int, keep text NOT NULL DEFAULT 'd', none text, dflt text DEFAULT 'd' NOT NULL,
        val int NOT NULL, made text GENERATED ALWAYS AS (keep || '!') STORED, PRIMARY KEY (id, org));
        INSERT INTO users SELECT i, 1, 'old' || i, 'x', 'y', 7 FROM generate_series(1, 10) i"""
    )
    rules = [
        ("keep", "KeepLive", "!"),
        ("none", "Null", None),
        ("dflt", "Default", None),
        ("val", "Value", "42"),
    ]
    columns = [jobs.Column("public.users", column, rule, value) for column, rule, value in rules]  # type: ignore[arg-type]
    kept = dumped(server, name, exclude_columns=columns)
    server.sql("UPDATE users SET keep = 'new' || id; DELETE FROM users WHERE id > 8", name)
    before = server.pg_dump(name, "--schema-only")
    facts = loaded(kept, restore(server, name, name, exclude_columns=columns))
    assert facts["keepLive"] == {"kept": 8, "withoutMatch": 2}
    expected = [
        (i, f"new{i}" if i < 9 else "!", None, "d", 42, f"new{i}!" if i < 9 else "!!") for i in range(1, 11)
    ]
    assert expected == server.sql("SELECT id, keep, none, dflt, val, made FROM users ORDER BY 1", name)
    assert before == server.pg_dump(name, "--schema-only")


def test_a_row_without_a_live_value_comes_back_and_is_told(server: Server, new_database: Make) -> None:
    """The Tenant has no value to give any more: NOT NULL stays off rather than losing the row."""
    name = new_database(USERS)
    column = jobs.Column("public.users", "password")
    kept = dumped(server, name, exclude_columns=[replace(column, value="!")])
    server.sql("DELETE FROM users WHERE id = 5", name)
    facts = loaded(kept, restore(server, name, name, exclude_columns=[column]))
    assert facts["keepLive"] == {"kept": 99, "withoutMatch": 1}
    assert any("NOT NULL" in text for text in facts["skipped"])
    assert server.sql("SELECT id, password FROM users WHERE password IS NULL", name) == [(5, None)]


def test_excluded_columns_of_partitions_are_filled_too(server: Server, new_database: Make) -> None:
    """The rule names the parent, the rows are below it."""
    name = new_database(
        """CREATE TABLE p (id int PRIMARY KEY, s text NOT NULL) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p DEFAULT;
        INSERT INTO p SELECT i, 'old' || i FROM generate_series(1, 20) i"""
    )
    column = jobs.Column("public.p", "s", "KeepLive", "!")
    kept = dumped(server, name, exclude_columns=[column])
    before = server.pg_dump(name, "--schema-only")
    facts = loaded(kept, restore(server, name, name, exclude_columns=[column]))
    assert facts["keepLive"] == {"kept": 20, "withoutMatch": 0}
    assert before == server.pg_dump(name, "--schema-only")
    assert server.scalar("SELECT count(*) FROM p WHERE s = 'old' || id", name) == 20


def test_a_lost_database_is_restored_without_it(server: Server, new_database: Make) -> None:
    """KeepLive has nothing to keep; Replace is a rename; settings come from the backup."""
    name = new_database(USERS)
    server.sql(f"ALTER DATABASE {name} SET work_mem = '9MB'; COMMENT ON DATABASE {name} IS 'mine'")
    column = jobs.Column("public.users", "password", "KeepLive", "!")
    kept = dumped(server, name, exclude_columns=[column])
    server.drop(name)
    job = restore(server, name, name, exclude_columns=[column])
    facts = loaded(kept, job)
    assert (facts["previousDatabase"], facts["keepLive"]) == (None, {"kept": 0, "withoutMatch": 100})
    assert server.scalar("SHOW work_mem", name) == "9MB"
    assert server.scalar("SELECT count(*) FROM users WHERE password = '!'", name) == 100
    assert loaded(kept, job)["restored"]["rows"] == 100  # the same restore again answers, and builds nothing
    assert databases(server, name) == [name]
    again = dumped(server, name, exclude_columns=[column])
    assert again.catalogue["database"]["comment"] == "mine"


def test_rows_that_refer_to_rows_left_out_keep_their_key_unvalidated(
    server: Server, new_database: Make
) -> None:
    """A foreign key to an excluded table cannot hold for old rows; it still guards new ones."""
    name = new_database(
        """CREATE TABLE s (id int PRIMARY KEY); CREATE TABLE t (id int REFERENCES s);
        INSERT INTO s VALUES (1); INSERT INTO t VALUES (1)"""
    )
    facts = loaded(dumped(server, name, exclude_tables=["public.s"]), restore(server, name, name))
    assert any("t_id_fkey is NOT VALID" in text for text in facts["skipped"])
    assert server.sql("SELECT convalidated FROM pg_constraint WHERE contype = 'f'", name) == [(False,)]


def test_such_a_key_is_found_whatever_the_encoding_of_its_name(server: Server, new_database: Make) -> None:
    """pg_restore lists names in the backup's encoding."""
    name = new_database(
        """SET client_encoding = 'UTF8'; CREATE TABLE "straße" (id int PRIMARY KEY);
        CREATE TABLE "tür" (id int REFERENCES "straße"); GRANT SELECT ON "tür" TO "tenant";
        INSERT INTO "straße" VALUES (1); INSERT INTO "tür" VALUES (1)""",
        options="ENCODING 'LATIN1' LOCALE 'C'",
    )
    facts = loaded(dumped(server, name, exclude_tables=["public.straße"]), restore(server, name, name))
    assert any("tür_id_fkey is NOT VALID" in text for text in facts["skipped"])
    assert server.sql("SELECT convalidated FROM pg_constraint WHERE contype = 'f'", name) == [(False,)]


def test_a_name_that_is_taken_is_refused_and_our_own_is_not(server: Server, new_database: Make) -> None:
    """The same restore again finds its own work; another restore finds a stranger's."""
    name = new_database(USERS)
    kept = dumped(server, name)
    copy = f"{name}_copy"
    first = loaded(kept, restore(server, name, copy))
    assert first["restored"]["rows"] == loaded(kept, restore(server, name, copy))["restored"]["rows"]
    assert failed(kept, restore(server, name, copy, uid="other"), server).reason is Reason.NAME_TAKEN
    assert failed(kept, restore(server, name, "postgres", uid="other"), server).reason is Reason.NAME_TAKEN


def test_replace_from_a_partial_backup_is_refused(server: Server, new_database: Make) -> None:
    """Rows of the other modules would be gone."""
    name = new_database(USERS)
    modules = [jobs.Module("m", ["public.users"])]
    kept = dumped(server, name, modules=modules, only_modules=["m"])
    assert failed(kept, restore(server, name, name), server).reason is Reason.PARTIAL_BACKUP
    loaded(kept, restore(server, name, f"{name}_copy"))


def test_missing_administrator_credentials_are_named(server: Server, new_database: Make, pod: Path) -> None:
    """The Secret, and the field that names it."""
    for file in (pod / "secrets/admin").iterdir():
        file.unlink()
    failure = failed(Kept(), restore(server, "x", "x"), server)
    assert (failure.reason, "pg-admin" in failure.message) == (Reason.SECRET_NOT_FOUND, True)


@pytest.mark.parametrize("damage", ["row lost", "rows claimed", "table short"])
def test_one_row_too_few_and_nothing_is_put_in_place(server: Server, new_database: Make, damage: str) -> None:
    """Rows are compared per segment and per table; the old database is untouched."""
    name = new_database(USERS)
    kept = dumped(server, name)
    segment = kept.catalogue["tables"][0]["segments"][0]
    if damage == "row lost":
        kept.segments[segment] = [b"".join(kept.segments[segment]).split(b"\n", 1)[1]]
    elif damage == "rows claimed":
        kept.rows[segment] = 101
    else:
        kept.catalogue["tables"][0]["rows"] = 101
    failure = failed(kept, restore(server, name, name), server)
    assert (failure.reason, databases(server, name)) == (Reason.ROWS_DIFFER, [name])


def test_a_segment_without_its_verdict_is_never_committed(server: Server, new_database: Make) -> None:
    """`open` dies after the last block and before it says that all of them were whole."""
    name = new_database(USERS)
    kept = dumped(server, name)

    def die(segment: str) -> None:
        if segment != "schema":
            raise OSError("died")

    peer = OpenPeer(kept, on_segment=die)
    with pytest.raises(Failure) as caught:
        load.run(restore(server, name, name))
    peer.close()
    assert (caught.value.reason, databases(server, name)) == (Reason.PEER_FAILED, [name])


def test_an_application_that_keeps_coming_back_does_not_stop_the_swap(
    server: Server, new_database: Make
) -> None:
    """Sessions are ended until the rename has its lock; the application sees the old or the new database, never none."""
    name = new_database(USERS)
    kept = dumped(server, name)
    stop = threading.Event()
    seen: set[object] = set()

    def hammer() -> None:
        while not stop.is_set():
            try:
                seen.add(server.scalar("SELECT count(*) FROM users WHERE pg_sleep(0.01) IS NOT NULL", name))
            except Exception as error:
                seen.add(getattr(error, "sqlstate", None) or str(error)[-60:])

    server.sql("DELETE FROM users WHERE id > 10", name)
    threads = [threading.Thread(target=hammer) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        loaded(kept, restore(server, name, name))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {value for value in seen if isinstance(value, int)} <= {10, 100}
    assert server.scalar("SELECT count(*) FROM users", name) == 100


def test_a_replication_slot_that_stays_behind_is_told(server: Server, new_database: Make) -> None:
    """A logical slot is bound to the database, not to its name."""
    name = new_database(USERS)
    slot = f"SELECT pg_create_logical_replication_slot('s_{name}', 'test_decoding')"
    kept = dumped(server, name)
    server.sql(slot, name)
    facts = loaded(kept, restore(server, name, name))
    assert any(f"s_{name}" in text for text in facts["skipped"])
    server.sql(f"SELECT pg_drop_replication_slot('s_{name}')", facts["previousDatabase"])


def test_an_administrator_without_superuser_is_enough(server: Server, new_database: Make, pod: Path) -> None:
    """CREATEDB and CREATEROLE, as managed services give; newer versions are in test_versions."""
    name = new_database(USERS)
    kept = dumped(server, name)
    write_secrets(pod / "secrets", admin=("app_admin", PASSWORDS["app_admin"]))
    members = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'app_admin'::regrole"
    before = server.sql(members)
    facts = loaded(kept, restore(server, name, name))
    assert (facts["restored"]["rows"], server.scalar(LOGINS)) == (100, 0)
    assert before == server.sql(members)  # what it lent itself is given back
    server.sql("REVOKE tenant FROM app_admin")


# The statement, and which time it is begun: DROP ROLE comes first when leftovers are cleared, last after the swap.
STEPS = [
    ("CREATE DATABASE", 1),
    ("CREATE ROLE", 1),
    ("CREATE TABLE", 1),
    ("COPY", 1),
    ("ADD CONSTRAINT", 1),
    ("REASSIGN OWNED", 1),
    ("RENAME TO", 1),
    ("DROP ROLE", 1),
    ("DROP ROLE", 2),
]


@pytest.mark.parametrize("strategy", ["Replace", "NewDatabase"])
@pytest.mark.parametrize("step", STEPS)
def test_a_load_killed_at_any_point_converges_when_it_runs_again(
    server: Server, new_database: Make, pod: Path, strategy: str, step: tuple[str, int]
) -> None:
    """SIGKILL when the server has begun a certain statement: the old database is whole, the next run finishes."""
    name = new_database(USERS)
    target = name if strategy == "Replace" else f"{name}_copy"
    kept = dumped(server, name)
    server.sql("DELETE FROM users WHERE id > 60", name)
    job = restore(server, name, target)
    peer = OpenPeer(kept)
    with server.watched(*step) as reached:
        stage = start("load", job, pod)
        assert reached.wait(60)
        stage.send_signal(signal.SIGKILL)
        stage.wait()
    assert server.scalar("SELECT count(*) FROM users", name) in (60, 100)
    facts = finished(start("load", job, pod))
    peer.close()
    assert server.scalar("SELECT count(*) FROM users", target) == 100
    assert facts == 0
    assert server.scalar(LOGINS) == 0
    extra = {target, name} | ({names.previous_database(name, "uid-r")} if strategy == "Replace" else set())
    assert set(databases(server, name)) == extra


def finished(stage: subprocess.Popen[bytes]) -> int:
    """Wait for a stage; return its exit code."""
    _, errors = stage.communicate(timeout=60)
    assert stage.returncode == 0, errors.decode()
    return int(stage.returncode)


def test_a_stop_order_while_it_clears_away_does_not_end_the_clearing(
    server: Server, new_database: Make, pod: Path
) -> None:
    """All containers are told at once: `open` obeys first, and the end of `open` is told before the order."""
    name = new_database(USERS)
    dropping = """SELECT max(query_start) FROM pg_stat_activity
                  WHERE query LIKE 'DROP DATABASE%' AND wait_event_type = 'Lock'"""
    with server.connect("postgres") as blocker:

        def die(segment: str) -> None:
            if segment != "schema":
                blocker.execute("BEGIN; LOCK TABLE pg_catalog.pg_database IN SHARE MODE")
                raise wire.peer_failed("open")

        peer = OpenPeer(dumped(server, name), on_segment=die)
        stage = start("load", restore(server, name, f"{name}_copy"), pod)
        while not (first := server.scalar(dropping)):
            assert stage.poll() is None
        stage.send_signal(signal.SIGTERM)
        while server.scalar(dropping) in {first, None} and stage.poll() is None:
            pass
        blocker.execute("ROLLBACK")
    stage.communicate(timeout=60)
    peer.close()
    assert (databases(server, name), server.scalar(LOGINS)) == ([name], 0)


def test_a_zombie_of_an_earlier_attempt_loses_its_right_to_rename(
    server: Server, new_database: Make, pod: Path
) -> None:
    """The first pod hangs in the middle; the second finishes; the first can do nothing any more."""
    name = new_database(USERS)
    kept = dumped(server, name)
    held, go = threading.Event(), threading.Event()

    def hang(segment: str) -> None:
        if segment != "schema" and not held.is_set():
            held.set()
            go.wait(60)

    peer = OpenPeer(kept, on_segment=hang)
    zombie = start("load", restore(server, name, name), pod)
    assert held.wait(60)
    finished(start("load", restore(server, name, name), pod))
    go.set()
    zombie.communicate(timeout=60)
    peer.close()
    assert zombie.returncode in (ExitCode.RETRIABLE, ExitCode.PERMANENT)
    assert server.scalar("SELECT count(*) FROM users", name) == 100
    assert databases(server, name) == [name, names.previous_database(name, "uid-r")]
    assert server.scalar(LOGINS) == 0


def test_another_tenants_backup_never_chooses_the_owner(server: Server, new_database: Make) -> None:
    """The recorded owner is a role of the source; at the target it is nobody's word."""
    name = new_database(USERS)
    kept = dumped(server, name)
    server.sql("CREATE ROLE stranger")
    kept.catalogue["database"]["owner"] = "stranger"
    server.drop(name)
    other: Any = jobs.Tenant("cluster-1", "default", "other", "other")
    loaded(kept, restore(server, name, name, source=other))
    assert (
        server.scalar(f"SELECT datdba::regrole::text FROM pg_database WHERE datname = '{name}'") == "tenant"
    )
    server.sql("DROP ROLE stranger")

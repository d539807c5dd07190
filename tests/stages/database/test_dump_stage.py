"""The stage dump against a real server: what it refuses, what never leaves, and how it ends when others die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.engines.postgresql import clients, endpoint, snapshot
from tenant_backup.engines.postgresql.endpoint import Connection
from tenant_backup.stages import dump
from tests.engines.peer import ArchivePeer
from tests.engines.server import PASSWORDS, Server
from tests.stages.database.jobs import backup, dumped, start

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
USERS = """CREATE TABLE users (id int PRIMARY KEY, name text, password text);
           INSERT INTO users SELECT i, 'n' || i, 'SECRET' || i FROM generate_series(1, 1000) i"""
BIG = """CREATE TABLE big AS SELECT i AS id, repeat(md5(i::text), 8) AS t FROM generate_series(1, {}) i"""


def refused(server: Server, name: str, **changes: object) -> Failure:
    """Dump, expecting a refusal before a byte is sent."""
    peer = ArchivePeer()
    with pytest.raises(Failure) as caught:
        dump.run(backup(server, name, **changes))
    peer.die()
    assert (peer.kept.segments, peer.kept.size) == ({}, 0)
    return caught.value


def test_a_value_of_an_excluded_column_is_in_no_byte_that_leaves(server: Server, new_database: Make) -> None:
    """Not in rows, not in the schema, not in the catalogue; nor for the partitions below an excluded column."""
    name = new_database(
        f"""{USERS}; CREATE TABLE p (id int, token text) PARTITION BY LIST (id);
        CREATE TABLE p1 PARTITION OF p DEFAULT; INSERT INTO p SELECT i, 'SECRET' || i FROM generate_series(1, 9) i;
        CREATE TABLE parent (id int, token text); CREATE TABLE child () INHERITS (parent);
        INSERT INTO child VALUES (1, 'SECRET'); ANALYZE"""
    )
    columns = [
        jobs.Column("public.users", "password"),
        jobs.Column("public.p", "token", "Null"),
        jobs.Column("public.parent", "token", "Null"),
    ]
    kept = dumped(server, name, exclude_columns=columns)
    assert b"n1000\n" in kept.everything()
    assert b"SECRET" not in kept.everything() + str(kept.catalogue).encode()
    assert sum(table["rows"] for table in kept.catalogue["tables"]) == 1010


def test_an_excluded_table_keeps_its_structure_and_loses_its_rows(server: Server, new_database: Make) -> None:
    """Structure is always complete."""
    name = new_database(USERS)
    kept = dumped(server, name, exclude_tables=["public.users"])
    assert (list(kept.segments), kept.catalogue["tables"][0]["rows"]) == (["schema"], 0)


def test_modules_choose_rows_by_name_and_pattern(server: Server, new_database: Make) -> None:
    """public.hr_* stands for what it matches; a partitioned table stands for its partitions."""
    name = new_database(
        """CREATE TABLE hr_a AS SELECT 1 AS x; CREATE TABLE hr_b AS SELECT 2 AS x; CREATE TABLE other AS SELECT 3 AS x;
        CREATE TABLE p (x int) PARTITION BY LIST (x); CREATE TABLE q PARTITION OF p DEFAULT; INSERT INTO p VALUES (4)"""
    )
    modules = [jobs.Module("hr", ["public.hr_*", "public.p"]), jobs.Module("rest", ["public.other"])]
    kept = dumped(server, name, modules=modules, only_modules=["hr"])
    assert {table["name"]: table["rows"] for table in kept.catalogue["tables"]} == {
        "public.hr_a": 1,
        "public.hr_b": 1,
        "public.other": 0,
        "public.q": 1,
    }
    assert (kept.catalogue["partial"], kept.catalogue["modules"]) == (True, ["hr"])


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"modules": [jobs.Module("hr", ["public.nobody"])]}, Reason.TABLE_NOT_FOUND, "public.nobody"),
        ({"exclude_tables": ["public.nobody"]}, Reason.TABLE_NOT_FOUND, "public.nobody"),
        ({"exclude_columns": [jobs.Column("public.nobody", "x")]}, Reason.TABLE_NOT_FOUND, "public.nobody"),
        ({"exclude_columns": [jobs.Column("public.users", "pasword")]}, Reason.COLUMN_NOT_FOUND, "pasword"),
        ({"exclude_columns": [jobs.Column("public.users", "id")]}, Reason.INVALID_SPEC, "primary key"),
        ({"only_modules": ["nobody"]}, Reason.INVALID_SPEC, "nobody"),
    ],
)
def test_a_name_that_matches_nothing_ends_the_backup_before_a_row_is_read(
    server: Server, new_database: Make, changes: dict[str, object], reason: Reason, words: str
) -> None:
    """A typing error must not put a password into a backup."""
    failure = refused(server, new_database(USERS), **changes)
    assert (failure.reason, failure.exit_code) == (reason, ExitCode.PERMANENT)
    assert words in failure.message


def test_a_table_that_may_not_be_read_is_named_with_its_grant(server: Server, new_database: Make) -> None:
    """Running the printed statements is all it takes."""
    name = new_database(USERS)
    server.sql('CREATE SCHEMA "S"; CREATE TABLE "S".t (a int); CREATE SEQUENCE "S".s', name)
    failure = refused(server, name)
    assert failure.reason is Reason.PERMISSION_DENIED
    server.sql(failure.message.partition("run: ")[2], name)
    dumped(server, name)


def test_rows_that_a_policy_would_hide_are_never_left_out_in_silence(
    server: Server, new_database: Make
) -> None:
    """Row-level security is an error, with the statement that heals it."""
    name = new_database()
    server.sql(
        "CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO tenant", name
    )
    failure = refused(server, name)
    assert failure.reason is Reason.PERMISSION_DENIED
    assert 'ALTER ROLE "tenant" BYPASSRLS' in failure.message


def test_wrong_credentials_and_addresses_have_their_own_reasons(
    server: Server, new_database: Make, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reason each, permanent, with the server's own line and no password."""
    monkeypatch.setattr(endpoint, "PATIENCE", 0.5)
    monkeypatch.setattr(endpoint.Endpoint.connect, "__defaults__", (None, 0.5))
    name = new_database()
    database = server.database(name)
    found = {
        "db": refused(server, "nobody"),
        "port": refused(server, name, database=jobs.Database("PostgreSQL", "127.0.0.1", 1, name)),
        "host": refused(server, name, database=jobs.Database("PostgreSQL", "nowhere.invalid", 5432, name)),
    }
    (pod / "secrets/database/password").write_text("wrong-secret\n")
    found["password"] = refused(server, name)
    (pod / "secrets/database/password").unlink()
    found["key"] = refused(server, name)
    (pod / "secrets/database/username").unlink()
    found["secret"] = refused(server, name)
    assert {key: failure.reason for key, failure in found.items()} == {
        "db": Reason.DATABASE_NOT_FOUND,
        "port": Reason.DATABASE_UNREACHABLE,
        "host": Reason.DATABASE_UNREACHABLE,
        "password": Reason.AUTHENTICATION_FAILED,
        "key": Reason.KEY_MISSING,
        "secret": Reason.SECRET_NOT_FOUND,
    }
    assert {ExitCode.PERMANENT} == {failure.exit_code for failure in found.values()}
    assert database.secret in found["secret"].message and "password" in found["key"].message
    assert not any("wrong-secret" in failure.message for failure in found.values())


def test_a_server_newer_than_every_client_is_refused(
    server: Server, new_database: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old pg_dump would leave out what it does not know."""
    (tmp_path / "14" / "bin").mkdir(parents=True)
    (tmp_path / "14" / "bin" / "pg_dump").touch()
    monkeypatch.setattr(clients.program, "__defaults__", (tmp_path,))
    assert refused(server, new_database()).reason is Reason.CLIENT_TOO_OLD


def test_everything_in_a_backup_is_of_one_moment(server: Server, new_database: Make) -> None:
    """Two tables that change only together never differ in a backup, however busy the server is."""
    name = new_database(
        """CREATE TABLE a (n bigint); CREATE TABLE b (n bigint); INSERT INTO a VALUES (0); INSERT INTO b VALUES (0);
        CREATE TABLE filler AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 20000)"""
    )
    stop = threading.Event()

    def write() -> None:
        with server.connect(name) as connection:
            while not stop.is_set():
                connection.execute("BEGIN; UPDATE a SET n = n + 1; UPDATE b SET n = n + 1; COMMIT")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        backups = [dumped(server, name) for _ in range(3)]
    finally:
        stop.set()
        thread.join()
    values = []
    for kept in backups:
        one, two = (kept.segments[t["segments"][0]] for t in kept.catalogue["tables"][:2])
        assert one == two
        values.append(b"".join(one))
    assert len(set(values)) == 3  # it really was busy


def test_a_table_cannot_be_truncated_between_lock_and_snapshot(
    server: Server, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the snapshot first, the table would be in the backup as empty."""
    name = new_database(USERS)
    export = snapshot._export
    seen: list[str | None] = []

    def truncate_first(leader: Connection) -> tuple[str, object]:
        with server.connect(name) as other, pytest.raises(psycopg.errors.LockNotAvailable) as caught:
            other.execute("SET lock_timeout = '300ms'; TRUNCATE users")
        seen.append(caught.value.sqlstate)
        return export(leader)

    monkeypatch.setattr(snapshot, "_export", truncate_first)
    assert dumped(server, name).catalogue["tables"][0]["rows"] == 1000
    assert seen == ["55P03"]


def test_a_table_made_while_we_lock_starts_the_locking_again(
    server: Server, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pg_dump will see and what was locked are the same list."""
    name = new_database(USERS)
    take_locks = snapshot.lock
    calls: list[int] = []

    def make_table(leader: Connection, tables: list[snapshot.Table]) -> None:
        if not calls:
            server.sql("SET ROLE tenant; CREATE TABLE late AS SELECT 1 AS a; DROP TABLE users", name)
        calls.append(len(tables))
        take_locks(leader, tables)

    monkeypatch.setattr(snapshot, "lock", make_table)
    assert [table["name"] for table in dumped(server, name).catalogue["tables"]] == ["public.late"]
    assert calls == [1, 1]


def test_a_migration_that_holds_a_table_is_waited_for_by_the_next_attempt(
    server: Server, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that does not come ends this attempt only."""
    monkeypatch.setattr(snapshot, "_LOCK_WAIT", "300ms")
    name = new_database(USERS)
    with server.connect(name) as other:
        other.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        failure = refused(server, name)
    assert (failure.reason, failure.exit_code) == (Reason.DUMP_FAILED, ExitCode.RETRIABLE)


def psql_children() -> list[int]:
    """The psql processes this process has started."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        check=True,
        text=True,
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "/psql" in line]


@pytest.mark.parametrize(
    ("kill", "reason", "code"),
    [
        ("psql", Reason.DUMP_FAILED, ExitCode.RETRIABLE),
        ("session", Reason.DATABASE_UNREACHABLE, ExitCode.RETRIABLE),
        ("archive", Reason.PEER_FAILED, ExitCode.PEER_FAILED),
        ("drop", Reason.DATABASE_UNREACHABLE, ExitCode.RETRIABLE),
    ],
)
def test_a_dump_that_ends_early_is_never_a_backup(
    server: Server, new_database: Make, kill: str, reason: Reason, code: ExitCode
) -> None:
    """Whoever dies in mid-COPY: no catalogue is sent, and every child is gone."""
    name = new_database(BIG.format(200_000))
    peer: ArchivePeer
    once = threading.Lock()

    def interfere(segment: str, _size: int) -> None:
        if segment == "schema" or not once.acquire(blocking=False):
            return
        if kill == "psql":
            for pid in psql_children():
                os.kill(pid, signal.SIGKILL)
        elif kill == "session":
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^COPY|^copy'")
        elif kill == "drop":
            server.drop(name)
        else:
            peer.die()

    peer = ArchivePeer(on_block=interfere)
    with pytest.raises(Failure) as caught:
        dump.run(backup(server, name))
    peer.die()
    seen = (caught.value.reason, caught.value.exit_code)
    # A client that connects only after the drop finds no database, and may be the first to say so.
    late = {(Reason.DATABASE_NOT_FOUND, ExitCode.PERMANENT)} if kill == "drop" else set()
    assert seen in {(reason, code), *late}
    assert (peer.kept.catalogue, peer.kept.complete, psql_children()) == ({}, False, [])


def test_the_server_may_die_in_the_middle(new_database: Make, pod: Path) -> None:
    """A lost server is retriable: it may come back."""
    server = Server()
    server.create()
    try:
        server.sql("CREATE DATABASE acme OWNER tenant")
        server.sql(f"SET ROLE tenant; {BIG.format(200_000)}", "acme")
        peer = ArchivePeer(
            on_block=lambda segment, _: segment != "schema" and server.alive() and server.kill()
        )
        with pytest.raises(Failure) as caught:
            dump.run(backup(server, "acme"))
        peer.die()
        assert (caught.value.reason, caught.value.exit_code) == (
            Reason.DATABASE_UNREACHABLE,
            ExitCode.RETRIABLE,
        )
    finally:
        server.start()
        server.remove()


def test_an_archive_that_dies_before_it_answers_ends_the_dump(server: Server, new_database: Make) -> None:
    """All rows are sent, but nobody said that they are committed."""
    peer = ArchivePeer()
    peer.answer = False
    with pytest.raises(Failure) as caught:
        dump.run(backup(server, new_database(USERS)))
    peer.die()
    assert caught.value.reason is Reason.PEER_FAILED


def test_a_committed_backup_is_not_dumped_again(server: Server, pod: Path) -> None:
    """An earlier attempt got as far as the manifest."""
    (paths.RUN / paths.PREPARED).write_text('{"backupId": "x", "keys": [], "committed": {"rows": 1}}')
    assert dump.run(backup(server, "nobody")) == {}


def test_passwords_are_in_no_argument_and_no_environment(
    server: Server, new_database: Make, pod: Path
) -> None:
    """Neither of the stage nor of its children; the passfile is closed to others."""
    name = new_database(BIG.format(200_000))
    seen: list[bytes] = []
    held = threading.Event()

    def look(segment: str, _size: int) -> None:
        if segment != "schema" and not held.is_set():
            held.set()
            children = [str(pid) for pid in psql_children()]
            seen.extend(
                Path("/proc", pid, part).read_bytes() for pid in children for part in ("cmdline", "environ")
            )

    peer = ArchivePeer(on_block=look)
    dump.run(backup(server, name))
    peer.die()
    assert seen and not any(PASSWORDS["tenant"].encode() in text for text in seen)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in paths.SCRATCH.glob("*.pgpass")}


def test_a_stage_asked_to_stop_leaves_no_child(server: Server, new_database: Make, pod: Path) -> None:
    """SIGTERM ends psql with it, and says Cancelled."""
    name = new_database(BIG.format(200_000))
    started = threading.Event()

    def slow(_segment: str, _size: int) -> None:
        started.set()
        time.sleep(0.2)

    peer = ArchivePeer(on_block=slow)
    stage = start("dump", backup(server, name), pod)
    assert started.wait(30)
    stage.send_signal(signal.SIGTERM)
    assert (stage.wait(30), b"Cancelled" in (stage.stderr.read() if stage.stderr else b"")) == (
        ExitCode.RETRIABLE,
        True,
    )
    peer.die()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'"
    give_up = time.monotonic() + 20
    while server.scalar(sessions.format(name)) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert server.scalar(sessions.format(name)) == 0


def test_memory_does_not_grow_with_the_database(server: Server, new_database: Make, pod: Path) -> None:
    """Our Python stays under 64 MiB of RSS; rows never pass through it."""
    name = new_database(BIG.format(400_000))
    peer = ArchivePeer(keep=False)
    stage = start("dump", backup(server, name), pod)
    peak = 0
    while stage.poll() is None:
        peak = max(peak, high_water(stage.pid))
        time.sleep(0.01)
    peer.die()
    assert stage.returncode == 0
    assert peer.kept.size > 100 << 20
    assert 0 < peak < 64 << 20


def high_water(pid: int) -> int:
    """A process's peak RSS in bytes, 0 once it has ended."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0

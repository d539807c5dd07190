"""Several sessions read one moment of a real MariaDB; where they cannot, one does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from MySQLdb import Error

from tenant_backup.engines.mysql import dumping, ranges, session, snapshot
from tenant_backup.engines.mysql.endpoint import Connection
from tenant_backup.engines.mysql.snapshot import Snapshot
from tests.engines.mariadb import MariaDB
from tests.engines.peer import Kept
from tests.stages.database.jobs import dumped, loaded, restore

Make = Callable[..., str]
ACCOUNTS = 3000
TOTAL = 100 * ACCOUNTS
# Money moves between tables and between far ends of one; nothing is ever lost.
BANK = f"""CREATE TABLE near (id bigint PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE far LIKE near;
INSERT INTO near SELECT seq, 100 FROM seq_1_to_{ACCOUNTS};
CREATE TABLE filler (id int PRIMARY KEY, t text);
INSERT INTO filler SELECT seq, repeat(md5(seq), 20) FROM seq_1_to_3000;
ANALYZE TABLE near, filler"""
MOVE = f"""CREATE PROCEDURE move(salt int) BEGIN DECLARE i int DEFAULT 0; WHILE i < 200 DO
  SET @id = 1 + (i * 7919 + salt) MOD {ACCOUNTS};
  START TRANSACTION;
  UPDATE near SET amount = amount - 1 WHERE id = @id;
  UPDATE near SET amount = amount + 1 WHERE id = {ACCOUNTS} + 1 - @id;
  INSERT INTO far VALUES (@id, 1) ON DUPLICATE KEY UPDATE amount = amount + 1;
  UPDATE near SET amount = amount - 1 WHERE id = @id;
  COMMIT; SET i = i + 1;
END WHILE; END"""


@pytest.fixture(autouse=True)
def sessions(pod: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let little be worth several sessions and ranges; return how many read, backup by backup."""
    monkeypatch.setattr(dumping, "_WORTH_LOCKING", 0)
    monkeypatch.setattr(ranges, "RANGE_BYTES", 64 << 10)
    monkeypatch.setitem(session._GUARDING, "lock_wait_timeout", "1")
    monkeypatch.setitem(session._GUARDING, "innodb_lock_wait_timeout", "1")
    counts: list[int] = []
    take = snapshot.take

    def counted(*arguments: object) -> Snapshot:
        held = take(*arguments)  # type: ignore[arg-type]
        counts.append(len(held.sessions))
        return held

    monkeypatch.setattr(snapshot, "take", counted)
    return counts


@contextlib.contextmanager
def busy(maria: MariaDB, name: str) -> Iterator[None]:
    """Move money all the time, from two sessions."""
    stop = threading.Event()

    def write(salt: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(Error):  # a deadlock of the two: nothing has moved
                maria.sql(f"CALL move({salt})", name, "tenant")

    threads = [threading.Thread(target=write, args=(salt,)) for salt in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def total(kept: Kept, name: str) -> tuple[int, int]:
    """(all money, what has moved to the far table) in a backup."""
    amounts = {"near": 0, "far": 0}
    for segment, table in kept.tables.items():
        place = str(table).removeprefix(f"{name}.")
        if place in amounts:
            lines = b"".join(kept.segments[segment]).splitlines()
            amounts[place] += sum(int(line.split(b"\t")[1]) for line in lines)
    return amounts["near"] + amounts["far"], amounts["far"]


def test_what_several_sessions_read_is_of_one_moment(
    maria: MariaDB, new_database: Make, sessions: list[int]
) -> None:
    """Money that moves between tables, and between ranges of one, is in a backup once."""
    name = new_database()
    maria.script(name, f"{BANK};\nDELIMITER ;;\n{MOVE};;")
    with busy(maria, name):
        backups = [dumped(maria, name) for _ in range(8)]
    assert sessions == [2] * 8
    assert {total(kept, name)[0] for kept in backups} == {TOTAL}
    assert len({total(kept, name)[1] for kept in backups}) > 4  # it really was busy
    assert {kept.catalogue["consistency"] for kept in backups} == {"Snapshot"}
    near = next(table for table in backups[0].catalogue["tables"] if table["table"] == "near")
    assert len(near["segments"]) > 1


def one_reader(maria: MariaDB, name: str, sessions: list[int]) -> None:
    """Back up; one session has read everything."""
    kept = dumped(maria, name)
    assert (sessions, kept.catalogue["consistency"]) == ([1], "Snapshot")
    assert kept.catalogue["tables"][0]["rows"] == 10


SMALL = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_10"


def test_a_change_that_is_not_committed_leaves_one_reader(
    maria: MariaDB, new_database: Make, sessions: list[int]
) -> None:
    """It could be committed between two snapshots; nobody waits for its end."""
    name = new_database(SMALL)
    other = maria._connect(name)
    other.query(b"BEGIN")
    other.query(b"INSERT INTO t VALUES (11)")
    one_reader(maria, name, sessions)
    other.close()


def test_a_prepared_transaction_that_no_session_has_leaves_one_reader(
    maria: MariaDB, new_database: Make, sessions: list[int]
) -> None:
    """Only InnoDB itself knows of its locks."""
    name = new_database(SMALL)
    other = maria._connect(name)
    for statement in ("XA START 'x'", "INSERT INTO t VALUES (11)", "XA END 'x'", "XA PREPARE 'x'"):
        other.query(statement.encode())
    other.close()
    try:
        one_reader(maria, name, sessions)
    finally:
        maria.sql("XA ROLLBACK 'x'")


def test_an_account_that_may_not_lock_reads_alone(
    maria: MariaDB, new_database: Make, sessions: list[int]
) -> None:
    """What it may read is all that a backup needs."""
    name = new_database(SMALL, rights="SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE")
    one_reader(maria, name, sessions)


def test_an_account_with_one_connection_reads_alone(
    maria: MariaDB, new_database: Make, sessions: list[int]
) -> None:
    """More are a wish, not a need."""
    name = new_database(SMALL)
    maria.sql("ALTER USER tenant@'%' WITH MAX_USER_CONNECTIONS 1")
    try:
        one_reader(maria, name, sessions)
    finally:
        maria.sql("ALTER USER tenant@'%' WITH MAX_USER_CONNECTIONS 0")


def test_a_lock_that_is_lost_before_all_have_begun_counts_for_nothing(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch, sessions: list[int]
) -> None:
    """Somebody ends the session that has it: who has begun begins again, alone."""
    name = new_database(SMALL)
    keep_still = snapshot._kept_still

    @contextlib.contextmanager
    def killed(leader: Connection, guard: Connection, tables: list[str]) -> Iterator[None]:
        with keep_still(leader, guard, tables):
            yield
            maria.sql(f"KILL {guard.scalar('SELECT CONNECTION_ID()')}")
            maria.sql("INSERT INTO t VALUES (11)", name)

    monkeypatch.setattr(snapshot, "_kept_still", killed)
    kept = dumped(maria, name)
    assert (sessions, kept.catalogue["tables"][0]["rows"]) == ([1], 11)


def test_very_many_tables_are_read_by_one(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch, sessions: list[int]
) -> None:
    """To lock them all would take as long as to read them."""
    monkeypatch.setattr(dumping, "_MOST_LOCKED", 1)
    one_reader(maria, new_database(f"{SMALL}; CREATE TABLE u (a int)"), sessions)


def test_writers_wait_no_longer_than_a_moment(
    maria: MariaDB, new_database: Make, monkeypatch: pytest.MonkeyPatch, sessions: list[int]
) -> None:
    """While rows are read everybody writes: the lock is gone by then."""
    name = new_database(SMALL)
    lock = snapshot.lock

    def write_first(connection: Connection, database: str, *tables: Any) -> None:
        maria.sql("DELETE FROM t WHERE id = 1", name)
        lock(connection, database, *tables)

    monkeypatch.setattr(snapshot, "lock", write_first)
    kept = dumped(maria, name)
    assert (sessions, kept.catalogue["tables"][0]["rows"]) == ([2], 10)


def test_ranges_of_every_kind_of_key_come_back_complete(
    maria: MariaDB, new_database: Make, sessions: list[int]
) -> None:
    """Negative and unsigned keys, gaps, the largest values, composite and descending ones.

    The first table is so much larger than the others that several sessions load it, range by range.
    """
    name = new_database(
        """CREATE TABLE minus (id bigint PRIMARY KEY, t varchar(200));
        INSERT INTO minus SELECT (CAST(seq AS signed) - 2000) * 1000003, repeat('x', 100) FROM seq_1_to_20000;
        INSERT INTO minus VALUES (-9223372036854775808, ''), (9223372036854775807, '');
        CREATE TABLE plus (id bigint unsigned PRIMARY KEY, t varchar(200));
        INSERT INTO plus SELECT seq, repeat('x', 100) FROM seq_1_to_4000;
        INSERT INTO plus VALUES (18446744073709551615, '');
        CREATE TABLE pairs (a int, b int, t varchar(200), PRIMARY KEY (a DESC, b));
        INSERT INTO pairs SELECT seq MOD 7, seq, repeat('x', 100) FROM seq_1_to_4000;
        ANALYZE TABLE minus, plus, pairs"""
    )
    kept = dumped(maria, name)
    assert sessions == [2]
    assert [len(table["segments"]) > 2 for table in kept.catalogue["tables"]] == [True] * 3
    loaded(kept, restore(maria, name, f"{name}_copy"))
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")

"""What a dump takes and a load brings back is the same database, as the server and pg_dump see it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenant_backup.contract.results import Result, encode
from tenant_backup.engines.postgresql import content, names, ranges
from tenant_backup.stages import load
from tests.engines.peer import OpenPeer
from tests.engines.server import Server
from tests.stages.database.jobs import dumped, loaded, restore

TORTURE = Path(__file__).parents[2] / "engines" / "torture.sql"
Make = Callable[..., str]
SEQUENCES = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
OBJECTS = "SELECT l.oid, md5(lo_get(l.oid)) FROM pg_largeobject_metadata l ORDER BY md5(lo_get(l.oid))"


@pytest.fixture
def torture(server: Server, new_database: Make) -> str:
    """A database with one of everything a tenant may have."""
    for role in ("reader", "leaver"):
        server.sql(f"CREATE ROLE {role}")
    name = new_database()
    server.psql(name, TORTURE)
    return name


@pytest.fixture(autouse=True)
def _roles(server: Server) -> Iterator[None]:
    """Roles that grants name do not outlive a test."""
    yield
    for database, *_ in server.sql("SELECT datname FROM pg_database WHERE datname ~ '^acme'"):
        server.drop(str(database))
    server.sql("DROP ROLE IF EXISTS reader; DROP ROLE IF EXISTS leaver")


@pytest.mark.usefixtures("pod")
def test_one_of_everything_comes_back_the_same(
    server: Server, torture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schema by pg_dump, rows by a server-side hash, sequences and large objects by value."""
    monkeypatch.setattr(ranges, "RANGE_BLOCKS", 4)
    monkeypatch.setattr(ranges, "_SMALLEST", 2)
    monkeypatch.setattr(content, "_WORTH_FREEZING", 1)
    kept = dumped(server, torture)
    facts = loaded(kept, restore(server, torture, f"{torture}_copy"))
    copy = f"{torture}_copy"
    assert server.pg_dump(torture, "--schema-only") == server.pg_dump(copy, "--schema-only")
    assert server.fingerprint(torture) == server.fingerprint(copy)
    assert server.sql(SEQUENCES, torture) == server.sql(SEQUENCES, copy)
    assert server.sql(OBJECTS, torture) == server.sql(OBJECTS, copy)
    assert len(kept.segments) > len(kept.catalogue["tables"]) + 2  # tables were cut into ranges
    assert (facts["check"], facts["skipped"]) == ({"rowsMatch": True, "constraintsValid": True}, [])
    assert len(encode(Result(True, facts))) <= 2048


@pytest.mark.usefixtures("pod")
def test_indexes_are_built_while_other_tables_are_still_loading(
    server: Server, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the long table come only when the short one has its key; the rest is built afterwards."""
    monkeypatch.setattr(content, "_WORTH_FREEZING", 1)
    name = new_database(
        "SET ROLE tenant; CREATE TABLE long AS SELECT i, md5(i::text) x FROM generate_series(1, 5000) i;"
        "ALTER TABLE long ADD PRIMARY KEY (i); CREATE INDEX ON long (x);"
        "CREATE TABLE short (i int PRIMARY KEY REFERENCES long); INSERT INTO short SELECT generate_series(1, 9)"
    )
    kept, job = dumped(server, name), restore(server, name, f"{name}_copy")
    side = names.side_database(job.target_database, job.uid)
    keys = "SELECT conname FROM pg_constraint WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace"
    (long,) = (table for table in kept.catalogue["tables"] if table["table"] == "long")
    seen: list[object] = []

    def until_the_key_is_there(segment: str) -> None:
        deadline = time.monotonic() + 30
        while segment in long["segments"] and not seen and time.monotonic() < deadline:
            seen.extend(server.sql(keys, side))

    peer = OpenPeer(kept, on_segment=until_the_key_is_there)
    load.run(job)
    peer.close()
    assert seen == [("short_pkey",)]
    assert server.pg_dump(name, "--schema-only") == server.pg_dump(f"{name}_copy", "--schema-only")
    assert server.fingerprint(name) == server.fingerprint(f"{name}_copy")


@pytest.mark.usefixtures("pod")
def test_a_missing_role_costs_its_own_grants_and_no_others(server: Server, torture: str) -> None:
    """REVOKE … FROM PUBLIC in the same entry as a GRANT to a role that left still holds; so do the other policies."""
    kept = dumped(server, torture)
    server.sql("DROP OWNED BY leaver", torture)
    server.sql("DROP ROLE leaver")
    copy = f"{torture}_copy"
    facts = loaded(kept, restore(server, torture, copy))
    skipped = [text for text in facts["skipped"] if "leaver" in text]
    assert len(skipped) == 4
    assert server.sql("SELECT policyname FROM pg_policies", copy) == [("own",)]
    assert (
        server.scalar("SELECT has_function_privilege('pg_read_all_stats', 'double(int)', 'EXECUTE')", copy)
        is False
    )
    assert server.scalar("SELECT has_table_privilege('reader', 'egg', 'SELECT')", copy) is True


@pytest.mark.parametrize(
    "setting",
    [
        "role = 'reader'",
        "search_path = pg_temp",
        "statement_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "lock_timeout = 1",
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = sql_standard",
        "TimeZone = 'Asia/Kathmandu'",
        "bytea_output = escape",
        "extra_float_digits = -15",
        "xmloption = document",
        "array_nulls = off",
        "lc_monetary = 'C.UTF-8'",
        "row_security = on",
        "client_encoding = LATIN1",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "default_tablespace = 'nowhere'",
        "enable_tidscan = off",
    ],
)
@pytest.mark.usefixtures("pod")
def test_a_setting_somebody_made_for_the_role_changes_nothing(
    server: Server, new_database: Make, setting: str
) -> None:
    """ALTER ROLE … SET is for people at a keyboard."""
    rows = """SELECT i, i / 3.0::float8 AS f, i * interval '1 mon -1 day' AS iv, timestamptz '2024-02-01' + i * interval '1 h' AS z,
              decode(md5(i::text), 'hex') AS b, ARRAY[NULL, 'NULL', E'\\\\'] AS a, (i * 1.23)::numeric::money AS m,
              '<a/><b/>'::xml AS x, 'ü\\' || i AS t FROM generate_series(1, 100) i"""
    name = new_database(f"SET client_encoding = 'UTF8'; CREATE TABLE t AS {rows}")
    server.sql(
        f"CREATE ROLE reader; ALTER ROLE tenant SET {setting}; ALTER ROLE postgres SET work_mem = '4MB'"
    )
    try:
        loaded(dumped(server, name), restore(server, name, f"{name}_copy"))
    finally:
        server.sql("ALTER ROLE tenant RESET ALL; ALTER ROLE postgres RESET ALL")
    assert server.fingerprint(name) == server.fingerprint(f"{name}_copy")


@pytest.mark.parametrize(("encoding", "locale"), [("SQL_ASCII", "C"), ("LATIN1", "C"), ("EUC_JP", "C")])
@pytest.mark.usefixtures("pod")
def test_a_database_in_another_encoding_keeps_its_bytes(
    server: Server, new_database: Make, encoding: str, locale: str
) -> None:
    """Names too: a database without an encoding has bytes for names."""
    text = {"SQL_ASCII": "b\\xff\\x80", "LATIN1": "f\\u00fcr", "EUC_JP": "\\u65e5\\u672c"}[encoding]
    name = new_database(options=f"ENCODING '{encoding}' LOCALE '{locale}'")
    client = "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"
    with server.connect(name) as connection:
        connection.execute(f"SET client_encoding = '{client}'; SET ROLE tenant")
        ident = b"n\xff\x80" if encoding == "SQL_ASCII" else "ü" if encoding == "LATIN1" else "日本"
        raw = ident if isinstance(ident, bytes) else ident.encode()
        connection.execute(b'CREATE TABLE "' + raw + b'" (a int PRIMARY KEY, "' + raw + b'" text)')
        connection.execute(
            b'INSERT INTO "' + raw + b"\" SELECT i, E'" + text.encode() + b"' FROM generate_series(1,9) i"
        )
    kept = dumped(server, name)
    loaded(kept, restore(server, name, f"{name}_copy"))
    copy = f"{name}_copy"
    hashed = "SELECT md5(string_agg(attname::bytea::text, ',')) FROM pg_attribute WHERE attrelid >= 16384 AND attnum > 0"
    assert server.scalar(hashed, name) == server.scalar(hashed, copy)
    assert server.pg_dump(name) == server.pg_dump(copy)
    assert json.dumps(kept.catalogue)


@pytest.mark.usefixtures("pod")
def test_an_empty_database_is_a_backup_too(server: Server, new_database: Make) -> None:
    """Nothing in it is no reason to fail."""
    name = new_database()
    assert loaded(dumped(server, name), restore(server, name, f"{name}_copy"))["restored"]["rows"] == 0

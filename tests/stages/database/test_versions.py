"""Servers of several versions: what each knows comes back, on a newer one too, and on an older one as far as it can."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.postgresql import catalogue, clients
from tenant_backup.engines.postgresql.endpoint import Connection
from tenant_backup.stages import load, preflight
from tests.engines.generated import Schema
from tests.engines.peer import Kept, OpenPeer, write_secrets
from tests.engines.server import PASSWORDS, Server, client
from tests.stages.database.jobs import TENANT, dumped, loaded, restore

FOLDER = Path(__file__).parents[2] / "engines"
TORTURE = {15: "torture.sql", 17: "torture_17.sql", 18: "torture_18.sql"}
SEQUENCES = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
OBJECTS = "SELECT l.oid, md5(lo_get(l.oid)) FROM pg_largeobject_metadata l ORDER BY md5(lo_get(l.oid))"
SCHEMA = "--schema-only"
COUNT = int(os.environ.get("GENERATED_SCHEMAS", "24"))
FIRST = int(os.environ.get("GENERATED_FIRST", "0"))
TOGETHER = 24  # schemas in one database
Servers = Callable[[int], Server]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A server of each version, made when it is wanted."""
    made: dict[int, Server] = {}

    def server(version: int) -> Server:
        if version not in made:
            made[version] = Server(version)
            made[version].create()
            made[version].sql("CREATE ROLE reader; CREATE ROLE leaver")
        return made[version]

    yield server
    for server_ in made.values():
        server_.remove()


@pytest.fixture(autouse=True)
def _clients(pod: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The clients that the runner image has."""
    folder = tmp_path_factory.getbasetemp() / "clients"
    for version in TORTURE:
        for name in ("psql", "pg_dump", "pg_restore"):
            client(version, name, folder)
    monkeypatch.setattr(clients.program, "__defaults__", (folder,))


@pytest.fixture(scope="module")
def tortured(servers: Servers) -> Callable[[int, int], tuple[str, Kept]]:
    """Name and backup of a database of one version, with all that another version knows, too."""
    made: dict[tuple[int, int], Kept] = {}

    def database(version: int, level: int) -> tuple[str, Kept]:
        name = f"torture_{version}_{level}"
        if (version, level) not in made:
            server = servers(version)
            server.sql(f"CREATE DATABASE {name} OWNER tenant TEMPLATE template0")
            server.psql(name, *(FOLDER / file for known, file in TORTURE.items() if known <= level))
            made[version, level] = dumped(server, name)
        return name, made[version, level]

    return database


@pytest.mark.parametrize(("source", "target"), [(17, 17), (18, 18), (15, 17), (15, 18), (18, 17), (18, 15)])
def test_one_of_everything_comes_back_whatever_the_version(
    servers: Servers, tortured: Callable[[int, int], tuple[str, Kept]], source: int, target: int
) -> None:
    """All that both versions know: schema by the newer pg_dump, rows by a server-side hash, sequences, large objects."""
    name, kept = tortured(source, min(source, target))
    copy = f"{name}_in_{target}"
    old, new, newest = servers(source), servers(target), max(source, target)
    facts = loaded(kept, restore(new, name, copy))
    schemas = (old.pg_dump(name, SCHEMA, version=newest), new.pg_dump(copy, SCHEMA, version=newest))
    one, other = schemas if source == target else map(_without_dialect, schemas)
    assert list(difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=1)) == []
    assert old.fingerprint(name) == new.fingerprint(copy)
    assert old.sql(SEQUENCES, name) == new.sql(SEQUENCES, copy)
    assert old.sql(OBJECTS, name) == new.sql(OBJECTS, copy)
    assert (facts["check"], facts["skipped"]) == ({"rowsMatch": True, "constraintsValid": True}, [])


def _without_dialect(schema: str) -> str:
    """What pg_dump says, in the same words of servers of any version.

    From 16 on they do not name the only table of a view before its columns, from 18 on they write AS before an alias
    and name what a partition requires. All rights of 15 are not all of 17. Some minor versions mark every column with
    a number that only their own pg_dump hides.
    """
    text = re.sub(r"(?m)^ALTER TABLE ONLY (?:(?!;\n)[\s\S])*? SET \(pg_attver=\d+\);\n", "", schema)
    text = text.replace(
        "GRANT SELECT,INSERT,REFERENCES,DELETE,TRIGGER,TRUNCATE,UPDATE ON TABLE", "GRANT ALL ON TABLE"
    )
    lines = [line for line in text.splitlines() if line and not line.startswith("--")]
    return "\n".join(_unqualified(line) if line.startswith(" ") else line for line in lines)


def _unqualified(line: str) -> str:
    bare = re.sub(r"\b(?!public)\w+\.", "", line).replace(" AS ", " ")
    return re.sub(r"CONSTRAINT \S+ NOT NULL", "NOT NULL", bare)


@pytest.mark.parametrize("version", [15, 18])
@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, TOGETHER))
def test_schemas_made_by_chance_come_back_the_same(servers: Servers, version: int, first: int) -> None:
    """Schema by pg_dump, rows by a server-side hash, sequences by value.

    GENERATED_SCHEMAS=2400 makes that many, 24 in a database; GENERATED_FIRST=480 begins with another seed. A
    schema's name begins with its seed.
    """
    server, name = servers(version), f"chance{first}"
    server.sql(f"CREATE DATABASE {name} OWNER tenant TEMPLATE template0")
    with server.connect(name) as connection:
        connection.execute("SET ROLE tenant")
        for seed in range(first, first + TOGETHER):
            for statement in Schema(seed, version).statements():
                connection.execute(statement.encode())
    copy = f"{name}_copy"
    facts = loaded(dumped(server, name), restore(server, name, copy))
    schemas = [server.pg_dump(database, SCHEMA).splitlines() for database in (name, copy)]
    assert list(difflib.unified_diff(*schemas, lineterm="", n=1)) == []
    assert server.fingerprint(name) == server.fingerprint(copy)
    assert server.sql(SEQUENCES, name) == server.sql(SEQUENCES, copy)
    assert (facts["check"], facts["skipped"]) == ({"rowsMatch": True, "constraintsValid": True}, [])
    server.drop(name, copy)


def test_what_an_older_server_does_not_know_is_said_exactly(servers: Servers) -> None:
    """The statement it refused, both versions, and where to restore instead; nothing stays behind."""
    new, old = servers(18), servers(17)
    new.sql("CREATE DATABASE modern OWNER tenant TEMPLATE template0")
    new.sql("SET ROLE tenant; CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL)", "modern")
    peer = OpenPeer(dumped(new, "modern"))
    with pytest.raises(Failure) as caught:
        load.run(restore(old, "modern", "modern"))
    peer.close()
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT
    for words in ("18 in version 17", "syntax error", "restore to a server of version 18 or newer"):
        assert words in caught.value.message
    assert old.sql("SELECT FROM pg_database WHERE datname ~ '^modern'") == []


def test_an_administrator_without_superuser_is_enough_once_it_has_the_grant_it_is_told(
    servers: Servers, pod: Path
) -> None:
    """From version 16 on CREATEROLE alone cannot lend the owner's rights; what was lent is given back."""
    server = servers(18)
    server.sql("CREATE DATABASE managed OWNER tenant TEMPLATE template0")
    server.sql("SET ROLE tenant; CREATE TABLE t AS SELECT generate_series(1, 100)", "managed")
    kept = dumped(server, "managed")
    write_secrets(pod / "secrets", admin=("app_admin", PASSWORDS["app_admin"]))
    job = restore(server, "managed", "managed")
    peer = OpenPeer(kept)
    with pytest.raises(Failure) as caught:
        load.run(job)
    peer.close()
    server.sql(caught.value.message.partition("run: ")[2])
    members = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'app_admin'::regrole"
    before = server.sql(members)
    assert loaded(kept, job)["restored"]["rows"] == 100
    assert (before, server.scalar("SELECT count(*) FROM pg_roles WHERE rolname ~ '^tbr_'")) == (
        server.sql(members),
        0,
    )


HOSTILE = """search_path = pg_temp; statement_timeout = 1; idle_in_transaction_session_timeout = 1; transaction_timeout = '400ms';
  lock_timeout = 1; idle_session_timeout = 1; default_transaction_read_only = on; default_transaction_isolation = serializable;
  DateStyle = 'SQL, DMY'; IntervalStyle = sql_standard; TimeZone = 'Asia/Kathmandu'; bytea_output = escape;
  extra_float_digits = -15; xmloption = document; array_nulls = off; lc_monetary = 'C.UTF-8'; row_security = on;
  client_encoding = LATIN1; standard_conforming_strings = off; quote_all_identifiers = on; default_tablespace = 'nowhere';
  enable_tidscan = off; exit_on_error = on; transform_null_equals = on; synchronize_seqscans = on;
  restrict_nonsystem_relation_kind = 'view, foreign-table'; check_function_bodies = on; client_min_messages = debug5"""


def test_all_hostile_settings_at_once_change_nothing(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the role, and of every role: a dump lasts longer than the limits, views and functions come back."""
    server = servers(18)
    server.sql("CREATE DATABASE hostile OWNER tenant TEMPLATE template0")
    server.sql(
        """SET ROLE tenant; CREATE TABLE t AS SELECT i, i / 3.0::float8 AS f, i * interval '1 mon -1 day' AS iv, decode(md5(i::text), 'hex') AS b,
        timestamptz '2024-02-01' + i * interval '1 h' AS z, ARRAY[NULL, 'NULL', E'\\\\'] AS a, 'ü\\' || i AS x FROM generate_series(1, 100) i;
        CREATE VIEW v AS SELECT i FROM t WHERE f IS NULL; CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM v;
        CREATE FUNCTION broken() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT count(*)::int FROM v; END""",
        "hostile",
    )
    describe = catalogue.describe

    def outlast(leader: Connection, *more: Any) -> dict[str, Any]:
        leader.execute("SELECT pg_catalog.pg_sleep(0.5)")
        return describe(leader, *more)

    monkeypatch.setattr(catalogue, "describe", outlast)
    with server.connect() as boss:  # opened before: its settings are as they were
        for setting in HOSTILE.split(";"):
            boss.execute(f"ALTER ROLE tenant SET {setting}".encode())
            if "nowhere" not in setting:
                boss.execute(f"ALTER ROLE ALL SET {setting}".encode())
        try:
            loaded(dumped(server, "hostile"), restore(server, "hostile", "hostile_copy"))
        finally:
            boss.execute("ALTER ROLE tenant RESET ALL")
            boss.execute("ALTER ROLE ALL RESET ALL")
    assert server.fingerprint("hostile") == server.fingerprint("hostile_copy")
    assert server.pg_dump("hostile", "--schema-only") == server.pg_dump("hostile_copy", "--schema-only")


def test_a_named_not_null_of_an_excluded_column_keeps_its_name(servers: Servers) -> None:
    """Also on a partitioned table, where it belongs to the table on top."""
    server = servers(18)
    server.sql("CREATE DATABASE named OWNER tenant TEMPLATE template0")
    server.sql(
        """SET ROLE tenant; CREATE TABLE users (id int PRIMARY KEY, s text CONSTRAINT "needs s" NOT NULL NO INHERIT);
        INSERT INTO users VALUES (1, 'secret'); CREATE TABLE p (id int PRIMARY KEY, s text CONSTRAINT must NOT NULL) PARTITION BY LIST (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p DEFAULT; INSERT INTO p VALUES (1, 'a'), (2, 'b')""",
        "named",
    )
    columns = [jobs.Column("public.users", "s", "KeepLive"), jobs.Column("public.p", "s", "KeepLive")]
    before = server.pg_dump("named")
    kept = dumped(server, "named", exclude_columns=columns)
    facts = loaded(kept, restore(server, "named", "named", exclude_columns=columns))
    assert (facts["keepLive"], before) == ({"kept": 3, "withoutMatch": 0}, server.pg_dump("named"))


LEDGER = {
    "ledger.control": "default_version = '1'\nsuperuser = false\n",
    "ledger--1.sql": """CREATE TABLE ledger_setting (name text PRIMARY KEY, value text, own boolean DEFAULT false);
        INSERT INTO ledger_setting VALUES ('scale', '2', true); CREATE SEQUENCE ledger_number;
        SELECT pg_extension_config_dump('ledger_setting', 'WHERE NOT own'); SELECT pg_extension_config_dump('ledger_number', '');""",
    "vault.control": "default_version = '1'\nsuperuser = true\n",
    "vault--1.sql": "CREATE TABLE vault_setting (a int); SELECT pg_extension_config_dump('vault_setting', '');",
}


def test_rows_in_an_extensions_tables_come_back_or_are_refused(servers: Servers) -> None:
    """The tenant's rows where the tenant may create the extension; others are told by name, never left out silently."""
    server = servers(18)
    folder = server.folder / "extension"
    folder.mkdir()
    for name, script in LEDGER.items():
        (folder / name).write_text(script)
    server.sql(f"ALTER SYSTEM SET extension_control_path = '$system:{server.folder}'")
    server.sql("SELECT pg_reload_conf()")
    server.sql("CREATE DATABASE books OWNER tenant TEMPLATE template0")
    server.sql(
        """SET ROLE tenant; CREATE EXTENSION ledger; SELECT nextval('ledger_number'), nextval('ledger_number');
        INSERT INTO ledger_setting VALUES ('currency', 'EUR'), (E'odd\\n', NULL)""",
        "books",
    )
    loaded(dumped(server, "books"), restore(server, "books", "books_copy"))
    assert server.fingerprint("books") == server.fingerprint("books_copy")
    assert server.scalar("SELECT nextval('ledger_number')", "books_copy") == 3
    server.sql(
        "CREATE EXTENSION vault; INSERT INTO vault_setting VALUES (1); GRANT SELECT ON vault_setting TO tenant",
        "books",
    )
    with pytest.raises(Failure) as caught:
        preflight.run(jobs.Preflight(TENANT, server.database("books")))
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT
    assert "public.vault_setting of extension vault" in caught.value.message

"""What the command line does with MariaDB: back up, show, verify, hand out as SQL, restore."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from tenant_backup.engines.marks import MARK
from tests.cli.conftest import COMMAND, run
from tests.cli.test_page import marked
from tests.engines.mariadb import PASSWORDS, MariaDB
from tests.engines.mariadb_fixtures import maria

__all__ = ["maria"]

TORTURE = (Path(__file__).parents[1] / "engines" / "torture_mariadb.sql").read_text()
COUNTERS = "SELECT next_not_cached_value, cycle_count FROM {}"


@dataclass
class Shop:
    """A tenant with a database on the server, and a store on disk."""

    maria: MariaDB
    folder: Path
    database: str
    identity: pyrage.x25519.Identity = field(default_factory=pyrage.x25519.Identity.generate)
    trust: str = ""

    def back_up(self, **exclusions: Any) -> None:
        """Make a backup with `tenant-backup backup`."""
        where = {
            "engine": self.maria.engine,
            "host": "127.0.0.1",
            "port": self.maria.port,
            "name": self.database,
        }
        document = {
            "apiVersion": "tenantbackup.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": {"name": self.database},
            "spec": {
                "database": where | {"credentialsSecretRef": {"name": "db"}},
                "encryption": {"recipients": [str(self.identity.to_public())]},
                "exclusions": exclusions,
            },
        }
        (self.folder / "tenant.yaml").write_text(yaml.safe_dump(document))
        (self.folder / "key.txt").write_text(f"{self.identity}\n")
        for name, password in PASSWORDS.items():
            (self.folder / name).write_text(f"{password}\n")
        (self.folder / "lab").mkdir()
        login = ["--user", "tenant", "--password-file", self.folder / "tenant"]
        done = run("backup", "--config", self.folder / "tenant.yaml", "--store-url", self.url, *login)
        assert done.returncode == 0, done.stderr
        (self.trust,) = set(re.findall(r"ed25519:[0-9a-f]{64}", done.stdout))

    @property
    def url(self) -> str:
        """STORE-URL."""
        return f"file://{self.folder}/lab/{self.database}"

    @property
    def reading(self) -> list[str]:
        """The arguments of whoever has the key and the sheet."""
        return [self.url, "latest", "--trust", self.trust, "--identity", str(self.folder / "key.txt")]

    def into(self, database: str) -> list[str]:
        """The arguments of a restore into a new database of the tenant."""
        where = ["--host", "127.0.0.1", "--port", str(self.maria.port), "--database", database]
        admin = ["--user", "boss", "--password-file", str(self.folder / "boss")]
        owner = ["--owner", "tenant", "--owner-password-file", str(self.folder / "tenant")]
        return ["restore", *self.reading, *where, *admin, *owner]

    def export(self, out: Path, *options: str) -> bytes:
        """Export the newest backup as SQL; return it."""
        done = run("export", *self.reading, *options, "-o", out)
        assert (done.returncode, done.stderr) == (0, "")
        return out.read_bytes()

    def dump(self, database: str) -> list[str]:
        """mariadb-dump's own text; only in calls of a sequence does the server write the database's name."""
        return [line.replace(f"(`{database}`.", "(`-`.") for line in self.maria.dump(database)]

    def is_in(self, database: str) -> bool:
        """Whether a database is the one that was backed up, as mariadb-dump and CHECKSUM TABLE see both."""
        comment = f"substring_index(schema_comment, '{MARK}', 1)" if self.maria.dialect.has_comments else "0"
        properties = f"SELECT default_character_set_name, default_collation_name, {comment}"
        properties += " FROM information_schema.SCHEMATA WHERE schema_name = '{}'"
        sequences = "SELECT table_name FROM information_schema.TABLES WHERE table_schema = '{}' AND table_type = 'SEQUENCE'"
        for name in (row[0] for row in self.maria.sql(sequences.format(self.database))):
            counter = COUNTERS.format(name)
            assert self.maria.sql(counter, database) == self.maria.sql(counter, self.database)
        assert self.dump(database) == self.dump(self.database)
        assert self.maria.checksums(database) == self.maria.checksums(self.database)
        assert self.maria.sql(properties.format(database)) == self.maria.sql(properties.format(self.database))
        return True


def feed(
    maria: MariaDB,
    script: bytes,
    database: str,
    *options: str,
    user: str = "tenant",
    cwd: Path | None = None,
) -> str:
    """Give a script to the plain client program; return what it said to standard error."""
    where = ["--host=127.0.0.1", f"--port={maria.port}", f"--user={user}", *options, database]
    done = subprocess.run(
        [*maria.inside, maria.programs[0], "--no-defaults", *where],
        input=script,
        env={**os.environ, "MYSQL_PWD": PASSWORDS[user]},
        cwd=cwd,
        capture_output=True,
        check=False,
    )
    return done.stderr.decode()


Make = Callable[[str], str]


@pytest.fixture(scope="module")
def empty(maria: MariaDB) -> Iterator[Make]:
    """A factory of empty databases of the tenant's, of another character set than any that is backed up."""
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        maria.sql(f"DROP DATABASE IF EXISTS {name}")  # OR REPLACE stumbles over rings of foreign keys
        maria.sql(f"CREATE DATABASE {name} CHARACTER SET latin7")
        maria.sql(f"GRANT ALL PRIVILEGES ON {name}.* TO tenant@'%'")
        return name

    yield make
    for name in made:
        maria.sql(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture(scope="module")
def shop(maria: MariaDB, empty: Make, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A tenant with one of everything, and one backup of it."""
    name = empty(f"shop{uuid.uuid4().hex[:8]}")
    maria.sql(
        f"ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_german2_ci COMMENT 'it''s \\\\ ü'"
    )
    maria.script(name, TORTURE)
    made = Shop(maria, tmp_path_factory.mktemp("shop"), name)
    made.back_up()
    return made


def test_a_backup_is_shown_and_verified(shop: Shop) -> None:
    """The archive is the same for every engine."""
    verified = run("verify", *shop.reading)
    assert verified.returncode == 0, verified.stderr
    shown = json.loads(run("inspect", *shop.reading, "--json").stdout)
    assert {table["name"]: table["rows"] for table in shown["tableList"]}[f"{shop.database}.pairs"] == 100
    sheet = run("recovery-sheet", shop.url, "--trust", shop.trust).stdout
    assert "--user root --owner ACCOUNT --owner-password-file FILE" in sheet


@pytest.mark.parametrize(("user", "options"), [("tenant", []), ("boss", ["--owners"])])
def test_plain_mariadb_makes_the_same_database_of_the_exported_sql(
    shop: Shop, empty: Make, tmp_path: Path, user: str, options: list[str]
) -> None:
    """Every byte of every type, whatever character set the database had before; its triggers run on nothing.

    Code is the tenant's again: because it loads the file, or because owners are kept.
    """
    script = shop.export(tmp_path / "e.sql", *options)
    copy = empty(f"{shop.database}_sql")
    assert feed(shop.maria, script, copy, user=user) == ""
    assert shop.is_in(copy)


def test_a_parcel_holds_the_same_sql(shop: Shop, tmp_path: Path) -> None:
    """And proves itself by `sha256sum -c`."""
    done = run("export", *shop.reading, "--format", "directory", "-o", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (made,) = tmp_path.iterdir()
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=made, check=False, capture_output=True
    )
    assert checked.returncode == 0
    assert json.loads((made / "metadata.json").read_text())["server"]["engine"] == "MariaDB"
    assert (made / f"{made.name}.sql").read_bytes() == shop.export(tmp_path / "e.sql")


def test_the_restored_database_is_the_one_that_was_backed_up(shop: Shop, short_path: Path) -> None:
    """The same stages as in a cluster; what a killed attempt left is cleared by the next, and only that."""
    copy = f"{shop.database}_again"
    shop.maria.sql(f"CREATE DATABASE {copy} COMMENT 'somebody\\'s'")
    refused = run(*shop.into(copy))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f'NameTaken: database "{copy}" exists')
    shop.maria.sql(f"DROP DATABASE {copy}")
    done = run(*shop.into(copy), TMPDIR=str(short_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f'database "{copy}"' in done.stdout
    assert shop.is_in(copy)
    properties = f"SELECT schema_comment FROM information_schema.SCHEMATA WHERE schema_name = '{copy}'"
    unfinished = str(shop.maria.scalar(properties)).replace("restored", "restoring").replace("\\", "\\\\")
    shop.maria.sql(f"ALTER DATABASE {copy} COMMENT '{unfinished.replace(chr(39), chr(39) * 2)}'")
    shop.maria.sql(f"CREATE TABLE {copy}.half_done (a int)")
    again = run(*shop.into(copy), TMPDIR=str(short_path))
    assert (again.returncode, again.stderr) == (0, "")
    assert shop.is_in(copy)
    assert (shop.maria.logins(), list(short_path.iterdir())) == ([], [])
    shop.maria.sql(f"DROP DATABASE {copy}")


@pytest.mark.parametrize(
    ("option", "value", "reason", "words"),
    [
        ("--password-file", "tenant", "AuthenticationFailed", "check --user and its password"),
        ("--owner-password-file", "boss", "AuthenticationFailed", "check --owner and its password"),
        ("--owner-password-file", None, "KeyMissing", "--owner-password-file"),
        ("--owner", None, "PermissionDenied", "name an ordinary account"),
    ],
)
def test_a_restore_says_at_once_what_it_lacks(
    shop: Shop, option: str, value: str | None, reason: str, words: str
) -> None:
    """Nothing is left, and no password is repeated."""
    arguments = shop.into(f"{shop.database}_never")
    at = arguments.index(option)
    arguments[at : at + 2] = [option, str(shop.folder / value)] if value else []
    if option == "--owner" and value is None:
        arguments = arguments[: arguments.index("--owner-password-file")]
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr.split(":")[0]) == (1, "", reason)
    assert words in done.stderr
    assert not [password for password in PASSWORDS.values() if password in done.stderr]
    assert (shop.maria.databases(f"{shop.database}_never"), shop.maria.logins()) == ([], [])


def test_a_server_of_another_kind_is_told(shop: Shop) -> None:
    """Which one it has to be."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_greet, args=(other,), daemon=True).start()
        arguments = shop.into(f"{shop.database}_never")
        arguments[arguments.index("--port") + 1] = str(other.getsockname()[1])
        done = run(*arguments)
    assert (done.returncode, done.stderr.split(":")[0]) == (75, "DatabaseUnreachable")
    assert done.stderr.endswith("it has to be a MariaDB server, as the backup's was\n")


def _greet(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed when the test is over
        while True:
            server.accept()[0].sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")


def test_excluded_columns_and_tables_come_back_as_the_policy_says(
    maria: MariaDB, empty: Make, tmp_path: Path
) -> None:
    """No live database to ask, for a restore neither: text for rows without a match, NULL, no rows at all."""
    shop = Shop(maria, tmp_path, empty(f"shop{uuid.uuid4().hex[:8]}"))
    maria.script(
        shop.database,
        """CREATE TABLE users (id int PRIMARY KEY, pw varchar(9) NOT NULL, token text, born int NOT NULL DEFAULT 7, u uuid);
        INSERT INTO users SELECT seq, 'secret', 'secret', 1, NULL FROM seq_1_to_3;
        CREATE TABLE log (a int); INSERT INTO log VALUES (1)""",
    )
    rules = {"pw": {"onRestore": "KeepLive", "else": "it's \\N"}, "token": {"onRestore": "Null"}}
    rules["born"] = {"onRestore": "Default"}
    columns = [{"table": f"{shop.database}.users", "column": name, **rule} for name, rule in rules.items()]
    shop.back_up(columns=columns, tables=[f"{shop.database}.log"])
    script, copy = shop.export(tmp_path / "e.sql"), empty(f"{shop.database}_sql")
    assert b"secret" not in script
    assert feed(maria, script, copy) == ""
    restored = run(*shop.into(f"{shop.database}_again"))
    assert restored.returncode == 0, restored.stderr
    for database in (copy, f"{shop.database}_again"):
        assert maria.sql("SELECT * FROM users", database) == [
            (str(n), "it's \\N", None, "7", None) for n in (1, 2, 3)
        ]
        assert maria.sql("SELECT * FROM log", database) == []
    maria.sql(f"DROP DATABASE {shop.database}_again")


TOUCH = r"\! touch pwned #"
# What a server takes for a comment or a string, and a client program, in one way or another, for its own command.
BODIES = [
    f"BEGIN\n--\x01 {TOUCH}\nSELECT 1; -- '\n# {TOUCH}\n/* ' {TOUCH} */ END",
    "BEGIN\nSELECT\nsystem `touch pwned`\nFROM (SELECT 1 AS system) AS x;\nEND",
    "BEGIN\r\nSELECT 'a\r\nb';\r\n-- it's\r\n\r\nEND",
    "SELECT 'DELIMITER x\nDELIMITER ;\nsystem touch pwned\n; system touch pwned\n\\\\! \\'; system touch pwned;', '\x1a'",
    f"SELECT '€\\\\', '; {TOUCH} ;', \"'\", '; {TOUCH}\n'",
]
NO_ESCAPES = f"SELECT '\\', '; {TOUCH} ;'"
NAME = f"`; {TOUCH}\nsystem touch pwned\n```"
VALUE = f"€\\'; {TOUCH}\n{TOUCH}\r\nsystem touch pwned\n'';\n{TOUCH}"


def literal(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


@pytest.fixture(scope="module")
def hostile(maria: MariaDB, empty: Make, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A tenant who tries to make a command of everything that it may write."""
    made = Shop(maria, tmp_path_factory.mktemp("hostile"), empty(f"bad{uuid.uuid4().hex[:8]}"))
    text, short = literal(VALUE), literal(f"'; {TOUCH}")

    maria.sql(f"ALTER DATABASE {made.database} CHARACTER SET utf8mb4 COMMENT {text}")

    def sql(statement: str) -> None:
        maria.sql(statement, made.database, "tenant")

    sql(
        f"CREATE TABLE {NAME} (id int PRIMARY KEY, {NAME} text COMMENT {text}, CHECK (hex(id) <> {text})) COMMENT {text}"
    )
    sql(f"INSERT INTO {NAME} VALUES (1, {text}), (2, '\\0\\Z\\r\\n\\\\'), (3, {short})")
    sql(f"CREATE TABLE plain (a enum({text}, {short}), b text)")
    sql(f"INSERT INTO plain VALUES (1, '€\\\\'), (2, {short}), (NULL, '€')")
    for number, body in enumerate(BODIES):
        sql(f"CREATE PROCEDURE p{number}() COMMENT {text} {body}")
    sql(f"CREATE PROCEDURE {NAME}() {BODIES[0]}")
    sql(
        f"CREATE TRIGGER {NAME} BEFORE INSERT ON `plain` FOR EACH ROW {BODIES[0].replace('SELECT 1', 'SET @x = 1')}"
    )
    sql(f"CREATE EVENT {NAME} ON SCHEDULE EVERY 1 DAY DISABLE COMMENT {short} DO {BODIES[0]}")
    sql(f"CREATE VIEW v AS SELECT {text} AS {NAME}, a FROM plain")
    connection = maria._connect(made.database, "tenant")
    connection.query(b"SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
    connection.query(f"CREATE PROCEDURE n() {NO_ESCAPES}".encode())
    connection.close()
    made.back_up()
    return made


@pytest.mark.parametrize("sandbox", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--named-commands"],
        ["--default-character-set=gbk"],
        ["--default-character-set=gbk", "--binary-mode", "--named-commands"],
    ],
)
def test_nothing_a_tenant_wrote_becomes_a_command_of_the_client_program(
    hostile: Shop, empty: Make, tmp_path: Path, options: list[str], sandbox: bool
) -> None:
    """Not even of a program that knows no sandbox; and what is loaded is what it was."""
    script = hostile.export(tmp_path / "e.sql")
    first, rest = script.split(b"\n", 1)
    assert first == rb"/*M!999999\- enable the sandbox mode */"
    copy = empty(f"{hostile.database}_sql")
    assert feed(hostile.maria, script if sandbox else rest, copy, *options, cwd=tmp_path) == ""
    assert not (tmp_path / "pwned").exists()
    assert hostile.is_in(copy)


@pytest.mark.parametrize(
    ("statement", "options"),
    [
        (BODIES[0], []),
        (BODIES[1], ["--named-commands"]),
        (NO_ESCAPES, []),
        (BODIES[4], ["--default-character-set=gbk"]),
    ],
    ids=["comment", "line", "backslash", "character"],
)
def test_the_same_words_are_commands_where_nobody_takes_care(
    maria: MariaDB, empty: Make, tmp_path: Path, statement: str, options: list[str]
) -> None:
    """So the test before this one can fail."""
    copy = empty(f"naive{uuid.uuid4().hex[:8]}")
    feed(maria, f"DELIMITER $$\nCREATE PROCEDURE p() {statement}$$\n".encode(), copy, *options, cwd=tmp_path)
    assert (tmp_path / "pwned").exists()


def test_every_command_of_the_page_works_for_mariadb(shop: Shop, empty: Make, tmp_path: Path) -> None:
    """Only the names of the server's things are filled in."""
    copy, by_hand = f"{shop.database}_page", f"{shop.database}_hand"
    names = {"acme_again": copy, "acme_by_hand": by_hand, "3306": str(shop.maria.port)}
    names |= {
        "--user root": "--user boss",
        "-u root": "-u boss",
        "--owner acme ": "--owner tenant ",
        "-u acme": "-u tenant",
        "TO acme": "TO tenant",
    }
    program = tmp_path / "bin" / "tenant-backup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, COMMAND))} "$@"\n')
    program.chmod(0o755)
    for name, there in {"key.txt": "key.txt", "password": "boss", "acme.password": "tenant"}.items():
        (tmp_path / name).write_text((shop.folder / there).read_text())
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "STORE": shop.url,
        "TRUST": shop.trust,
    }
    blocks = marked("MariaDB")
    for block in blocks:
        text = re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], block)
        text = text.replace("mariadb -h", "mariadb --no-defaults -h")
        done = subprocess.run(
            ["bash", "-euc", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
    assert len(blocks) == 2
    for database in (copy, by_hand):
        assert shop.is_in(database)
        shop.maria.sql(f"DROP DATABASE {database}")

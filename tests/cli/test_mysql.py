"""What the command line does with MySQL: back up, hand out as SQL for plain mysql, restore."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.cli.test_mariadb import Make, Shop, empty, feed, literal
from tests.engines.mysql import MySQL

__all__ = ["empty"]

TORTURE = (Path(__file__).parents[1] / "engines" / "torture_mysql.sql").read_text()


@pytest.fixture(scope="module")
def maria() -> Iterator[MySQL]:
    """A server for this module, where tests for MariaDB look for theirs."""
    if os.getuid() != 0:
        pytest.skip("needs root, to start programs in the file system of an image")
    server = MySQL()
    server.create()
    yield server
    server.remove()


def shop_of(maria: MySQL, empty: Make, folder: Path, *statements: str) -> Shop:
    """A tenant with a database of its own, and one backup of it."""
    made = Shop(maria, folder, empty(f"shop{uuid.uuid4().hex[:8]}"))
    maria.sql(f"ALTER DATABASE {made.database} CHARACTER SET utf8mb4 COLLATE utf8mb4_de_pb_0900_ai_ci")
    for statement in statements:
        maria.script(made.database, statement) if "DELIMITER" in statement else maria.sql(
            statement, made.database, "tenant"
        )
    made.back_up()
    return made


def test_what_is_exported_and_what_is_restored_is_what_was_backed_up(
    maria: MySQL, empty: Make, tmp_path: Path, short_path: Path
) -> None:
    """Every byte of every type, by plain mysql and by our own restore."""
    shop = shop_of(maria, empty, tmp_path, TORTURE)
    copy = empty(f"{shop.database}_sql")
    assert feed(maria, shop.export(tmp_path / "e.sql"), copy) == ""
    assert shop.is_in(copy)
    for _ in range(2):
        done = run(*shop.into(f"{shop.database}_again"), TMPDIR=str(short_path))
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "NameTaken")
    assert shop.is_in(f"{shop.database}_again")
    maria.sql(f"DROP DATABASE {shop.database}_again")


# What older programs had on by default, and what else may be asked of them.
COMMANDS = ["--commands", "--system-command"]
ASKED = ([], ["--named-commands"], ["--default-character-set=gbk"])


def test_nothing_a_tenant_wrote_becomes_a_command_of_the_client_program(
    maria: MySQL, empty: Make, tmp_path: Path
) -> None:
    """In comments, strings, names and definitions; and what is loaded is what it was."""
    pwned = maria.folder / "p"
    touch = rf"\! touch {pwned} #"
    name, value = f"`; {touch}\n```", f"€\\'; {touch}\r\n{touch}\nsystem touch {pwned}"
    text, words = literal(value), f"'\\'; {touch}', '€\\\\', '; {touch} ;', \"; '\""
    code = f"BEGIN\n-- it's {touch}\nSELECT 1; # ' {touch}\n/* ' ; {touch} */ SELECT {words};\nEND"
    shop = shop_of(
        maria,
        empty,
        tmp_path,
        f"CREATE TABLE {name} (id int PRIMARY KEY, {name} text COMMENT {text}) COMMENT {text}",
        f"INSERT INTO {name} VALUES (1, {text})",
        f"CREATE PROCEDURE p() COMMENT {literal(touch)} {code}",
        f"CREATE VIEW v AS SELECT {text} AS a",
    )
    script, naive = (
        shop.export(tmp_path / "e.sql"),
        f"delimiter $$\nCREATE PROCEDURE q() SELECT 1 {touch}\n$$\n",
    )
    for asked in ASKED:
        copy = empty(f"{shop.database}_sql")
        assert feed(maria, script, copy, *COMMANDS, *asked) == ""
        assert not pwned.exists()
        assert shop.is_in(copy)
        feed(maria, naive.encode(), copy, *COMMANDS, *asked)
        assert pwned.exists()  # so this test can fail
        pwned.unlink()

"""What a dump takes and a load brings back is the same database, as the server and mariadb-dump see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tenant_backup.contract.results import Result, encode
from tests.engines.mariadb import MariaDB
from tests.stages.database.jobs import dumped, loaded, restore

TORTURE = (Path(__file__).parents[2] / "engines" / "torture_mariadb.sql").read_text()
SEQUENCES = "SELECT * FROM `{}`"
Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")


@pytest.mark.parametrize("way", ["LOAD DATA", "INSERT"])
def test_one_of_everything_comes_back_the_same(maria: MariaDB, new_database: Make, way: str) -> None:
    """The dumps of both are the same text, and the server's checksums of all tables, which see every bit."""
    name = new_database(TORTURE)
    kept = dumped(maria, name)
    maria.sql(f"SET GLOBAL local_infile = {'ON' if way == 'LOAD DATA' else 'OFF'}")
    try:
        facts = loaded(kept, restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql("SET GLOBAL local_infile = ON")
    # Only in calls of a sequence does the server write the database's name.
    assert [line.replace(f"(`{name}`.", f"(`{name}_copy`.") for line in maria.dump(name)] == maria.dump(
        f"{name}_copy"
    )
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")
    for sequence in ("counter", "untouched"):
        query = f"SELECT next_not_cached_value, cycle_count FROM {sequence}"
        assert maria.sql(query, name) == maria.sql(query, f"{name}_copy")
    past = "SELECT a FROM past FOR SYSTEM_TIME AS OF '2001-02-01 00:00:00' WHERE id = 45"
    assert maria.sql(past, f"{name}_copy") == [("first 45",)]
    assert (facts["check"], facts["skipped"]) == ({"rowsMatch": True, "constraintsValid": True}, [])
    assert len(encode(Result(True, facts))) <= 2048
    assert kept.catalogue["consistency"] == "PerTable"  # a table is MyISAM
    assert maria.logins() == []


def test_every_bit_of_a_float_survives(maria: MariaDB, new_database: Make) -> None:
    """The server shows 6 digits of a FLOAT, mariadb-dump too; a third more are in it."""
    name = new_database(
        "CREATE TABLE f (id int PRIMARY KEY, f float, z float);"
        "INSERT INTO f SELECT seq, 1 / seq, -0e0 FROM seq_1_to_1000"
    )
    loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    query = "SELECT id, f * 1e0, z * 1e0 FROM f ORDER BY id"
    assert maria.sql(query, name) == maria.sql(query, f"{name}_copy")
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")


def test_rows_much_longer_than_a_batch_come_back(maria: MariaDB, new_database: Make) -> None:
    """Rows of 12 MB among short ones."""
    name = new_database(
        """CREATE TABLE l (id int PRIMARY KEY, b longblob);
        INSERT INTO l SELECT seq, repeat(char(seq), seq) FROM seq_1_to_200;
        INSERT INTO l SELECT 1000 + seq, repeat(char(seq, 9, 10), 4000000) FROM seq_1_to_3"""
    )
    loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")


def test_an_empty_database_is_a_backup_too(maria: MariaDB, new_database: Make) -> None:
    """Nothing in it is no reason to fail."""
    name = new_database()
    assert loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))["restored"]["rows"] == 0


@pytest.mark.parametrize(
    "setting",
    [
        "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ZERO_DATE,PAD_CHAR_TO_FULL_LENGTH'",
        "time_zone = '+05:45'",
        "sql_select_limit = 3",
        "max_statement_time = 0.001",
        "autocommit = OFF",
        "sql_quote_show_create = OFF",
        "character_set_client = latin1",
        "character_set_results = latin1",
        "foreign_key_checks = OFF",
        "tx_isolation = 'READ-COMMITTED'",
        "tx_read_only = ON",
        "completion_type = CHAIN",
        "lc_time_names = 'de_DE'",
    ],
)
def test_a_setting_somebody_made_for_the_server_changes_nothing(
    maria: MariaDB, new_database: Make, setting: str
) -> None:
    """Settings of the server are for people at a keyboard."""
    name = new_database(
        """CREATE TABLE t (id int PRIMARY KEY, z timestamp NULL, c char(5), d date, w varchar(9));
        SET time_zone = '+00:00', sql_mode = '';
        INSERT INTO t SELECT seq, '2024-03-31 01:30:00' + INTERVAL seq HOUR, 'a', '0000-00-00', 'ü\\\\' FROM seq_1_to_50"""
    )
    variable = setting.partition(" ")[0]
    before = maria.scalar(f"SELECT @@GLOBAL.{variable}")
    maria.sql(f"SET GLOBAL {setting}")
    try:
        loaded(dumped(maria, name), restore(maria, name, f"{name}_copy"))
    finally:
        shown = before if before.replace(".", "").isdigit() else f"'{before}'"
        maria.sql(f"SET GLOBAL {variable} = {shown}")
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")
    assert maria.dump(name) == maria.dump(f"{name}_copy")

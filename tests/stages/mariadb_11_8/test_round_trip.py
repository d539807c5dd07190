"""MariaDB 11.8: what 10.11 has comes back the same, what only the newer one has does too, and the older one's rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.mariadb import MariaDB
from tests.stages.database.jobs import dumped, loaded, restore
from tests.stages.mariadb.test_round_trip import test_one_of_everything_comes_back_the_same
from tests.stages.mariadb.test_sessions import test_a_change_that_is_not_committed_leaves_one_reader

__all__ = [
    "test_a_change_that_is_not_committed_leaves_one_reader",
    "test_one_of_everything_comes_back_the_same",
]

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
NEW = """CREATE TABLE vectors (id int PRIMARY KEY, v vector(3) NOT NULL, VECTOR INDEX (v));
INSERT INTO vectors SELECT seq, vec_fromtext(concat('[', seq, ',', -seq / 7, ',9.1e-20]')) FROM seq_1_to_50;
CREATE TABLE ids (u uuid DEFAULT uuid_v7() PRIMARY KEY, n int);
INSERT INTO ids (n) SELECT seq FROM seq_1_to_50;
CREATE TABLE words (w varchar(20) COLLATE uca1400_german2_as_cs PRIMARY KEY, d text);
INSERT INTO words VALUES ('Straße', 'ü'), ('Strasse', '😀'), ('straße', NULL);
CREATE TABLE years (at timestamp(6) PRIMARY KEY);
INSERT INTO years VALUES ('2106-02-07 06:28:15.999999'), ('2038-01-19 03:14:08');
CREATE TABLE slices (id int PRIMARY KEY) WITH SYSTEM VERSIONING
  PARTITION BY SYSTEM_TIME INTERVAL 1 MONTH STARTS '2024-01-01 00:00:00' AUTO PARTITIONS 3;
INSERT INTO slices SELECT seq FROM seq_1_to_9; DELETE FROM slices WHERE id > 5;"""


@pytest.mark.parametrize("way", ["LOAD DATA", "INSERT"])
def test_what_is_new_comes_back_the_same(maria: MariaDB, new_database: Make, way: str) -> None:
    """Vectors, UUIDs in the order of time, collations, and times beyond 2038."""
    name = new_database(f"SET time_zone = '+00:00'; {NEW}")
    kept = dumped(maria, name)
    maria.sql(f"SET GLOBAL local_infile = {'ON' if way == 'LOAD DATA' else 'OFF'}")
    try:
        loaded(kept, restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql("SET GLOBAL local_infile = ON")
    assert maria.dump(name) == maria.dump(f"{name}_copy")
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")


def test_what_an_older_server_has_is_there_until_the_end_of_time(
    maria: MariaDB, older: MariaDB, new_database: Make
) -> None:
    """The last moment there is has become a later one: rows of today must not be of the past."""
    name = new_database()
    older.sql(f"CREATE DATABASE {name}")
    older.sql(f"GRANT ALL PRIVILEGES ON {name}.* TO tenant@'%'")
    older.script(
        name, "CREATE TABLE t (a int) WITH SYSTEM VERSIONING; INSERT INTO t VALUES (1); UPDATE t SET a = 2"
    )
    kept = dumped(older, name)
    older.sql(f"DROP DATABASE {name}")
    loaded(kept, restore(maria, name, f"{name}_copy"))
    assert maria.sql("SELECT a FROM t", f"{name}_copy") == [("2",)]
    assert maria.scalar("SELECT count(*) FROM t FOR SYSTEM_TIME ALL", f"{name}_copy") == "2"

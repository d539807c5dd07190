"""What a dump takes and a load brings back is the same database, as the server and mysqldump see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tenant_backup.contract.results import Result, encode
from tests.engines.mysql import MySQL
from tests.stages.database.jobs import dumped, loaded, restore

TORTURE = (Path(__file__).parents[2] / "engines" / "torture_mysql.sql").read_text()
Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")


@pytest.mark.parametrize("way", ["LOAD DATA", "INSERT"])
def test_one_of_everything_comes_back_the_same(maria: MySQL, new_database: Make, way: str) -> None:
    """The dumps of both are the same text, and the server's checksums of all tables, which see every bit."""
    name = new_database(TORTURE)
    kept = dumped(maria, name)
    maria.sql(f"SET GLOBAL local_infile = {'ON' if way == 'LOAD DATA' else 'OFF'}")
    try:
        facts = loaded(kept, restore(maria, name, f"{name}_copy"))
    finally:
        maria.sql("SET GLOBAL local_infile = OFF")
    assert maria.dump(name) == maria.dump(f"{name}_copy")
    assert maria.checksums(name) == maria.checksums(f"{name}_copy")
    assert (facts["check"], facts["skipped"]) == ({"rowsMatch": True, "constraintsValid": True}, [])
    assert len(encode(Result(True, facts))) <= 2048
    assert kept.catalogue["consistency"] == "PerTable"  # a table is MyISAM
    assert maria.logins() == []

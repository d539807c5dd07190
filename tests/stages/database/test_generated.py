"""Databases made by chance come back as they were: what nobody thought of when writing the torture."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator

import pytest

from tests.engines.generated import Schema
from tests.engines.server import Server
from tests.stages.database.jobs import dumped, loaded, restore

COUNT = int(os.environ.get("GENERATED_SCHEMAS", "24"))
FIRST = int(os.environ.get("GENERATED_FIRST", "0"))
TOGETHER = 24  # schemas in one database
SEQUENCES = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"


@pytest.fixture(autouse=True)
def _roles(server: Server, new_database: Callable[..., str]) -> Iterator[None]:
    """Roles that grants and policies name."""
    server.sql("CREATE ROLE reader; CREATE ROLE leaver")
    yield
    for database, *_ in server.sql("SELECT datname FROM pg_database WHERE datname ~ '^acme'"):
        server.drop(str(database))
    server.sql("DROP ROLE reader; DROP ROLE leaver")


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, TOGETHER))
def test_schemas_made_by_chance_come_back_the_same(
    server: Server, new_database: Callable[..., str], first: int
) -> None:
    """Schema by pg_dump, rows by a server-side hash, sequences by value.

    GENERATED_SCHEMAS=2400 makes that many, 24 in a database; GENERATED_FIRST=480 begins with another seed. A
    schema's name begins with its seed.
    """
    name = new_database()
    with server.connect(name) as connection:
        connection.execute("SET ROLE tenant")
        for seed in range(first, first + TOGETHER):
            for statement in Schema(seed, server.version).statements():
                connection.execute(statement.encode())
    copy = f"{name}_copy"
    facts = loaded(dumped(server, name), restore(server, name, copy))
    one, other = (server.pg_dump(database, "--schema-only").splitlines() for database in (name, copy))
    assert list(difflib.unified_diff(one, other, lineterm="", n=1)) == []
    assert server.fingerprint(name) == server.fingerprint(copy)
    assert server.sql(SEQUENCES, name) == server.sql(SEQUENCES, copy)
    assert (facts["check"], facts["skipped"]) == ({"rowsMatch": True, "constraintsValid": True}, [])

"""`export`: files that need nothing of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cli.conftest import Owner, run

NAME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"


def load(owner: Owner, script: Path, database: str) -> None:
    """Load a script with plain psql, as the tenant's own role, into a new database."""
    owner.server.sql(f"CREATE DATABASE {database} OWNER {owner.database}")
    command = [owner.server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script]
    environment = owner.server.environment(database, owner.database)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_plain_psql_makes_the_same_database_of_the_exported_sql(owner: Owner, tmp_path: Path) -> None:
    """pg_dump of both databases is the same text."""
    done = run("export", owner.url, "latest", *owner.reading, "-o", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    script = Path(done.stdout.strip())
    assert [script] == list(tmp_path.iterdir())
    load(owner, script, f"{owner.database}_sql")
    assert owner.dump(f"{owner.database}_sql") == owner.dump(owner.database)

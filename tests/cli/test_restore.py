"""`restore`: a new database from the store, the key and the recovery sheet."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.conftest import COMMAND, Owner, run


def into(owner: Owner, database: str) -> list[str]:
    """The arguments of a restore."""
    where = ["--host", "127.0.0.1", "--port", str(owner.server.port), "--user", "postgres"]
    return [
        "restore",
        owner.url,
        "latest",
        *owner.reading,
        *where,
        "--password-file",
        str(owner.password),
        "--database",
        database,
    ]


def leftovers(owner: Owner) -> str:
    """What a restore makes in a server and has to take away."""
    return owner.server.sql(
        "SELECT datname FROM pg_database WHERE datname ~ '_new_' UNION ALL"
        " SELECT rolname FROM pg_roles WHERE rolname ~ '^tbr_'"
    )


def test_the_restored_database_is_the_one_that_was_backed_up(owner: Owner, tmp_path: Path) -> None:
    """pg_dump of both is the same text, and nothing stays behind."""
    copy = f"{owner.database}_again"
    done = run(*into(owner, copy), TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f'database "{copy}"' in done.stdout
    assert owner.dump(copy) == owner.dump(owner.database)
    assert list(tmp_path.iterdir()) == []
    assert leftovers(owner) == ""


def test_an_existing_database_is_refused_and_not_touched(owner: Owner) -> None:
    """Also when it is the one this very command restored before."""
    done = run(*into(owner, owner.database))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f'NameTaken: database "{owner.database}" exists')

"""`restore`: a new database from the store, the key and the recovery sheet."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from hack.lab.host_postgres import PASSWORD, HostPostgres
from tests.cli.conftest import COMMAND, Owner, into, run

_ACTIVE = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"


def leftovers(owner: Owner) -> str:
    """What a restore makes in a server and has to take away."""
    return owner.server.sql(
        "SELECT datname FROM pg_database WHERE datname ~ '_new_' UNION ALL"
        " SELECT rolname FROM pg_roles WHERE rolname ~ '^tbr_'"
    )


def test_the_restored_database_is_the_one_that_was_backed_up(owner: Owner, short_path: Path) -> None:
    """pg_dump of both is the same text, and nothing stays behind."""
    copy = f"{owner.database}_again"
    done = run(*into(owner, copy), TMPDIR=str(short_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f'database "{copy}"' in done.stdout
    assert owner.dump(copy) == owner.dump(owner.database)
    assert list(short_path.iterdir()) == []
    assert leftovers(owner) == ""


def test_an_existing_database_is_refused_and_not_touched(owner: Owner) -> None:
    """Also when it is the one this very command restored before."""
    done = run(*into(owner, owner.database))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f'NameTaken: database "{owner.database}" exists')


def test_an_interrupted_restore_drops_what_it_began(owner: Owner, short_path: Path) -> None:
    """Ctrl-C while rows are loaded: no database, no login, no secret is left."""
    copy = f"{owner.database}_stopped"
    environment = {**os.environ, "TMPDIR": str(short_path)}
    process = subprocess.Popen(
        [*COMMAND, *into(owner, copy)], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not leftovers(owner):
        assert process.poll() is None
    assert list(short_path.glob("tb-*"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "\ninterrupted; nothing was left behind\n")
    assert leftovers(owner) == ""
    assert copy not in owner.server.sql("SELECT datname FROM pg_database")
    assert list(short_path.iterdir()) == []


def test_a_restore_interrupted_while_the_server_creates_the_database_leaves_none(owner: Owner) -> None:
    """The server would go on creating it for a client that is gone."""
    server = owner.server
    with _somebody_in_template0(server) as somebody:
        process = subprocess.Popen([*COMMAND, *into(owner, "never")], stderr=subprocess.DEVNULL)
        while "CREATE DATABASE" not in server.sql(_ACTIVE):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        somebody.close()
        while "CREATE DATABASE" in server.sql(_ACTIVE):
            continue
    assert leftovers(owner) == ""


@contextlib.contextmanager
def _somebody_in_template0(server: HostPostgres) -> Iterator[psycopg.Connection[Any]]:
    """As long as its template is in use, CREATE DATABASE waits for a few seconds."""
    server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    where = f"host=127.0.0.1 port={server.port} user=postgres password={PASSWORD}"
    with psycopg.connect(f"{where} dbname=template0") as somebody:
        yield somebody
    server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS false")


def test_what_a_killed_restore_left_is_cleared_by_the_next(owner: Owner, short_path: Path) -> None:
    """The same command again finds the names that the dead one made."""
    copy = f"{owner.database}_killed"
    environment = {**os.environ, "TMPDIR": str(short_path)}
    process = subprocess.Popen([*COMMAND, *into(owner, copy)], env=environment, start_new_session=True)
    while "_new_" not in leftovers(owner):
        assert process.poll() is None
    stages = [int(pid) for pid in _children(process.pid)]
    for pid in [process.pid, *stages]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert leftovers(owner)
    assert run(*into(owner, copy)).returncode == 0
    assert leftovers(owner) == ""
    assert owner.dump(copy) == owner.dump(owner.database)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_terminal_shows_a_bar_and_the_data_stays_clean(owner: Owner) -> None:
    """Standard error is a terminal, standard output a pipe."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [*COMMAND, "verify", owner.url, "latest", *owner.reading, "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert process.stdout is not None
    data = process.stdout.read()
    assert process.wait() == 0
    assert b"Opening contents" in shown
    assert b"%" in shown
    assert json.loads(data)["health"] == "Healthy"

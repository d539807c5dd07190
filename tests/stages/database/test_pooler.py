"""PgBouncer in between: whatever its mode and settings, no backup or restore goes through it, and it says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.stages import dump, load, preflight
from tests.engines.peer import ArchivePeer, Kept, OpenPeer
from tests.engines.pooler import INSTALLED, pooler
from tests.engines.server import PASSWORDS, Server
from tests.stages.database.jobs import TENANT, backup, restore

Make = Callable[..., str]
pytestmark = [
    pytest.mark.usefixtures("pod"),
    pytest.mark.skipif(not INSTALLED.exists(), reason="needs the Debian package pgbouncer"),
]


@pytest.mark.parametrize(
    ("mode", "ignored"),
    [
        ("session", "extra_float_digits"),
        ("session", "extra_float_digits, options"),
        ("transaction", "extra_float_digits, options"),
    ],
)
def test_a_pooler_is_refused_before_anything_is_set_or_read(
    server: Server, new_database: Make, mode: str, ignored: str
) -> None:
    """Also one that takes our settings and drops them; the application's session is as it was."""
    name = new_database("CREATE TABLE t AS SELECT 1 AS a")
    with pooler(server, server.database(name), mode, ignored) as database:
        login = {
            "host": "127.0.0.1",
            "port": database.port,
            "user": "tenant",
            "password": PASSWORDS["tenant"],
        }
        with psycopg.connect(dbname=name, autocommit=True, **login) as application:  # type: ignore[arg-type]
            application.execute("SELECT 1")
            peer = ArchivePeer()
            opened = OpenPeer(Kept({"server": {"engine": "PostgreSQL"}}))
            failures = []
            for run in (
                lambda: preflight.run(jobs.Preflight(TENANT, database)),
                lambda: dump.run(backup(server, name, database=database)),
                lambda: load.run(replace(restore(server, name, f"{name}_copy"), database=database)),
            ):
                with pytest.raises(Failure) as caught:
                    run()
                failures.append(caught.value)
            opened.close()
            peer.die()
            assert application.execute("SELECT current_setting('search_path')").fetchone() == (
                '"$user", public',
            )
    assert {(failure.reason, failure.exit_code) for failure in failures} == {
        (Reason.INVALID_SPEC, ExitCode.PERMANENT)
    }
    for failure in failures:
        assert f"127.0.0.1:{database.port} is a connection pooler" in failure.message
        assert "those of the server itself" in failure.message
    assert (peer.kept.segments, peer.kept.size) == ({}, 0)

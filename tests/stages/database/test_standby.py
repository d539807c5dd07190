"""A real standby: it is backed up as its primary would be, or the failure says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.engines.postgresql import catalogue
from tenant_backup.engines.postgresql.endpoint import Connection
from tenant_backup.stages import dump, load, preflight
from tests.engines.peer import ArchivePeer, OpenPeer
from tests.engines.server import Server
from tests.stages.database.jobs import TENANT, backup, dumped, loaded, restore

Make = Callable[..., str]
pytestmark = pytest.mark.usefixtures("pod")
NUMBERS = """CREATE TABLE numbers (id serial PRIMARY KEY, t text);
             INSERT INTO numbers (t) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 20000) i"""


@pytest.fixture(scope="module")
def standby(server: Server) -> Iterator[Server]:
    """It ends at once whatever is in the way of its recovery."""
    made = server.standby(max_standby_streaming_delay="0")
    yield made
    made.remove()


def refused(server: Server, name: str) -> Failure:
    """Look, expecting the refusal that a backup would end with."""
    with pytest.raises(Failure) as caught:
        preflight.run(jobs.Preflight(TENANT, server.database(name)))
    return caught.value


def test_a_standby_is_backed_up_like_its_primary(server: Server, standby: Server, new_database: Make) -> None:
    """One snapshot for many sessions, ranges, definitions; restored to the primary it is the same."""
    name = new_database(f"{NUMBERS}; CREATE TABLE other AS SELECT 1 AS a; SELECT lo_from_bytea(1, 'x')")
    standby.caught_up(server)
    loaded(dumped(standby, name), restore(server, name, f"{name}_copy"))
    assert server.fingerprint(name) == server.fingerprint(f"{name}_copy")
    assert server.pg_dump(name, "--schema-only") == server.pg_dump(f"{name}_copy", "--schema-only")


def test_rows_that_only_the_primary_has_are_not_left_out_in_silence(
    server: Server, standby: Server, new_database: Make
) -> None:
    """An unlogged table is empty on a standby; excluded by name it is in nobody's way, nor is its sequence."""
    name = new_database(
        f"{NUMBERS}; CREATE UNLOGGED TABLE quick (id serial, a int); INSERT INTO quick (a) VALUES (1)"
    )
    standby.caught_up(server)
    failure = refused(standby, name)
    assert failure.reason is Reason.UNSUPPORTED_CONTENT
    for words in ("public.quick", "primary", "exclusions.tables"):
        assert words in failure.message
    kept = dumped(standby, name, exclude_tables=["public.quick"])
    assert loaded(kept, restore(server, name, f"{name}_copy"))["restored"]["rows"] == 20000


def test_a_backup_that_stands_in_the_way_of_recovery_ends_and_is_tried_again(
    server: Server, standby: Server, new_database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to set is said; nothing that was read counts."""
    name = new_database(NUMBERS)
    standby.caught_up(server)
    conflicts = f"SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts WHERE datname = '{name}'"

    describe = catalogue.describe

    def vacuum(leader: Connection, *more: Any) -> dict[str, Any]:
        server.sql("DELETE FROM numbers WHERE id < 10", name)
        server.sql("VACUUM numbers", name)
        while not standby.scalar(conflicts):
            pass
        return describe(leader, *more)

    monkeypatch.setattr(catalogue, "describe", vacuum)
    peer = ArchivePeer()
    with pytest.raises(Failure) as caught:
        dump.run(backup(standby, name))
    peer.die()
    assert (caught.value.reason, caught.value.exit_code) == (Reason.DUMP_FAILED, ExitCode.RETRIABLE)
    assert "max_standby_streaming_delay" in caught.value.message
    assert not peer.kept.complete


def test_a_standby_cannot_be_restored_to(server: Server, standby: Server, new_database: Make) -> None:
    """It says so at once."""
    name = new_database(NUMBERS)
    kept = dumped(server, name)
    standby.caught_up(server)
    peer = OpenPeer(kept)
    with pytest.raises(Failure) as caught:
        load.run(restore(standby, name, f"{name}_copy"))
    peer.close()
    assert (caught.value.exit_code, "primary" in caught.value.message) == (ExitCode.PERMANENT, True)

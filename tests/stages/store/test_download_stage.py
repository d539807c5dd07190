"""Objects on their way back: each is what was asked for, or the restore ends with its name."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Reason
from tenant_backup.stages import wire
from tenant_backup.stores.base import digest_of
from tests.stages.pod import BACKUP_ID, TENANT

from .site import Site, packs


class Open:
    """One connection of the stage `open`."""

    def __init__(self, site: Site) -> None:
        self.connection = wire.connect(site.pod.run / "download.sock", "download")
        self.reader = wire.Reader(self.connection, "download")

    def ask(self, **question: Any) -> dict[str, Any] | None:
        """Send a question; return the answer, None when the connection was closed instead."""
        wire.send(self.connection, question)
        return self.reader.message_or_end()


def put(site: Site, objects: dict[str, bytes]) -> None:
    for name, data in objects.items():
        site.store().put(name, data, digest_of(data))


def test_objects_are_fetched_over_several_connections_at_once(site: Site) -> None:
    """Each asker gets its own file with the right bytes, and unlinks it itself."""
    objects = packs(24, 300_000)
    put(site, objects)
    stage = site.pod.start("download", site.restore())
    control = Open(site)
    received: dict[str, bytes] = {}

    def fetch(names: list[str]) -> None:
        client = Open(site)
        for name in names:
            data = objects[name]
            sha256 = hashlib.sha256(data).hexdigest()
            answer = client.ask(get=name, length=len(data), sha256=sha256)
            assert answer is not None
            assert (answer["length"], answer["sha256"]) == (len(data), sha256)
            received[name] = Path(answer["path"]).read_bytes()
            Path(answer["path"]).unlink()
        client.connection.close()

    threads = [threading.Thread(target=fetch, args=(list(objects)[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wire.send(control.connection, {"done": True})
    ended = stage.ended()

    assert objects == received
    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts == {"objects": 24, "bytes": 24 * 300_000}
    assert list((site.pod.root / "spool").iterdir()) == []


def test_what_is_there_and_how_long_is_answered(site: Site) -> None:
    """`stat` gives a length or null, and an unknown digest is simply told."""
    put(site, {"packs/aa/one": b"12345"})
    stage = site.pod.start("download", site.restore())
    client = Open(site)

    assert client.ask(stat="packs/aa/one") == {"length": 5}
    assert client.ask(stat="packs/aa/none") == {"length": None}
    answer = client.ask(get="packs/aa/one", length=None, sha256=None)
    assert answer is not None
    assert answer["sha256"] == hashlib.sha256(b"12345").hexdigest()
    wire.send(client.connection, {"done": True})
    assert stage.ended().code == ExitCode.SUCCESS


@pytest.mark.parametrize(
    ("name", "length", "sha256", "reason"),
    [
        ("packs/aa/one", 5, hashlib.sha256(b"other").hexdigest(), Reason.CHECKSUM_MISMATCH),
        ("packs/aa/one", 6, None, Reason.CHECKSUM_MISMATCH),
        ("packs/aa/none", 5, None, Reason.PACK_MISSING),
        ("lists/none", None, None, Reason.PACK_MISSING),
        (f"manifests/{BACKUP_ID}", None, None, Reason.BACKUP_NOT_FOUND),
    ],
)
def test_what_cannot_be_given_ends_the_restore_with_its_name(
    site: Site, name: str, length: int | None, sha256: str | None, reason: Reason
) -> None:
    """Permanent: the same object would be damaged or missing the next time."""
    put(site, {"packs/aa/one": b"12345"})
    stage = site.pod.start("download", site.restore())
    client = Open(site)

    assert client.ask(get=name, length=length, sha256=sha256) is None
    ended = stage.ended()
    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, reason)
    assert f"{site.store().location}/{name}" in ended.result.message


def test_an_open_that_dies_is_noticed(on_volume: Site) -> None:
    """All connections gone and nobody was done."""
    put(on_volume, {"packs/aa/one": b"12345"})
    stage = on_volume.pod.start("download", on_volume.restore())
    clients = [Open(on_volume) for _ in range(3)]
    for client in clients:
        assert client.ask(stat="packs/aa/one") == {"length": 5}  # so all of them have been let in
    for client in clients:
        client.connection.close()

    assert stage.ended().code == ExitCode.PEER_FAILED


def test_an_open_that_failed_before_it_came_is_not_waited_for(on_volume: Site) -> None:
    """Its flag in the run folder is enough."""
    wire.failed_flag(on_volume.pod.run, "open").write_text("")

    assert on_volume.pod.start("download", on_volume.restore()).ended().code == ExitCode.PEER_FAILED


def test_a_name_that_leads_elsewhere_is_refused(on_volume: Site) -> None:
    """Names come from a manifest, which somebody else may have written."""
    stage = on_volume.pod.start("download", on_volume.restore())

    assert Open(on_volume).ask(get="../../etc/passwd", length=None, sha256=None) is None
    assert stage.ended().code == ExitCode.BUG


def verification(site: Site) -> jobs.Verify:
    """A verification of tenant acme in this store."""
    return jobs.Verify("uid-1", BACKUP_ID, "Checksum", True, 0, TENANT, site.described, "", "")


def test_a_verification_is_told_how_objects_are_and_gets_only_whole_ones(site: Site) -> None:
    """Checked there, or kept for whoever decrypts; what is damaged is not handed on."""
    put(site, {"packs/aa/one": b"12345"})
    good = {"length": 5, "sha256": hashlib.sha256(b"12345").hexdigest()}
    stage = site.pod.start("download", verification(site))
    client = Open(site)

    assert client.ask(check="packs/aa/one", **good) == {"found": "ok"}
    assert client.ask(check="packs/aa/one", **good | {"length": 4}) == {"found": "damaged"}
    assert client.ask(check="packs/aa/none", **good) == {"found": "missing"}
    assert client.ask(keep="packs/aa/one", **good | {"sha256": "0" * 64}) == {"found": "damaged"}
    assert client.ask(keep="packs/aa/none", **good) == {"found": "missing"}
    assert list((site.pod.root / "spool").iterdir()) == []
    kept = client.ask(keep="packs/aa/one", **good)
    assert kept is not None
    assert Path(kept["path"]).read_bytes() == b"12345"
    wire.send(client.connection, {"done": True})
    assert stage.ended().code == ExitCode.SUCCESS


@pytest.mark.parametrize(
    "name", ["TENANT", f"manifests/{BACKUP_ID}", "packs/aa/../../TENANT", "keys/aa.bb.age"]
)
def test_only_packs_and_lists_are_marked_bad(on_volume: Site, name: str) -> None:
    """`examine` has no right to write, and must not have others written for it."""
    stage = on_volume.pod.start("download", verification(on_volume))

    assert Open(on_volume).ask(mark=name) is None
    assert stage.ended().code == ExitCode.BUG
    assert on_volume.names("bad") == []


def test_a_restore_gets_nothing_marked(on_volume: Site) -> None:
    """Its `open` reads and does no more."""
    stage = on_volume.pod.start("download", on_volume.restore())

    assert Open(on_volume).ask(mark=f"lists/{'0' * 32}") is None
    assert stage.ended().code == ExitCode.BUG
    assert on_volume.names("bad") == []

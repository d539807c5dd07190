"""The open stage as a process between its peers: verified rows or a reason, nothing else."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tenant_backup.contract.job import Tenant
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.stages import wire
from tests.stages.pod import Ended, Pod, Sent, catalogue_of, download, dump, kill, new_pod, upload

BIG = secrets.token_bytes(3 << 20).replace(b"\n", b"n") + b"\n"
SEGMENTS: Sent = {
    "schema": (b"PGDMP\0", None),
    "t1/0": (b"1\tx\n" * 5000, 5000),
    "t1/1": (BIG, 1),
    "t1/2": (b"", 0),
}


@pytest.fixture
def pod() -> Iterator[Pod]:
    """A pod whose store holds a backup made by the real archive stage."""
    with new_pod() as pod:
        pod.prepare()
        pod.peer(upload)
        pod.peer(dump, SEGMENTS, catalogue_of(SEGMENTS))
        assert pod.start("archive", pod.backup_job()).ended().result.ok
        yield pod


class Load:
    """What `load` does: a control connection, and one more for each segment it wants."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.control = self._connect()
        wire.send(self.control, {"get": "catalogue"})
        self.answer = wire.Reader(self.control, "open").message()

    def _connect(self) -> socket.socket:
        return wire.connect(self.pod.run / "open.sock", "open")

    def segment(self, segment_id: str) -> tuple[bytes, dict[str, Any]]:
        """Ask for one segment over a new connection."""
        connection = self._connect()
        wire.send(connection, {"get": "segment", "segment": segment_id})
        reader = wire.Reader(connection, "open")
        return b"".join(bytes(block) for block in reader.blocks()), reader.message()

    def done(self) -> None:
        """Say that everything was loaded."""
        wire.send(self.control, {"done": True})


def failed(pod: Pod, **changes: Any) -> Ended:
    """Run the stage with a store and a `load` that only waits; return its failure."""
    pod.peer(download)
    ended = pod.start("open", pod.restore_job(**changes)).ended()
    assert not ended.result.ok
    return ended


def the_pack(pod: Pod) -> Path:
    (pack,) = (pod.objects / "packs").glob("*/*")
    return pack


def test_every_segment_comes_back_over_several_connections(pod: Pod) -> None:
    """With rows and bytes as they were counted when the backup was made."""
    checksum = hashlib.sha256(pod.manifest.read_bytes()).hexdigest()
    downloads = pod.peer(download)
    stage = pod.start("open", pod.restore_job(manifest_sha256=checksum))
    load = Load(pod)
    assert load.answer["catalogue"] == catalogue_of(SEGMENTS)
    assert load.answer["manifest"]["backupId"] == pod.manifest.name
    received: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def receive(segment_id: str) -> None:
        received[segment_id] = load.segment(segment_id)

    threads = [threading.Thread(target=receive, args=(segment_id,)) for segment_id in SEGMENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {name: (data, {"rows": rows, "bytes": len(data)}) for name, (data, rows) in SEGMENTS.items()}
    assert received == expected
    load.done()
    assert stage.ended().code == ExitCode.SUCCESS
    downloads.join()
    assert downloads.exitcode == 0
    assert list((pod.root / "spool").iterdir()) == []


def test_the_identity_alone_is_enough_when_the_cluster_is_lost(pod: Pod) -> None:
    """The index key comes from the store."""
    pod.forget_cluster_keys()
    pod.peer(download)
    stage = pod.start("open", pod.restore_job())
    load = Load(pod)
    assert load.segment("schema")[0] == b"PGDMP\0"
    load.done()
    assert stage.ended().code == ExitCode.SUCCESS


def test_a_missing_identity_is_named(pod: Pod) -> None:
    """The Secret and the key in it."""
    (pod.root / "secrets/identity/identity").unlink()
    ended = failed(pod)
    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.KEY_MISSING)
    assert "acme-identity" in ended.result.message
    assert '"identity"' in ended.result.message


def test_a_wrong_identity_is_told(pod: Pod) -> None:
    """Before `load` gets any answer."""
    pod.secret("identity", "identity", str(pyrage.x25519.Identity.generate()).encode())
    assert failed(pod).reason is Reason.WRONG_KEY


def test_a_manifest_of_another_signer_is_told(pod: Pod) -> None:
    """The trusted key comes from the cluster and not from the store."""
    assert failed(pod, signing_key="00" * 32).reason is Reason.SIGNATURE_INVALID


def test_a_key_of_an_earlier_life_is_believed_where_a_person_named_it(pod: Pod) -> None:
    """After the loss of a cluster the tenant signs with another key than its old backups."""
    pod.forget_cluster_keys()
    pod.peer(download)
    job = pod.restore_job()
    job = pod.restore_job(signing_key="00" * 32, trusted_keys=["11" * 32, job.signing_key])
    stage = pod.start("open", job)
    load = Load(pod)
    assert load.segment("schema")[0] == b"PGDMP\0"
    load.done()
    assert stage.ended().code == ExitCode.SUCCESS


def test_another_manifest_than_the_committed_one_is_told(pod: Pod) -> None:
    """The cluster knows its checksum."""
    assert failed(pod, manifest_sha256="0" * 64).reason is Reason.CHECKSUM_MISMATCH


def test_a_manifest_under_another_name_is_told(pod: Pod) -> None:
    """A replay: an older backup in the place of a newer one."""
    pod.manifest.rename(pod.manifest.with_name("acme_2024-02-01_00-00-00"))
    assert failed(pod, backup_id="acme_2024-02-01_00-00-00").reason is Reason.SIGNATURE_INVALID


def test_a_backup_of_another_tenant_is_told(pod: Pod) -> None:
    """Same keys, other name."""
    other = Tenant("cluster-1", "default", "other", "other")
    assert failed(pod, source=other).reason is Reason.CROSS_TENANT_ACCESS


def test_a_backup_that_is_gone_is_told(pod: Pod) -> None:
    """Its manifest was deleted."""
    pod.manifest.unlink()
    assert failed(pod).reason is Reason.BACKUP_NOT_FOUND


def test_a_missing_pack_is_told_before_the_restore_starts(pod: Pod) -> None:
    """With its name."""
    pack = the_pack(pod)
    pack.unlink()
    ended = failed(pod)
    assert ended.reason is Reason.PACK_MISSING
    assert pack.name in ended.result.message


def test_no_row_of_a_damaged_chunk_is_ever_sent(pod: Pod) -> None:
    """What arrives before the stream breaks off is a genuine beginning."""
    pack = the_pack(pod)
    damaged = bytearray(pack.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    pack.write_bytes(damaged)
    pod.peer(download)
    stage = pod.start("open", pod.restore_job())
    load = Load(pod)
    broken = 0
    for segment_id, (data, _) in SEGMENTS.items():
        arrived = b""
        try:
            connection = wire.connect(pod.run / "open.sock", "open", timeout=1)
            wire.send(connection, {"get": "segment", "segment": segment_id})
            reader = wire.Reader(connection, "open")
            for block in reader.blocks():
                arrived += block
            reader.message()
        except (Failure, OSError):
            broken += 1
        assert data.startswith(arrived)
    assert broken
    ended = stage.ended()
    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.CHECKSUM_MISMATCH)
    assert pack.name in ended.result.message
    assert load.control.recv(1) == b""


@pytest.mark.parametrize("moment", ["before", "while serving"])
def test_a_download_that_dies_is_told_as_a_peers_failure(pod: Pod, moment: str) -> None:
    """Before it answered anything, and when a pack is asked for."""
    if moment == "before":
        wire.failed_flag(pod.run, "download").write_bytes(b"{}")
        ended = pod.start("open", pod.restore_job()).ended()
    else:
        downloads = pod.peer(accept_and_wait)
        stage = pod.start("open", pod.restore_job())
        while not (pod.root / "asked").exists():
            assert stage.process.poll() is None
        kill(downloads)
        ended = stage.ended()
    assert (ended.code, ended.reason) == (ExitCode.PEER_FAILED, Reason.PEER_FAILED)


def accept_and_wait(pod: Pod) -> None:
    """A download that never answers."""
    connection, _ = wire.listen(pod.run / "download.sock").accept()
    wire.Reader(connection, "open").message()
    (pod.root / "asked").touch()
    threading.Event().wait()


def take_a_segment_and_wait(pod: Pod) -> None:
    """A load that reads one block of a segment."""
    load = Load(pod)
    connection = wire.connect(pod.run / "open.sock", "open")
    wire.send(connection, {"get": "segment", "segment": "t1/1"})
    next(wire.Reader(connection, "open").blocks())
    (pod.root / "reading").write_text(json.dumps(load.answer))
    threading.Event().wait()


def test_a_load_killed_in_mid_stream_is_told_as_a_peers_failure(pod: Pod) -> None:
    """SIGKILL while a segment is on its way."""
    pod.peer(download)
    loader = pod.peer(take_a_segment_and_wait)
    stage = pod.start("open", pod.restore_job())
    while not (pod.root / "reading").exists():
        assert stage.process.poll() is None
    kill(loader)
    ended = stage.ended()
    assert (ended.code, ended.reason) == (ExitCode.PEER_FAILED, Reason.PEER_FAILED)


def test_a_load_that_said_it_failed_is_not_waited_for(pod: Pod) -> None:
    """It may never connect."""
    pod.peer(download)
    wire.failed_flag(pod.run, "load").write_bytes(b"{}")
    assert pod.start("open", pod.restore_job()).ended().reason is Reason.PEER_FAILED

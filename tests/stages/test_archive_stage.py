"""The archive stage as a process between its peers: nothing but a whole dump becomes a backup."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup.archive.keys import IndexKey
from tenant_backup.archive.manifest import TenantIdentity, parse, sign
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Reason
from tenant_backup.contract.results import Result
from tenant_backup.stages import wire
from tenant_backup.stages.base import fetch_base
from tenant_backup.stores.volume import VolumeStore
from tests.archive.sample import Folder, Keyring, open_reader, read_all
from tests.stages.pod import (
    Pod,
    Sent,
    catalogue_of,
    connect_dump,
    dump,
    kill,
    new_pod,
    send_segment,
    upload,
)

ROWS = b"".join(b"%d\tname %d\n" % (n, n) for n in range(50_000))
SEGMENTS: Sent = {
    "schema": (b"PGDMP\0\n\n", None),
    "t1/0": (ROWS, 50_000),
    "t1/1": (b"1\tx\n", 1),
    "t1/2": (b"", 0),
}


@pytest.fixture
def pod() -> Iterator[Pod]:
    """A prepared pod with no peers yet."""
    with new_pod() as pod:
        pod.prepare()
        yield pod


def test_a_whole_dump_becomes_a_backup_with_its_facts(pod: Pod) -> None:
    """All peers end well, and the manifest says what status will say."""
    pod.peer(upload)
    producer = pod.peer(dump, SEGMENTS, catalogue_of(SEGMENTS))
    ended = pod.start("archive", pod.backup_job(only_modules=("hr",))).ended()
    assert (ended.code, ended.result.facts) == (ExitCode.SUCCESS, {})
    producer.join()
    assert producer.exitcode == 0
    facts = json.loads((pod.root / "facts.json").read_text())
    assert (facts["backupId"], facts["rows"], facts["tables"]) == (pod.manifest.name, 50_001, 1)
    assert facts["bytes"]["logical"] == sum(len(data) for data, _ in SEGMENTS.values())
    manifest = json.loads(pod.manifest.read_bytes())
    assert manifest["backup"] == {"name": "acme-1", "uid": "uid-1"}
    assert manifest["partial"] is True
    assert list((pod.root / "spool").iterdir()) == []


def test_the_index_key_is_put_only_when_it_is_not_there(pod: Pod) -> None:
    """`keys/` objects are never written twice."""
    pod.peer(upload)
    pod.peer(dump, SEGMENTS, catalogue_of(SEGMENTS))
    pod.start("archive", pod.backup_job()).ended()
    (key,) = (pod.objects / "keys").iterdir()
    key.unlink()
    pod.prepare(keys=(f"keys/{key.name}",))
    pod.peer(upload)
    pod.peer(dump, SEGMENTS, catalogue_of(SEGMENTS))
    assert pod.start("archive", pod.backup_job()).ended().result.ok
    assert list((pod.objects / "keys").iterdir()) == []


def test_what_was_committed_before_is_not_done_again(pod: Pod) -> None:
    """No peer is needed, none is waited for."""
    pod.prepare(committed={"backupId": "x"})
    assert pod.start("archive", pod.backup_job()).ended().code == ExitCode.SUCCESS


def without_manifest(pod: Pod, code: int, expected: ExitCode) -> None:
    assert code == expected
    assert not pod.manifest.exists()


def endless_dump(pod: Pod) -> None:
    """Send rows for ever, as psql would from a big table."""
    control = connect_dump(pod, "control")
    connection = connect_dump(pod, "data")
    marker = wire.new_marker().hex()
    wire.send(connection, {"segment": "t1/0", "kind": "rows", "table": "public.t", "marker": marker})
    while True:
        connection.sendall(ROWS)
    control.close()


def test_a_producer_killed_in_mid_stream_is_never_a_backup(pod: Pod) -> None:
    """SIGKILL once packs have arrived in the store."""
    pod.peer(upload)
    producer = pod.peer(endless_dump)
    stage = pod.start("archive", pod.backup_job())
    while not (pod.objects / "packs").exists():
        assert stage.process.poll() is None
        time.sleep(0.01)
    kill(producer)
    without_manifest(pod, stage.ended().code, ExitCode.PEER_FAILED)


def cut_short(pod: Pod, where: str) -> None:
    """Send a whole dump, but go away at `where`."""
    control = connect_dump(pod, "control")
    connection = connect_dump(pod, "data")
    marker = wire.new_marker()
    if where == "before a segment":
        return
    wire.send(connection, {"segment": "t1/0", "kind": "rows", "table": "public.t", "marker": marker.hex()})
    connection.sendall(b"1\tx\n" + (marker[:31] if where == "in the marker" else b""))
    if where in {"in the rows", "in the marker"}:
        return
    connection.sendall(marker)
    if where == "before the row count":
        return
    wire.send(connection, {"rows": 1})
    if where == "before the end":
        return
    wire.send(connection, {"end": True})
    if where == "before the catalogue":
        return
    wire.send(control, {"catalogue": catalogue_of({"t1/0": (b"", 1)})})


@pytest.mark.parametrize(
    "where",
    [
        "before a segment",
        "in the rows",
        "in the marker",
        "before the row count",
        "before the end",
        "before the catalogue",
        "before done",
    ],
)
def test_a_dump_that_ends_early_is_never_a_backup(pod: Pod, where: str) -> None:
    """Wherever the connections end, end of file is failure."""
    pod.peer(upload)
    pod.peer(cut_short, where)
    without_manifest(pod, pod.start("archive", pod.backup_job()).ended().code, ExitCode.PEER_FAILED)


@pytest.mark.parametrize("die_after", [0, 1, 2])
def test_an_upload_that_dies_is_told_as_a_peers_failure(pod: Pod, die_after: int) -> None:
    """Before the first object, and with objects on their way."""
    pod.peer(upload, die_after)
    pod.peer(endless_dump)
    ended = pod.start("archive", pod.backup_job()).ended()
    assert ended.reason is Reason.PEER_FAILED
    assert "upload" in ended.result.message
    without_manifest(pod, ended.code, ExitCode.PEER_FAILED)


def test_an_upload_that_dies_in_the_commit_is_told_as_a_peers_failure(pod: Pod) -> None:
    """The producer is done and waits: it must not wait for ever."""
    uploader = pod.peer(upload, -1, True)
    producer = pod.peer(dump, SEGMENTS, catalogue_of(SEGMENTS))
    stage = pod.start("archive", pod.backup_job())
    while not (pod.root / "spool/manifest").exists():
        assert stage.process.poll() is None
        time.sleep(0.01)
    kill(uploader)
    without_manifest(pod, stage.ended().code, ExitCode.PEER_FAILED)
    producer.join()
    assert producer.exitcode != 0


@pytest.mark.parametrize("peer", ["dump", "upload"])
def test_a_peer_that_said_it_failed_is_not_waited_for(pod: Pod, peer: str) -> None:
    """It may never connect: its flag is enough."""
    if peer == "dump":
        pod.peer(upload)
    wire.failed_flag(pod.run, peer).write_bytes(b"{}")
    ended = pod.start("archive", pod.backup_job()).ended()
    assert (ended.code, ended.reason) == (ExitCode.PEER_FAILED, Reason.PEER_FAILED)


def wrong_table_count(segments: Sent) -> dict[str, Any]:
    catalogue = catalogue_of(segments)
    catalogue["tables"][0]["rows"] += 1
    return catalogue


FOLLOWING = "acme_2024-01-16_14-30-25"


def keyring(pod: Pod) -> Keyring:
    signing = Ed25519PrivateKey.from_private_bytes(pod.signing_seed)
    return Keyring(IndexKey(pod.index_key), signing, pod.identity, pod.backup_job().recipients)


def back_up(pod: Pod, job: jobs.Backup, segments: Sent = SEGMENTS) -> dict[str, int]:
    """Run the stage between its peers; return the sizes in its facts."""
    pod.peer(upload)
    pod.peer(dump, segments, catalogue_of(segments))
    assert pod.start("archive", job).ended().result == Result(True)
    sizes: dict[str, int] = json.loads((pod.root / "facts.json").read_text())["bytes"]
    assert list((pod.root / "spool").iterdir()) == []
    return sizes


def prepare_second(pod: Pod, job: jobs.Backup) -> None:
    """Do what the init container does for the backup after the first."""
    pod.prepare(backup_id=FOLLOWING)
    base = fetch_base(VolumeStore(pod.root, "objects"), job, pod.root / "spool/base")
    assert base is not None
    pod.prepare(backup_id=FOLLOWING, base=base)


def restored(pod: Pod) -> dict[str, bytes]:
    return read_all(open_reader(Folder(pod.objects), keyring(pod), backup_id=FOLLOWING))


def test_an_unchanged_dump_adds_next_to_nothing(pod: Pod) -> None:
    """And restores from what the first backup stored."""
    first = back_up(pod, pod.backup_job())
    prepare_second(pod, pod.backup_job())
    second = back_up(pod, pod.backup_job())
    assert first["added"] == first["stored"]
    assert second["logical"] == first["logical"]
    assert second["added"] < 2000 < first["added"]
    assert restored(pod) == {name: data for name, (data, _) in SEGMENTS.items()}


def sign_again(pod: Pod, signing: Ed25519PrivateKey | None = None, **changes: Any) -> None:
    manifest = dataclasses.replace(parse(pod.manifest.read_bytes()), **changes)
    pod.manifest.write_bytes(sign(manifest, signing or keyring(pod).signing))


def forge(pod: Pod) -> None:
    sign_again(pod, Ed25519PrivateKey.generate())


def of_another_tenant(pod: Pod) -> None:
    sign_again(pod, tenant=TenantIdentity("cluster-1", "other", "acme", "acme"))


def under_another_key(pod: Pod) -> None:
    encryption = parse(pod.manifest.read_bytes()).encryption
    sign_again(pod, encryption=dataclasses.replace(encryption, key_id="0" * 16))


def for_others(pod: Pod) -> None:
    encryption = parse(pod.manifest.read_bytes()).encryption
    sign_again(pod, encryption=dataclasses.replace(encryption, recipients=("age1other",)))


def nothing(pod: Pod) -> None:
    del pod


def damage_list(pod: Pod) -> None:
    (path,) = (path for path in (pod.root / "spool/base").iterdir() if path.name != "manifest")
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


def lose_list(pod: Pod) -> None:
    (path,) = (path for path in (pod.root / "spool/base").iterdir() if path.name != "manifest")
    path.unlink()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param(forge, nothing, "not signed by this tenant's key", id="forged"),
        pytest.param(of_another_tenant, nothing, "belongs to tenant other/acme", id="of another tenant"),
        pytest.param(under_another_key, nothing, "another key", id="under another key"),
        pytest.param(for_others, nothing, "other recipients", id="for other recipients"),
        pytest.param(nothing, damage_list, "frame 0 is not what was written", id="with a damaged list"),
        pytest.param(nothing, lose_list, "is missing", id="without a list"),
    ],
)
def test_a_base_that_is_not_good_costs_space_and_never_the_backup(
    pod: Pod, before: Callable[[Pod], None], after: Callable[[Pod], None], said: str
) -> None:
    """Everything is stored anew and restores, and the log says why."""
    first = back_up(pod, pod.backup_job())
    before(pod)
    prepare_second(pod, pod.backup_job())
    after(pod)
    second = back_up(pod, pod.backup_job())
    assert second["added"] == second["stored"] > first["stored"] * 0.9
    assert restored(pod) == {name: data for name, (data, _) in SEGMENTS.items()}
    output = (pod.root / "output").read_text()
    assert "everything is stored anew" in output
    assert said in output


FEWER: Sent = {"t1/0": (b"1\n2\n", 3)}
MORE: Sent = {"t1/0": (b"1\n2\n", 1)}
NONE: Sent = {"t1/0": (b"1\n2\n", None)}
CUT: Sent = {"t1/0": (b"1\n2", 2)}
WHOLE: Sent = {"t1/0": (b"1\n2\n", 2)}


@pytest.mark.parametrize(
    ("segments", "catalogue", "listed"),
    [
        pytest.param(FEWER, catalogue_of(FEWER), None, id="fewer rows than the server said"),
        pytest.param(MORE, catalogue_of(MORE), None, id="more rows than the server said"),
        pytest.param(NONE, catalogue_of(NONE), None, id="rows without a count"),
        pytest.param(CUT, catalogue_of(CUT), None, id="half a row at the end"),
        pytest.param(WHOLE, catalogue_of(WHOLE), ["t1/0", "t1/1"], id="a listed segment did not come"),
        pytest.param(WHOLE, catalogue_of(WHOLE), [], id="a segment came that is not listed"),
        pytest.param(WHOLE, catalogue_of({**WHOLE, "t1/1": (b"", 0)}), None, id="a table lacks a segment"),
        pytest.param(WHOLE, wrong_table_count(WHOLE), None, id="a table's rows do not add up"),
    ],
)
def test_a_dump_that_does_not_add_up_is_truncated(
    pod: Pod, segments: Sent, catalogue: dict[str, Any], listed: list[str] | None
) -> None:
    """Rows and segments are counted on both sides."""
    pod.peer(upload)
    pod.peer(dump, segments, catalogue, listed)
    ended = pod.start("archive", pod.backup_job()).ended()
    assert ended.reason is Reason.DUMP_TRUNCATED
    without_manifest(pod, ended.code, ExitCode.RETRIABLE)


def test_a_segment_sent_twice_is_truncated(pod: Pod) -> None:
    """Two workers that took the same range have left another one out."""
    pod.peer(upload)
    pod.peer(dump_twice)
    ended = pod.start("archive", pod.backup_job()).ended()
    assert ended.reason is Reason.DUMP_TRUNCATED


def dump_twice(pod: Pod) -> None:
    """Send one segment on two connections."""
    control = connect_dump(pod, "control")
    connections = [connect_dump(pod, "data") for _ in range(2)]
    for connection in connections:
        send_segment(connection, "t1/0", b"1\n", 1)
        wire.send(connection, {"end": True})
    wire.Reader(control, "archive").message_or_end()


@pytest.mark.parametrize("name", ["indexKey", "signingKey"])
def test_a_missing_key_is_named(pod: Pod, name: str) -> None:
    """A Secret without it, or with one that is too short."""
    pod.secret("keys", name, b"short")
    ended = pod.start("archive", pod.backup_job()).ended()
    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.KEY_MISSING)
    assert name in ended.result.message


@pytest.mark.parametrize("piece", [1, 7, 31, 33, 1000])
def test_a_marker_that_straddles_reads_is_found(piece: int) -> None:
    """And bytes that begin like the marker are rows. Packets make each read return one piece."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    marker = wire.new_marker()
    data = b"row\n" + marker[:20] + b"\n" + marker[:31] + b"x\n"
    stream = data + marker
    for at in range(0, len(stream), piece):
        theirs.sendall(stream[at : at + piece])
    assert b"".join(map(bytes, wire.Reader(ours, "dump").raw(marker))) == data


def test_what_follows_a_stream_is_read_after_it() -> None:
    """Two segments and their verdicts may come in one read."""
    ours, theirs = socket.socketpair()
    for rows in (b"1\n2\n", b""):
        send_segment(theirs, "t1/0", rows, 2)
    reader = wire.Reader(ours, "dump")
    for rows in (b"1\n2\n", b""):
        marker = bytes.fromhex(reader.message()["marker"])
        assert b"".join(map(bytes, reader.raw(marker))) == rows
        assert reader.message() == {"rows": 2}

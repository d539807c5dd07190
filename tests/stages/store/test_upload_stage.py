"""The commit protocol: nothing is a backup before everything is in the store and was read back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.stages import upload, wire
from tenant_backup.stores import s3
from tenant_backup.stores.base import Digest, digest_of
from tenant_backup.stores.volume import VolumeStore
from tests.stages.pod import BACKUP_ID, Ended, Pod
from tests.stores import s3_server
from tests.stores.s3_server import Proxy, S3Server, free_port

from .site import OTHER_UID, Archive, Site, facts_of, manifest_of, packs, s3_site

MANIFEST = f"manifests/{BACKUP_ID}"


def upload_all(site: Site, objects: dict[str, bytes], manifest: bytes, *, verify: bool = True) -> Ended:
    """Run `upload` for these objects as a well-behaved `archive` would."""
    site.pod.prepare()
    stage = site.pod.start("upload", site.backup(verify=verify))
    archive = Archive(site.pod)
    for name, data in objects.items():
        archive.put(name, data)
    assert archive.stored(len(objects)) == set(objects)
    archive.commit(manifest)
    ended = stage.ended()
    archive.die()
    return ended


def test_a_backup_is_stored_committed_and_verified(site: Site) -> None:
    """Packs, then the manifest; the facts say where it is, with which checksum, and that it is healthy."""
    objects, manifest = packs(12), manifest_of()
    ended = upload_all(site, objects, manifest)

    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts == {
        **facts_of(manifest),
        "location": f"{site.store().location}/{MANIFEST}",
        "health": "Healthy",
        "verification": {
            "level": "Checksum",
            "message": "12 objects with 1200000 bytes were read back",
        },
    }
    assert manifest == site.object(MANIFEST)
    assert objects == {name: site.object(name) for name in site.names("packs")}
    assert [item.name for item in (site.pod.root / "spool").iterdir()] == [MANIFEST.replace("/", "-")]


def test_without_verification_health_is_unknown(on_volume: Site) -> None:
    """Nobody looked, so nobody says Healthy."""
    ended = upload_all(on_volume, packs(1), manifest_of(), verify=False)

    assert ended.result.facts["health"] == "Unknown"


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_pack_damaged_after_it_was_acknowledged_makes_the_backup_corrupt(
    on_volume: Site, damage: str
) -> None:
    """The commit stands, Corrupt with the pack's name, not Failed."""
    objects = packs(5)
    victim = sorted(objects)[2]
    on_volume.pod.prepare()
    stage = on_volume.pod.start("upload", on_volume.backup())
    archive = Archive(on_volume.pod)
    for name, data in objects.items():
        archive.put(name, data)
    archive.stored(len(objects))
    path = on_volume.volume / "prod/acme" / victim
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            objects[victim][:-1] + (b"" if damage == "cut" else bytes([objects[victim][-1] ^ 1]))
        )
    archive.commit(manifest_of())
    ended = stage.ended()

    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts["health"] == "Corrupt"
    assert victim in ended.result.facts["verification"]["message"]


def test_an_archive_that_dies_before_its_commit_leaves_no_backup(site: Site) -> None:
    """End of file without a commit is failure of the peer."""
    site.pod.prepare()
    stage = site.pod.start("upload", site.backup())
    archive = Archive(site.pod)
    for name, data in packs(3).items():
        archive.put(name, data)
    archive.stored(3)
    archive.die()
    ended = stage.ended()

    assert (ended.code, ended.reason) == (ExitCode.PEER_FAILED, Reason.PEER_FAILED)
    assert site.names("manifests") == []


def test_an_archive_that_failed_before_it_came_is_not_waited_for(on_volume: Site) -> None:
    """Its flag in the run folder is enough."""
    on_volume.pod.prepare()
    wire.failed_flag(on_volume.pod.run, "archive").write_text("")

    assert on_volume.pod.start("upload", on_volume.backup()).ended().code == ExitCode.PEER_FAILED


def test_a_killed_upload_leaves_no_backup_and_the_next_one_succeeds(site: Site) -> None:
    """SIGKILL in the middle of the packs."""
    objects = packs(40, 1 << 20)
    site.pod.prepare()
    stage = site.pod.start("upload", site.backup())
    archive = Archive(site.pod)
    for name, data in objects.items():
        archive.put(name, data)
    archive.stored(5)
    stage.process.send_signal(signal.SIGKILL)
    stage.process.wait()

    assert site.names("manifests") == []
    assert upload_all(site, packs(2), manifest_of()).code == ExitCode.SUCCESS


def test_the_manifest_waits_for_the_last_pack(behind_proxy: Site, proxy: Proxy) -> None:
    """A commit asked for while a pack is on its way is carried out after the pack is stored."""
    (name, data), *_ = packs(1, 3 << 20).items()
    held, go = threading.Event(), threading.Event()

    def hold_the_pack(block: bytes) -> bytes:
        if name.encode() in block and block.startswith(b"PUT"):
            held.set()
            go.wait(60)
        return block

    proxy.request = hold_the_pack
    behind_proxy.pod.prepare()
    stage = behind_proxy.pod.start("upload", behind_proxy.backup())
    archive = Archive(behind_proxy.pod)
    archive.put(name, data)
    archive.commit(manifest_of())
    assert held.wait(60)

    assert behind_proxy.names("manifests") == []
    go.set()
    assert stage.ended().code == ExitCode.SUCCESS
    assert behind_proxy.names("packs") == [name]
    assert behind_proxy.names("manifests") == [MANIFEST]


def test_a_pack_that_could_not_be_stored_is_never_committed_over(on_volume: Site) -> None:
    """Its commit request is already there when the put fails: no manifest all the same."""
    objects = packs(20)
    on_volume.pod.prepare()
    stage = on_volume.pod.start("upload", on_volume.backup())
    archive = Archive(on_volume.pod)
    requests = [archive.spool(name, data) for name, data in objects.items()]
    requests[7]["sha256"] = hashlib.sha256(b"as archive hashed it").hexdigest()
    with suppress(BrokenPipeError):  # it may end before it was asked everything
        for request in requests:
            wire.send(archive.connection, {"put": request})
        archive.commit(manifest_of())
    ended = stage.ended()

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.CHECKSUM_MISMATCH)
    assert on_volume.names("manifests") == []


def test_a_manifest_whose_answer_was_lost_is_committed(behind_proxy: Site, proxy: Proxy) -> None:
    """The PUT arrived, the answer did not; "already exists" with the same bytes is success."""
    sent: list[bytes] = []
    lost: list[bytes] = []

    def watch(block: bytes) -> bytes:
        if block.startswith(b"PUT") and b"manifests" in block.split(b"\r\n", 1)[0]:
            sent.append(block)
        return block

    def lose_its_answer(block: bytes) -> bytes | None:
        if sent and not lost and b" 200 " in block[:20]:
            lost.append(block)
            return None
        return block

    proxy.request, proxy.answer = watch, lose_its_answer
    manifest = manifest_of()
    ended = upload_all(behind_proxy, packs(2), manifest)

    assert lost
    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts["health"] == "Healthy"
    assert manifest == behind_proxy.object(MANIFEST)


class Changing(VolumeStore):
    """Acknowledges a manifest and keeps another."""

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """Break the promise."""
        super().put(name, manifest_of(rows=3), digest_of(manifest_of(rows=3)))


def test_a_manifest_that_reads_back_differently_is_not_success(
    on_volume: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last check before success is the store's own answer, compared byte by byte."""
    monkeypatch.setattr(
        upload, "connect", lambda *_arguments, **_places: Changing(on_volume.volume, "prod/acme")
    )
    on_volume.pod.prepare()
    with uploading(on_volume) as (ending, archive):
        archive.commit(manifest_of())

        assert archive.reader.message_or_end() is None
        with pytest.raises(Failure) as caught:
            ending.result()
    assert caught.value.reason is Reason.CHECKSUM_MISMATCH


def test_what_a_second_pod_of_this_backup_committed_is_its_result(site: Site) -> None:
    """Same TenantBackup UID: the manifest that is there counts, with its own facts."""
    theirs, mine = manifest_of(rows=1000), manifest_of(rows=2)
    site.store().put(MANIFEST, theirs, digest_of(theirs))
    ended = upload_all(site, packs(2), mine)

    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts["rows"] == 1000
    assert ended.result.facts["checksum"] == f"sha256:{hashlib.sha256(theirs).hexdigest()}"
    assert theirs == site.object(MANIFEST)


@pytest.mark.parametrize("theirs", [manifest_of(uid=OTHER_UID), b"not a manifest"])
def test_a_manifest_of_another_backup_is_name_taken(site: Site, theirs: bytes) -> None:
    """It is left as it is; the next attempt's `prepare` takes another name, so it is worth one."""
    site.store().put(MANIFEST, theirs, digest_of(theirs))
    ended = upload_all(site, packs(2), manifest_of())

    assert (ended.code, ended.reason) == (ExitCode.RETRIABLE, Reason.NAME_TAKEN)
    assert theirs == site.object(MANIFEST)


def test_a_backup_that_is_committed_already_is_answered_at_once(on_volume: Site) -> None:
    """No socket, no peer, no store: the facts `prepare` found."""
    on_volume.pod.prepare(committed={"backupId": BACKUP_ID, "rows": 7})
    ended = on_volume.pod.start("upload", on_volume.backup()).ended()

    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts == {"backupId": BACKUP_ID, "rows": 7}


def test_the_index_key_another_backup_wrapped_meanwhile_will_do(on_volume: Site) -> None:
    """Two first backups at once wrap the same key to the same recipients: neither fails, one copy stays."""
    on_volume.store().put("keys/aa.bb.age", b"theirs", digest_of(b"theirs"))
    ended = upload_all(on_volume, {"keys/aa.bb.age": b"mine", **packs(1)}, manifest_of())

    assert (ended.code, ended.result.facts["health"]) == (ExitCode.SUCCESS, "Healthy")
    assert on_volume.object("keys/aa.bb.age") == b"theirs"


def test_a_pack_name_taken_by_other_bytes_ends_the_backup(site: Site) -> None:
    """Whoever wrote it, the manifest must not name it."""
    (name, data), *_ = packs(1).items()
    site.store().put(name, b"theirs", digest_of(b"theirs"))
    site.pod.prepare()
    stage = site.pod.start("upload", site.backup())
    archive = Archive(site.pod)
    archive.put(name, data)

    assert stage.ended().reason is Reason.NAME_TAKEN


def test_an_upload_stopped_while_it_verifies_has_succeeded(behind_proxy: Site, proxy: Proxy) -> None:
    """The commit stands; nobody finished looking, so health is Unknown."""
    (name, data), *_ = packs(1).items()
    held = threading.Event()

    def hold_the_reading(block: bytes) -> bytes | None:
        if block.startswith(b"GET") and name.encode() in block:
            held.set()
            threading.Event().wait(30)
        return block

    proxy.request = hold_the_reading
    behind_proxy.pod.prepare()
    stage = behind_proxy.pod.start("upload", behind_proxy.backup())
    archive = Archive(behind_proxy.pod)
    archive.put(name, data)
    archive.commit(manifest_of())
    assert held.wait(60)
    stage.process.send_signal(signal.SIGTERM)
    ended = stage.ended()

    assert (ended.code, ended.result.facts["health"]) == (ExitCode.SUCCESS, "Unknown")
    assert behind_proxy.names("manifests") == [MANIFEST]


@contextmanager
def uploading(site: Site, **changes: Any) -> Iterator[tuple[Future[dict[str, Any]], Archive]]:
    """Run `upload` in this process, where its patience and its clock can be set."""
    with ThreadPoolExecutor(1) as pool:
        places = {"run": site.pod.run, "spool": site.pod.root / "spool", "secrets": site.pod.root / "secrets"}
        ending = pool.submit(upload.run, site.backup(**changes), **places, volume=site.volume)
        yield ending, Archive(site.pod)


@pytest.mark.timeout(60)
def test_an_unreachable_store_is_said_and_worth_another_try(
    on_volume: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StoreUnavailable, retriable, once the patience is over, and `archive` is let go."""
    monkeypatch.setattr(upload, "PATIENCE", 2.0)
    monkeypatch.setattr(s3, "PATIENCE", 0.1)
    gone = s3_site(on_volume.pod, f"http://127.0.0.1:{free_port()}")
    gone.pod.prepare()
    with uploading(gone) as (ending, archive):
        archive.put(*next(iter(packs(1).items())))
        with pytest.raises(Failure) as caught:
            ending.result()

        assert (caught.value.reason, caught.value.retriable) == (Reason.STORE_UNAVAILABLE, True)
        assert archive.reader.message_or_end() is None


@pytest.mark.timeout(60)
def test_a_store_that_is_away_for_a_while_gets_everything_from_the_spool(
    empty_pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`archive` is asked nothing again, and the log says what is waited for: at a pack, and at the commit."""
    monkeypatch.setattr(s3, "PATIENCE", 0.1)
    waits = threading.Semaphore(0)

    def pause(seconds: float) -> None:
        waits.release()
        threading.Event().wait(seconds / 10)

    monkeypatch.setattr(upload, "pause", pause)
    objects = packs(3)
    with s3_server.running(tmp_path) as server:
        site = s3_site(empty_pod, server.endpoint).with_older_list()
        site.pod.prepare()
        with uploading(site) as (ending, archive):
            server.stop()
            for name, data in objects.items():
                archive.put(name, data)
            assert waits.acquire(timeout=30)
            server.start()
            assert archive.stored(3) == set(objects)
            server.stop()
            while waits.acquire(blocking=False):
                pass
            archive.commit(manifest_of())
            assert waits.acquire(timeout=30)
            server.start()

            assert ending.result()["health"] == "Healthy"
        assert objects == {name: site.object(name) for name in site.names("packs")}
    assert '"phase":"WaitingForStore"' in capsys.readouterr().out


OLDER = f"lists/{'0' * 32}"


@pytest.mark.parametrize("how", ["gone", "cut", "bad", "gc"])
def test_an_older_object_lost_since_prepare_is_never_committed_over(on_volume: Site, how: str) -> None:
    """Retriable: the next attempt's `prepare` sees it, and `archive` stores those chunks anew."""
    on_volume.pod.prepare()
    stage = on_volume.pod.start("upload", on_volume.backup())
    archive = Archive(on_volume.pod)
    path = on_volume.volume / "prod/acme" / OLDER
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        name = f"{how}/{'0' * 32}"
        data = json.dumps({"object": OLDER} if how == "bad" else {"objects": [OLDER]}).encode()
        on_volume.store().put(name, data, digest_of(data))
    archive.commit(manifest_of())
    ended = stage.ended()

    assert (ended.code, ended.reason) == (ExitCode.RETRIABLE, Reason.PACK_MISSING)
    assert OLDER in ended.result.message
    assert on_volume.names("manifests") == []


def test_a_run_that_took_too_long_is_not_committed(on_volume: Site) -> None:
    """What it refers to may be collected by now."""
    on_volume.pod.prepare()
    stage = on_volume.pod.start("upload", on_volume.backup(max_run_seconds=0))
    archive = Archive(on_volume.pod)
    archive.commit(manifest_of())
    ended = stage.ended()

    assert (ended.code, ended.reason) == (ExitCode.RETRIABLE, Reason.DEADLINE_EXCEEDED)
    assert on_volume.names("manifests") == []


@pytest.mark.parametrize("lost", [True, False])
def test_a_commit_the_machine_slept_over_is_looked_at_again(
    on_volume: Site, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """Two days between the check and the answer: it counts only if everything is there then."""
    asleep = 0.0

    class Slow(VolumeStore):
        """Answers after two days."""

        def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
            """Keep the manifest, and lose what it names."""
            nonlocal asleep
            super().put(name, source, digest)
            asleep = 2 * 86400.0
            if lost:
                self.delete(OLDER)

    clock = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + asleep)
    monkeypatch.setattr(upload, "connect", lambda *_arguments, **_places: Slow(on_volume.volume, "prod/acme"))
    on_volume.pod.prepare()
    with uploading(on_volume) as (ending, archive):
        archive.commit(manifest_of())
        if not lost:
            assert ending.result()["backupId"] == BACKUP_ID
            return
        with pytest.raises(Failure) as caught:
            ending.result()

        assert (caught.value.reason, caught.value.retriable) == (Reason.PACK_MISSING, True)


@pytest.fixture
def full(on_volume: Site) -> Iterator[Site]:
    """A volume of 2 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", on_volume.volume], check=True)
    yield on_volume
    subprocess.run(["umount", on_volume.volume], check=True)


def test_a_full_volume_ends_the_backup_at_once(full: Site) -> None:
    """StoreFull: trying again without a person's help would not make room."""
    full.pod.prepare()
    stage = full.pod.start("upload", full.backup())
    archive = Archive(full.pod)
    with suppress(BrokenPipeError):  # it may end before it was asked everything
        for name, data in packs(4, 1 << 20).items():
            archive.put(name, data)
    ended = stage.ended()

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.STORE_FULL)
    assert full.names("manifests") == []


@pytest.mark.parametrize("path", ["../secrets/store/secretAccessKey", "/etc/hostname", "link"])
def test_only_spool_files_are_uploaded(on_volume: Site, path: str) -> None:
    """`archive` holds no store credentials and cannot have them sent to where it could read them."""
    on_volume.pod.secret("store", "secretAccessKey", b"top secret")
    (on_volume.pod.root / "spool/link").symlink_to(on_volume.pod.root / "secrets/store/secretAccessKey")
    on_volume.pod.prepare()
    stage = on_volume.pod.start("upload", on_volume.backup())
    archive = Archive(on_volume.pod)
    data = b"top secret"
    request = {"name": "packs/aa/x", "path": path, "length": len(data), "sha256": digest_of(data).sha256}
    wire.send(archive.connection, {"put": request})

    assert stage.ended().code == ExitCode.BUG
    assert on_volume.names("packs") == []


@pytest.mark.parametrize("name", [MANIFEST, "TENANT", "manifests/other"])
def test_a_put_never_commits(on_volume: Site, name: str) -> None:
    """Only the commit request writes a manifest, and only this backup's."""
    on_volume.pod.prepare()
    stage = on_volume.pod.start("upload", on_volume.backup())
    archive = Archive(on_volume.pod)
    archive.put(name, manifest_of())

    assert stage.ended().code == ExitCode.BUG
    assert on_volume.names("manifests") == []


def test_packs_of_full_size_are_uploaded_in_bounded_memory(on_s3: Site, s3: S3Server) -> None:
    """Eight packs of 64 MiB: the process stays below 256 MiB, request bodies and all."""
    on_s3.pod.prepare()
    stage = on_s3.pod.start("upload", on_s3.backup())
    archive = Archive(on_s3.pod)
    for name, data in packs(8, 64 << 20).items():
        archive.put(name, data)
    archive.stored(8)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{stage.process.pid}/status").read_text())
    archive.commit(manifest_of())

    assert stage.ended().result.facts["health"] == "Unknown"  # so much is left to a Job
    assert peak is not None
    assert int(peak[1]) << 10 < 256 << 20


def test_progress_is_told_on_standard_output(on_volume: Site) -> None:
    """At the latest when it ends, with the bytes that are stored."""
    on_volume.pod.prepare()
    environment = {
        **os.environ,
        jobs.ENVIRONMENT_VARIABLE: jobs.to_json(on_volume.backup()),
        "TENANT_BACKUP_ROOT": str(on_volume.pod.root),
    }
    command = [sys.executable, "-m", "tenant_backup.stages", "upload"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    archive = Archive(on_volume.pod)
    for name, data in packs(2, 500).items():
        archive.put(name, data)
    archive.stored(2)
    archive.commit(manifest_of())
    output, _ = process.communicate()

    assert output.splitlines() == [
        '{"progress":{"phase":"Upload","bytesStored":1000}}',
        '{"progress":{"phase":"Verify","bytesStored":1000,"percent":100}}',
    ]

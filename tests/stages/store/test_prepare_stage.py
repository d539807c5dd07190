"""Whose prefix it is, whether this backup is committed already, and what it is called."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from typing import Any

import pytest

from tenant_backup.archive.frame import Kind
from tenant_backup.archive.manifest import Encryption, parse, sign
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.stages import base, ownership
from tenant_backup.stores.base import digest_of
from tests.archive.sample import Folder, write
from tests.stages.pod import BACKUP_ID, TENANT, Ended
from tests.stores.s3_server import READER, S3Server

from .site import KEYS, OTHER_UID, UID, Site, facts_of, manifest_of, s3_site


def prepared(site: Site, **changes: Any) -> tuple[Ended, Any]:
    """Run `prepare`; return how it ended and what it wrote, but for the time when it began."""
    before = boot_time()
    ended = site.pod.start("prepare", site.backup(**changes)).ended()
    path = site.pod.run / "prepared.json"
    document = json.loads(path.read_text()) if path.exists() else None
    assert document is None or before <= document.pop("began") <= boot_time()
    return ended, document


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def put(site: Site, name: str, data: bytes) -> None:
    site.store().put(name, data, digest_of(data))


def test_the_first_backup_of_a_tenant_claims_its_prefix(site: Site) -> None:
    """The marker says whose it is, and the second backup finds it and goes on."""
    for _ in range(2):
        ended, document = prepared(site)
        assert ended.result.facts == {"backupId": BACKUP_ID, "committed": False}
        assert document == {"backupId": BACKUP_ID, "keys": [], "committed": None, "base": None}

    assert json.loads(site.object("TENANT")) == {
        "format": 1,
        "clusterId": TENANT.cluster_id,
        "namespace": TENANT.namespace,
        "name": TENANT.name,
        "slug": TENANT.slug,
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [({"cluster_id": "x"}, "cluster-1"), ({"namespace": "x"}, '"default"'), ({"name": "x"}, 'Tenant "acme"')],
)
def test_another_owners_prefix_is_refused_and_the_owner_named(
    site: Site, change: dict[str, str], named: str
) -> None:
    """StoreForeign, without another try, before anything is dumped; the marker stays."""
    prepared(site)
    (site.pod.run / "prepared.json").unlink()
    marker = site.object("TENANT")
    ended, document = prepared(site, tenant=dataclasses.replace(TENANT, **change))

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.STORE_FOREIGN)
    assert named in ended.result.message
    assert document is None
    assert marker == site.object("TENANT")


@pytest.mark.parametrize("junk", [b"", b"hello", b"[]", b'{"format": 2}', b"\xff"])
def test_a_marker_that_is_not_ours_is_foreign(on_volume: Site, junk: bytes) -> None:
    """Whatever is there, it is somebody's."""
    put(on_volume, "TENANT", junk)

    assert prepared(on_volume)[0].reason is Reason.STORE_FOREIGN


def test_of_two_clusters_claiming_at_once_one_is_refused(site: Site) -> None:
    """Create-only decides; nobody's marker is overwritten."""
    start = threading.Barrier(2)
    outcomes: list[str] = []

    def claim(cluster: str) -> None:
        store = site.store()
        start.wait()
        try:
            ownership.claim(store, jobs.Tenant(cluster, "default", "acme", "acme"))
            outcomes.append(cluster)
        except Failure as failure:
            outcomes.append(failure.reason)

    threads = [threading.Thread(target=claim, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert json.loads(site.object("TENANT"))["clusterId"] in outcomes
    assert Reason.STORE_FOREIGN in outcomes


def test_a_backup_committed_by_an_earlier_attempt_is_found(site: Site) -> None:
    """Its facts come from the manifest; whether it was verified nobody knows any more."""
    manifest = manifest_of()
    put(site, f"manifests/{BACKUP_ID}", manifest)
    _, document = prepared(site)

    assert document["backupId"] == BACKUP_ID
    assert document["committed"] == {
        **facts_of(manifest),
        "location": f"{site.store().location}/manifests/{BACKUP_ID}",
        "health": "Unknown",
    }


def test_a_commit_that_lost_what_it_needs_is_no_backup(site: Site) -> None:
    """It came too late, and a collector was faster: its manifest goes, and the backup is made again."""
    put(site, f"manifests/{BACKUP_ID}", manifest_of())
    site.store().delete(f"lists/{'0' * 32}")
    _, document = prepared(site)

    assert (document["backupId"], document["committed"]) == (f"{BACKUP_ID}-2", None)
    assert site.names("manifests") == []


def test_a_name_taken_by_others_gets_the_next_number(site: Site) -> None:
    """Other backups' and unreadable manifests are left alone; similar names do not count."""
    for backup_id in (BACKUP_ID, f"{BACKUP_ID}-2", f"{BACKUP_ID}-4"):
        put(site, f"manifests/{backup_id}", manifest_of(backup_id, OTHER_UID))
    put(site, f"manifests/{BACKUP_ID}-3", b"damaged")
    for similar in (f"{BACKUP_ID}-5x", f"{BACKUP_ID}5", BACKUP_ID[:-1] + "0", "acme_2999-01-01_00-00-00"):
        put(site, f"manifests/{similar}", b"")

    assert prepared(site)[1]["backupId"] == f"{BACKUP_ID}-5"


@pytest.mark.parametrize("base_is_there", [True, False])
@pytest.mark.parametrize("number", [2, 12])
def test_a_commit_under_another_number_is_found_by_the_retry(
    site: Site, base_is_there: bool, number: int
) -> None:
    """Also when the name it had wished for is free again meanwhile."""
    if base_is_there:
        put(site, f"manifests/{BACKUP_ID}", manifest_of(BACKUP_ID, OTHER_UID))
    put(site, f"manifests/{BACKUP_ID}-{number}", manifest_of(f"{BACKUP_ID}-{number}", UID))
    _, document = prepared(site)

    assert document["backupId"] == f"{BACKUP_ID}-{number}"
    assert document["committed"]["backupId"] == f"{BACKUP_ID}-{number}"


def test_the_keys_that_exist_are_listed(site: Site) -> None:
    """So that `archive` adds only what is missing."""
    put(site, "keys/aa.bb.age", b"wrapped")

    assert prepared(site)[1]["keys"] == ["keys/aa.bb.age"]


EARLIER = ("acme_2024-01-12_14-30-25", "acme_2024-01-13_14-30-25", "acme_2024-01-14_14-30-25")


@pytest.fixture
def earlier(on_volume: Site) -> Folder:
    """The tenant's prefix with three real backups in it."""
    folder = Folder(on_volume.volume / "prod/acme")
    for backup_id in EARLIER:
        write(folder, KEYS, {"t1/0": (Kind.ROWS, [backup_id.encode() + b"\n"])}, backup_id)
    return folder


def lists_of(folder: Folder, backup_id: str) -> set[str]:
    return {ref.id for ref in parse((folder.root / "manifests" / backup_id).read_bytes()).lists}


def base_of(site: Site, **changes: Any) -> dict[str, Any] | None:
    """What `prepare` says of the base; it has fetched the manifest and all index packs, and no more."""
    found: dict[str, Any] | None = prepared(site, **changes)[1]["base"]
    folder = site.pod.root / "spool/base"
    if found is not None:
        manifest = (folder / "manifest").read_bytes()
        assert manifest == site.object(f"manifests/{found['backupId']}")
        names = {path.name for path in folder.iterdir()}
        assert names == {"manifest", *(ref.id for ref in parse(manifest).lists)}
    return found


def change(folder: Folder, backup_id: str, /, **changes: Any) -> None:
    """Sign another manifest in the place of one."""
    name = f"manifests/{backup_id}"
    manifest = dataclasses.replace(parse((folder.root / name).read_bytes()), **changes)
    folder.put(name, sign(manifest, KEYS.signing))


def test_the_newest_backup_is_the_base(on_volume: Site, earlier: Folder) -> None:
    """Fetched as ciphertext: `prepare` has no key."""
    assert base_of(on_volume) == {"backupId": EARLIER[2], "unusable": []}


def test_a_full_backup_has_no_base(on_volume: Site, earlier: Folder) -> None:
    """Nothing is fetched."""
    assert base_of(on_volume, mode="Full") is None
    assert not (on_volume.pod.root / "spool/base").exists()


@pytest.mark.parametrize("what", ["unreadable", "moved", "unencrypted", "partial"])
def test_a_manifest_that_is_not_to_be_built_on_is_passed_over(
    on_volume: Site, earlier: Folder, what: str
) -> None:
    """The one before is as good; after a partial backup a whole one would find little."""
    if what == "unreadable":
        earlier.put(f"manifests/{EARLIER[2]}", b"damaged")
    elif what == "moved":
        change(earlier, EARLIER[2], backup_id=EARLIER[0])
    elif what == "unencrypted":
        change(earlier, EARLIER[2], encryption=Encryption("None", "0" * 16, "", ()))
    else:
        change(earlier, EARLIER[2], partial=True)

    assert base_of(on_volume) == {"backupId": EARLIER[1], "unusable": []}


def test_of_partial_backups_alone_the_newest_is_the_base(on_volume: Site, earlier: Folder) -> None:
    """Better than none."""
    for backup_id in EARLIER:
        change(earlier, backup_id, partial=True)

    assert base_of(on_volume) == {"backupId": EARLIER[2], "unusable": []}


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_base_without_its_lists_is_none(on_volume: Site, earlier: Folder, how: str) -> None:
    """The backup goes on and stores everything; the log says why."""
    path = earlier.root / "lists" / min(lists_of(earlier, EARLIER[2]))
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    assert base_of(on_volume) is None
    output = (on_volume.pod.root / "output").read_text()
    assert f"backup {EARLIER[2]} is none to build on: lists/{path.name} is {how}" in output


def test_lists_that_the_spool_does_not_hold_are_not_fetched(
    on_volume: Site, earlier: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pod that is evicted for its spool would never come to an end."""
    monkeypatch.setattr(base, "LISTS_MAX", 100)
    folder = on_volume.pod.root / "spool/base"

    assert base.fetch_base(on_volume.store(), on_volume.backup(), folder) is None
    assert {path.name for path in folder.iterdir()} == {"manifest"}
    assert "more than the spool holds" in capsys.readouterr().out


def test_a_pack_that_is_gone_or_of_another_length_is_named(on_volume: Site, earlier: Folder) -> None:
    """Whoever took it left no mark; without this every attempt would fail at its commit."""
    (ref,) = parse(on_volume.object(f"manifests/{EARLIER[2]}")).packs
    name = f"packs/{ref.id[:2]}/{ref.id}"
    for damage in (lambda path: path.write_bytes(b"short"), lambda path: path.unlink()):
        damage(earlier.root / name)
        assert base_of(on_volume) == {"backupId": EARLIER[2], "unusable": [name]}


def test_what_is_bad_or_about_to_be_deleted_is_named(on_volume: Site, earlier: Folder) -> None:
    """Of what the base needs; the rest does not matter here."""
    manifest = parse(on_volume.object(f"manifests/{EARLIER[2]}"))
    bad, doomed = manifest.packs[0].id, manifest.lists[0].id
    put(on_volume, f"bad/{bad}", b"{}")
    put(
        on_volume,
        "gc/" + "1" * 32,
        json.dumps({"objects": [f"lists/{doomed}", "lists/" + "2" * 32]}).encode(),
    )

    assert base_of(on_volume) == {
        "backupId": EARLIER[2],
        "unusable": [f"lists/{doomed}", f"packs/{bad[:2]}/{bad}"],
    }


def test_missing_credentials_are_said_before_anything_is_dumped(on_s3: Site) -> None:
    """KeyMissing with Secret and key; nothing else starts."""
    (on_s3.pod.root / "secrets/store/secretAccessKey").unlink()
    ended, _ = prepared(on_s3)

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.KEY_MISSING)
    assert ended.result.message == 'the store\'s Secret "s3-keys" has no usable key secretAccessKey; add it'


def test_a_store_that_may_only_be_read_refuses_the_backup(site: Site, s3: S3Server) -> None:
    """StorePermissionDenied at the marker, before anything is dumped."""
    ended, _ = prepared(s3_site(site.pod, s3.endpoint, READER))

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.STORE_PERMISSION_DENIED)
    assert "AccessDenied" in ended.result.message

"""Collecting a real store: what goes, when, and what is left alone."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from tenant_backup.archive.manifest import BackupIdentity, parse, sign
from tenant_backup.archive.names import index_pack, pack
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.contract.results import Result, encode
from tenant_backup.stages import collect
from tenant_backup.stores.base import digest_of
from tests.stages.pod import BACKUP_ID, TENANT
from tests.stores.s3_server import BUCKET, WRITER, S3Server

from .site import KEYS, UID, Site, manifest_of, s3_site

GRACE = 3600  # seconds
SECOND = "acme_2024-01-16_14-30-25"


@pytest.fixture
def root(site: Site, request: pytest.FixtureRequest) -> Path:
    """Where the files behind an empty store are: their times are the store's."""
    for entry in list(site.store().entries("lists")):
        site.store().delete(entry.name)
    if site.described.kind == "volume":
        return site.volume / "prod"
    server: S3Server = request.getfixturevalue("s3")
    return server.data / BUCKET / site.described.prefix


def job(site: Site, *, dry_run: bool = False) -> jobs.Collect:
    """Collects that store."""
    return jobs.Collect("store-uid", TENANT.cluster_id, site.described, GRACE, dry_run)


def put(site: Site, name: str, data: bytes, slug: str = "acme") -> None:
    """Store an object."""
    site.store(slug).put(name, data, digest_of(data))


def claimed(site: Site, slug: str = "acme", cluster: str = TENANT.cluster_id) -> None:
    """A prefix with an owner."""
    put(site, "TENANT", json.dumps({"clusterId": cluster, "slug": slug}).encode(), slug)


def stored(site: Site, number: int, slug: str = "acme") -> str:
    """A pack or, for odd numbers, a list of ten bytes."""
    name = index_pack(f"{number:032x}") if number % 2 else pack(f"{number:032x}")
    put(site, name, b"x" * 10, slug)
    return name


def backed_up(site: Site, numbers: set[int], backup_id: str = BACKUP_ID, slug: str = "acme") -> None:
    """A manifest that names these and one list of its own."""
    manifest = parse(manifest_of(backup_id))
    template = manifest.lists[0]

    def refs(odd: int) -> tuple[ObjectRef, ...]:
        found = sorted(number for number in numbers if number % 2 == odd)
        return tuple(dataclasses.replace(template, id=f"{number:032x}") for number in found)

    named = dataclasses.replace(
        manifest, packs=refs(0), lists=(template, *refs(1)), backup=BackupIdentity("acme-1", UID)
    )
    put(site, f"manifests/{backup_id}", sign(named, KEYS.signing), slug)


def age(root: Path, seconds: float = GRACE + 60) -> None:
    """Let time pass for everything that is stored."""
    for path in root.rglob("*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def left(site: Site, slug: str = "acme") -> list[str]:
    """Packs and lists that are there."""
    store = site.store(slug)
    return [entry.name for folder in ("packs", "lists") for entry in store.entries(folder)]


def test_what_no_backup_needs_is_deleted_a_grace_after_it_was_named(site: Site, root: Path) -> None:
    """In two collections; what a backup needs stays, and nothing is left of collecting itself."""
    claimed(site)
    kept, waste = [stored(site, 2), stored(site, 3)], [stored(site, 4), stored(site, 5)]
    backed_up(site, {2, 3})
    age(root)
    young = stored(site, 6)

    first = site.pod.start("collect", job(site)).ended().result.facts
    again = site.pod.start("collect", job(site)).ended().result.facts
    assert sorted([*kept, *waste, young]) == sorted(left(site))
    assert (first["candidates"], first["deleted"], first["usedBytes"]) == (2, 0, 50)
    assert (again["candidates"], again["deleted"]) == (0, 0)
    assert len(site.names("gc")) == 1

    age(root, GRACE + 60)
    os.utime(root / "acme" / young)
    last = site.pod.start("collect", job(site)).ended().result.facts
    assert sorted([*kept, young]) == sorted(left(site))
    assert last == {
        "tenants": 1,
        "backups": 1,
        "usedBytes": 30,
        "candidates": 0,
        "deleted": 2,
        "freedBytes": 20,
        "message": "",
    }
    assert site.names("gc") == []


def test_what_a_backup_needs_again_is_kept(site: Site, root: Path) -> None:
    """A commit that came between the two collections saves it."""
    claimed(site)
    waste, saved = stored(site, 4), stored(site, 6)
    age(root)
    site.pod.start("collect", job(site)).ended()
    backed_up(site, {6})
    age(root)

    assert site.pod.start("collect", job(site)).ended().result.facts["deleted"] == 1
    assert [saved] == left(site)
    assert waste not in left(site)


def test_deleting_a_backup_names_what_only_it_needed(site: Site, root: Path) -> None:
    """At once, so that the next collection after the grace deletes it."""
    claimed(site)
    shared, own = stored(site, 2), stored(site, 4)
    backed_up(site, {2, 4})
    backed_up(site, {2}, SECOND)
    age(root)
    deletion = dataclasses.replace(site.delete(), grace_seconds=GRACE)

    assert site.pod.start("delete", deletion).ended().result.facts["deleted"] is True
    (gc,) = site.names("gc")
    assert json.loads(site.object(gc)) == {"objects": [own]}
    age(root)
    site.pod.start("collect", job(site)).ended()
    assert [shared] == left(site)


def test_a_deletion_stands_though_nothing_can_be_collected(site: Site) -> None:
    """Another manifest that cannot be read is said, and is no reason to keep this one."""
    claimed(site)
    backed_up(site, set())
    put(site, f"manifests/{SECOND}", b"damaged")
    ended = site.pod.start("delete", site.delete()).ended()

    assert (ended.code, ended.result.facts["deleted"]) == (ExitCode.SUCCESS, True)
    assert SECOND in ended.result.facts["message"]
    assert site.names("manifests") == [f"manifests/{SECOND}"]


def test_a_dry_run_only_says_what_would_go(site: Site, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Line by line, and nothing in the store is changed."""
    claimed(site)
    due = stored(site, 4)
    age(root)
    site.pod.start("collect", job(site)).ended()
    new = stored(site, 6)
    age(root)
    before = sorted(str(path) for path in root.rglob("*"))
    facts = collect.run(job(site, dry_run=True), secrets=site.pod.root / "secrets", volume=site.volume)

    assert (facts["candidates"], facts["deleted"], facts["freedBytes"]) == (1, 1, 10)
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == [
        {"would": "delete", "object": f"acme/{due}"},
        {"would": "name", "object": f"acme/{new}"},
    ]
    assert before == sorted(str(path) for path in root.rglob("*"))


def test_other_clusters_and_strangers_are_left_alone(site: Site, root: Path) -> None:
    """Only a prefix whose marker carries our cluster's id is looked at."""
    for slug, cluster in (("acme", TENANT.cluster_id), ("theirs", "cluster-2")):
        claimed(site, slug, cluster)
    for slug in ("acme", "theirs", "nobodys"):
        stored(site, 4, slug)
    age(root)
    site.pod.start("collect", job(site)).ended()
    age(root)

    assert site.pod.start("collect", job(site)).ended().result.facts["tenants"] == 1
    assert [left(site, slug) for slug in ("acme", "theirs", "nobodys")] == [[], *[[pack(f"{4:032x}")]] * 2]
    assert list(site.store("theirs").entries("gc")) == []


@pytest.mark.parametrize("name", [f"manifests/{BACKUP_ID}", f"gc/{7:032x}"])
def test_a_tenant_that_cannot_be_read_is_left_out_and_the_others_are_collected(
    site: Site, root: Path, name: str
) -> None:
    """The message says what to look at."""
    for slug in ("acme", "other"):
        claimed(site, slug)
        stored(site, 4, slug)
    put(site, name, b'{"formatVersion": 2, "objects": ["TENANT"]}')
    age(root)
    site.pod.start("collect", job(site)).ended()
    age(root)
    ended = site.pod.start("collect", job(site)).ended()

    assert (ended.code, ended.result.facts["deleted"]) == (ExitCode.SUCCESS, 1)
    assert ended.result.facts["message"].startswith("acme: ")
    assert name in ended.result.facts["message"]
    assert [left(site), left(site, "other")] == [[pack(f"{4:032x}")], []]


def test_credentials_that_may_not_delete_are_told_so(on_s3: Site, s3: S3Server) -> None:
    """StorePermissionDenied, and where to name others."""
    claimed(on_s3)
    ended = s3_site(on_s3.pod, s3.endpoint, WRITER).pod.start("collect", job(on_s3)).ended()

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.STORE_PERMISSION_DENIED)
    assert "collectorCredentialsSecretRef" in ended.result.message


def test_the_longest_message_fits_the_result() -> None:
    """Whatever a server said."""
    done = collect._Done(dry_run=False)
    done.leave_out("a" * 40, Failure(Reason.CHECKSUM_MISMATCH, "ü" * 5000))

    assert len(encode(Result(True, done.facts()))) < 2048

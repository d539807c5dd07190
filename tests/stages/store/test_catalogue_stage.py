"""Listing a real store: what is in it, page by page, and nothing that somebody only made look like a backup."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tenant_backup.archive.manifest import BackupIdentity, Manifest, Sizes, TenantIdentity, Times, parse, sign
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Reason
from tenant_backup.contract.results import listed_items
from tenant_backup.stages import catalogue
from tenant_backup.stores.base import digest_of
from tests.stages.pod import BACKUP_ID, TENANT

from .site import KEYS, UID, Site, manifest_of

SECOND = "acme_2024-01-16_14-30-25"


def job(site: Site, **changes: Any) -> jobs.Catalogue:
    known = jobs.Catalogue("store-uid", TENANT.namespace, site.described)
    return dataclasses.replace(known, **changes)


def put(site: Site, name: str, data: bytes, slug: str = "acme") -> None:
    site.store(slug).put(name, data, digest_of(data))


def claimed(site: Site, slug: str = "acme", **changes: str) -> None:
    """A prefix with an owner."""
    known = {"clusterId": TENANT.cluster_id, "namespace": TENANT.namespace, "name": slug, "slug": slug}
    put(site, "TENANT", json.dumps({"format": 1, **known, **changes}).encode(), slug)


def stored(site: Site, place: str = BACKUP_ID, **changes: Any) -> Manifest:
    """A manifest at its place."""
    slug = place.partition("_")[0]
    owner = TenantIdentity(TENANT.cluster_id, TENANT.namespace, slug, slug)
    known = {"tenant": owner, "backup": BackupIdentity("acme-1", UID)}
    manifest = dataclasses.replace(parse(manifest_of(place)), **(known | changes))
    put(site, f"manifests/{place}", sign(manifest, KEYS.signing), slug)
    return manifest


def run(site: Site, **changes: Any) -> dict[str, Any]:
    """List by a process of its own."""
    return dict(site.pod.start("catalogue", job(site, **changes)).ended().result.facts)


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [one["id"] if isinstance(one, dict) else one for item in items for one in item.get("backups", ())]


def test_every_backup_of_this_namespace_is_named(site: Site) -> None:
    """Tenant by tenant; another namespace's is passed over, and so is what nobody owns."""
    for slug in ("acme", "globex"):
        claimed(site, slug)
    claimed(site, "other", namespace="elsewhere")
    stored(site, SECOND)
    stored(site)
    stored(site, "globex_2024-01-15_14-30-25")
    stored(site, "other_2024-01-15_14-30-25")
    stored(site, "nobody_2024-01-15_14-30-25")

    facts = run(site)
    cluster = TENANT.cluster_id
    assert facts == {
        "backups": 3,
        "next": "",
        "items": [
            {"slug": "acme", "tenant": "acme", "cluster": cluster, "backups": [BACKUP_ID, SECOND]},
            {
                "slug": "globex",
                "tenant": "globex",
                "cluster": cluster,
                "backups": ["globex_2024-01-15_14-30-25"],
            },
            {"slug": "nobody", "skipped": True},
            {"slug": "other", "skipped": True},
        ],
    }


def test_with_details_it_says_what_a_status_needs(site: Site) -> None:
    """The SHA-256 is that of the manifest's bytes, which a restore compares."""
    claimed(site)
    manifest = stored(site)

    ((one,),) = [item["backups"] for item in run(site, details=True)["items"]]
    assert one == {
        "id": BACKUP_ID,
        "location": f"{site.store().location}/manifests/{BACKUP_ID}",
        "sha256": digest_of(site.object(f"manifests/{BACKUP_ID}")).sha256,
        "name": "acme-1",
        "uid": UID,
        "started": manifest.times.started,
        "completed": manifest.times.completed,
        "encryption": "Age",
        "consistency": manifest.consistency,
        "bytes": {"logical": 100, "stored": manifest.bytes.stored, "added": manifest.bytes.added},
        "tables": manifest.tables,
        "rows": 2,
        "modules": [],
        "contents": "All",
        "files": 0,
        "changedFiles": 0,
        "skippedFiles": 0,
        "dataAt": {"database": manifest.times.snapshot},
    }


def test_a_store_without_backups_has_an_empty_list(site: Site) -> None:
    """What a run left that never got to its end is nobody's."""
    assert run(site) == {"backups": 0, "next": "", "items": [{"slug": "acme", "skipped": True}]}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_pages_of_any_length_are_the_whole_list(on_volume: Site, limit: int) -> None:
    """Each backup once, in order, wherever a page ends; a slug that begins like another's too."""
    expected = []
    for slug in ("acme", "acme-b", "zeta"):
        claimed(on_volume, slug)
        for day in range(15, 17):
            expected.append(f"{slug}_2024-01-{day}_14-30-25")
            stored(on_volume, expected[-1])

    found: list[str] = []
    after, pages = "", 0
    while pages == 0 or after:
        where = {"secrets": on_volume.pod.root / "secrets", "volume": on_volume.volume}
        facts = catalogue.run(job(on_volume, limit=limit, after=after), **where)
        found += ids(facts["items"])
        after, pages = facts["next"], pages + 1
    assert found == expected
    assert pages == -(-len(expected) // limit)


def test_a_long_list_goes_to_the_log_and_is_known_by_its_sum(
    on_volume: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line that is missing or another one is noticed."""
    claimed(on_volume)
    expected = [f"acme_2024-01-15_14-30-{second:02d}" for second in range(60)]
    for backup_id in expected:
        stored(on_volume, backup_id)
    where = {"secrets": on_volume.pod.root / "secrets", "volume": on_volume.volume}
    facts = catalogue.run(job(on_volume, details=True), **where)
    log = ["something else", *capfd.readouterr().out.splitlines()]

    assert "items" not in facts
    assert ids(listed_items(facts, log)) == expected
    with pytest.raises(ValueError, match="1 of 2"):
        listed_items(facts, log[:-1])
    with pytest.raises(ValueError, match="other"):
        listed_items(facts, [*log[:-1], log[-1].replace("acme_", "acmf_")])


POISON: dict[str, dict[str, Any]] = {
    "another tenant's": {"tenant": TenantIdentity("c", TENANT.namespace, "globex", "acme")},
    "another namespace's": {"tenant": TenantIdentity("c", "elsewhere", "acme", "acme")},
    "moved": {"backup_id": SECOND},
    "a number that no API server takes": {"rows": 1 << 63},
    "a negative size": {"bytes": Sizes(1, -1, 1)},
    "no time": {"times": Times("yesterday", "2024-01-15T14:30:25Z", "2024-01-15T14:30:25Z")},
    "a day that never was": {"times": Times("2024-02-31T00:00:00Z", "", "2024-01-15T14:30:25Z")},
    "a strange consistency": {"consistency": "x" * 5000},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_what_is_not_what_it_seems_is_only_counted(on_volume: Site, poison: dict[str, Any]) -> None:
    """Whoever may write the store cannot stop the listing of the others."""
    claimed(on_volume)
    stored(on_volume, **poison)
    stored(on_volume, "acme_2024-01-17_14-30-25")

    ((bad, good),) = [item["backups"] for item in run(on_volume, details=True)["items"]]
    assert bad == {"id": BACKUP_ID, "unreadable": True}
    assert good["id"] == "acme_2024-01-17_14-30-25"


def test_names_that_no_object_can_have_are_left_out(on_volume: Site) -> None:
    """Of the TenantBackup that made it; a line of the log stays one line."""
    claimed(on_volume)
    data = sign(dataclasses.replace(parse(manifest_of()), backup=BackupIdentity("NAME", "UID")), KEYS.signing)
    data = data.replace(b"NAME", rb"two\u2028lines \ud800").replace(b"UID", rb"\n")
    put(on_volume, f"manifests/{BACKUP_ID}", data)

    ((one,),) = [item["backups"] for item in run(on_volume, details=True)["items"]]
    assert (one["name"], one["uid"]) == ("", "")


def test_names_that_no_backup_has_are_passed_over(on_volume: Site) -> None:
    """An object with such an id could not be created, and nothing would come after it."""
    claimed(on_volume)
    for strange in ("acme_now", "acme", "globex_2024-01-15_14-30-25", "acme_" + "1" * 80):
        put(on_volume, f"manifests/{strange}", b"{}")
    stored(on_volume)

    assert ids(run(on_volume)["items"]) == [BACKUP_ID]


@pytest.mark.parametrize("name", ["", "A b", "x\n", "a..b", "a" * 53, "-a", 5])
def test_a_marker_of_no_tenant_is_nobodys(on_volume: Site, name: Any) -> None:
    claimed(on_volume, name=name)
    stored(on_volume)

    assert run(on_volume)["items"] == [{"slug": "acme", "skipped": True}]


def inspection(site: Site, **changes: Any) -> jobs.Inspect:
    return dataclasses.replace(jobs.Inspect("uid", BACKUP_ID, TENANT, site.described), **changes)


def test_one_backup_is_inspected(site: Site) -> None:
    """As the listing would describe it, but for the modules, which were asked for."""
    claimed(site)
    stored(site)
    ((listed,),) = [item["backups"] for item in run(site, details=True)["items"]]
    listed.pop("modules")

    assert site.pod.start("inspect", inspection(site)).ended().result.facts == listed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backup_id": SECOND}, Reason.BACKUP_NOT_FOUND),
        ({"tenant": dataclasses.replace(TENANT, name="globex")}, Reason.CROSS_TENANT_ACCESS),
        ({"tenant": dataclasses.replace(TENANT, namespace="elsewhere")}, Reason.CROSS_TENANT_ACCESS),
        ({"modules": ["hr"]}, Reason.INVALID_SPEC),
    ],
)
def test_what_is_not_there_or_not_its_own_is_refused(
    on_volume: Site, changes: dict[str, Any], reason: Reason
) -> None:
    """The object's tenant, and nobody else's, whichever id it names."""
    claimed(on_volume)
    stored(on_volume)

    assert on_volume.pod.start("inspect", inspection(on_volume, **changes)).ended().reason is reason

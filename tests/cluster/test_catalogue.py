"""A fresh cluster and an old store: restored at once, and written again after somebody said so."""

from __future__ import annotations

from typing import Any

import pytest

from hack.lab.kubectl import is_over

from .conftest import Room, failure

pytestmark = pytest.mark.cluster
LOST = "00000000-1111-2222-3333-444444444444"


def lose_the_cluster(room: Room) -> str:
    """Delete all that the cluster knows, and make the store another cluster's; return the signing key."""
    tenant = room.kubectl.get("tnt", "acme")
    assert tenant is not None
    trusted, secret = tenant["status"]["signingKey"], tenant["status"]["keySecret"]
    for kind in ("tb", "tr", "tnt", "bst"):
        room.kubectl("delete", kind, "--all", "--timeout=60s")
    room.kubectl("delete", "secret", secret)
    marker = f"/data/backups/{room.prefix}/*/TENANT"
    room.s3.shell(
        f"""sed -i 's/"clusterId": "[^"]*"/"clusterId": "{LOST}"/' {marker}; grep -q {LOST} {marker}"""
    )
    return str(trusted)


def imported(room: Room) -> dict[str, Any]:
    """Wait until the store is listed; return the only TenantBackup."""
    room.kubectl.wait("bst", "prod", lambda one: "completedAt" in one["status"].get("catalogue", {}), 90)
    (found,) = room.kubectl.list("tb")
    return dict(found)


def test_an_old_store_is_restored_from_at_once_and_written_after_adoption(room: Room) -> None:
    """By the key on the recovery sheet, and by no other; the database that comes back is the one there was."""
    old = room.back_up("old", deletionPolicy="Retain")["status"]
    assert old["state"] == "Succeeded", old
    trusted = lose_the_cluster(room)
    room.create_store()
    backup = imported(room)
    name, status = backup["metadata"]["name"], backup["status"]
    same = ("backupId", "checksum", "size", "bytes", "location", "contents")
    assert {key: status[key] for key in same} == {key: old[key] for key in same}
    assert (status["state"], status["health"], backup["spec"]["deletionPolicy"]) == (
        "Succeeded",
        "Unknown",
        "Retain",
    )

    # Without the sheet anybody could have put it there.
    room.create_tenant()
    where = room.new_database_spec(name, f"{room.database}_copy")
    refused = room.restore("refused", name, strategy=where["strategy"], target=where["target"])
    assert failure(refused)[0] == "SignatureInvalid"

    spec = room.tenant_spec()
    spec["encryption"]["trustedSigningKeys"] = [f"ed25519:{trusted}"]
    room.apply("Tenant", "acme", spec)
    done = room.restore("copy", name, strategy=where["strategy"], target=where["target"])
    assert done["status"]["state"] == "Succeeded", done["status"]
    copy = room.server.fingerprint(f"{room.database}_copy")
    assert room.server.fingerprint(room.database) == copy

    room.kubectl("annotate", f"tb/{name}", "tenantbackup.dev/verify=Contents")
    verified = room.kubectl.wait("tb", name, lambda one: one["status"].get("health") == "Healthy", 90)
    assert verified["status"]["verification"]["level"] == "Contents"

    reason, message = failure(room.back_up("too-early"))
    assert reason == "StoreForeign"
    assert f"tenantbackup.dev/adopt={LOST}" in message
    room.kubectl("annotate", "bst/prod", f"tenantbackup.dev/adopt={LOST}")
    new = room.back_up("new")["status"]
    assert new["state"] == "Succeeded", new
    room.kubectl("annotate", "bst/prod", "tenantbackup.dev/adopt-")
    again = room.back_up("again")["status"]
    assert again["state"] == "Succeeded", again
    assert again["bytes"]["added"] < new["bytes"]["added"]


def test_an_object_by_hand_stands_for_what_is_in_the_store(room: Room) -> None:
    """For its own tenant's backups only."""
    old = room.back_up("old", deletionPolicy="Retain")["status"]
    room.kubectl("delete", "tb/old")
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, "deletionPolicy": "Retain"}
    stands_for = {"imported": {"backupId": old["backupId"]}}
    room.apply("TenantBackup", "again", {**spec, **stands_for})
    again = room.kubectl.wait("tb", "again", lambda one: one["status"].get("health") == "Healthy", 90)
    assert again["status"]["checksum"] == old["checksum"]

    room.apply("Tenant", "globex", {**room.tenant_spec(), "slug": "globex"})
    room.apply("TenantBackup", "stolen", {**spec, **stands_for, "tenantRef": {"name": "globex"}})
    assert failure(room.kubectl.wait("tb", "stolen", is_over, 90))[0] == "CrossTenantAccess"


def test_a_list_that_is_too_long_for_an_answer_is_read_from_the_log(room: Room) -> None:
    """And what somebody copied to another name is counted, not believed."""
    room.back_up("old")
    (manifest,) = room.manifests()
    room.s3.shell(f"for n in $(seq 100 160); do cp {manifest} {manifest}-$n; done")
    room.kubectl("annotate", "bst/prod", "tenantbackup.dev/import=many")

    def done(store: dict[str, Any]) -> bool:
        return bool(store["status"].get("catalogue", {}).get("requested") == "many")

    status = room.kubectl.wait("bst", "prod", done, 90)["status"]
    assert status["unlisted"] == 61
    assert status["catalogue"]["message"].startswith("61 manifests cannot be read")
    assert [item["metadata"]["name"] for item in room.kubectl.list("tb")] == ["old"]

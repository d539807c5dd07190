"""From `kubectl apply` to restored rows, by independent means: the server's own hashes and pg_dump."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from hack.lab.kubectl import condition

from .conftest import SMALL_SQL, in_hours

if TYPE_CHECKING:
    from .conftest import Room

pytestmark = pytest.mark.cluster


def test_a_backup_says_size_checksum_rows_and_place(room: Room) -> None:
    """What dashboards read is there and true."""
    status = room.back_up("b1")["status"]

    assert status["state"] == "Succeeded", status
    assert status["health"] == "Healthy"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", status["checksum"])
    assert status["contents"]["rows"] == 6000
    assert status["contents"]["tables"] == 2
    assert status["bytes"]["logical"] > status["bytes"]["stored"] > 0
    assert status["location"].endswith(f"/manifests/{status['backupId']}")
    assert status["consistency"] == "Snapshot"
    assert len(room.manifests()) == 1


def test_the_checksum_in_status_is_that_of_the_manifest_in_the_store(room: Room) -> None:
    """Anybody can check with sha256sum."""
    status = room.back_up("b1")["status"]
    (manifest,) = room.manifests()
    assert room.s3.shell(f"sha256sum {manifest}").split()[0] == status["checksum"].removeprefix("sha256:")


def test_kubectl_wait_tells_the_truth(room: Room) -> None:
    """A failed backup never satisfies `kubectl wait --for=condition=Succeeded`."""
    room.back_up("good")
    room.kubectl("wait", "tb/good", "--for=condition=Succeeded", "--timeout=1s")
    room.apply("Tenant", "acme", room.tenant_spec(name="absent"))
    room.back_up("bad")
    room.kubectl("wait", "tb/bad", "--for=condition=Failed", "--timeout=1s")
    assert room.kubectl.run("wait", "tb/bad", "--for=condition=Succeeded", "--timeout=1s").returncode != 0


def test_replace_swaps_and_undo_swaps_back(room: Room) -> None:
    """The damaged database is kept, and comes back when asked for."""
    good = room.server.fingerprint(room.database)
    room.back_up("b1")
    room.server.sql("TRUNCATE note; DELETE FROM person WHERE id > 10", room.database)
    damaged = room.server.fingerprint(room.database)

    status = room.restore("r1", "b1")["status"]
    assert status["state"] == "Succeeded", status
    assert room.server.fingerprint(room.database) == good
    assert room.server.fingerprint(status["previousDatabase"]) == damaged

    room.kubectl("patch", "tr", "r1", "--type=merge", "-p", '{"spec":{"undo":true}}')
    room.kubectl.wait("tr", "r1", lambda found: condition(found, "Undone").get("status") == "True", 60)
    assert room.server.fingerprint(room.database) == damaged


def test_the_kept_database_goes_when_its_time_is_over(room: Room) -> None:
    """KeepPrevious is a promise to free the room, too."""
    room.back_up("b1")
    status = room.restore("r1", "b1", keepPrevious="5s")["status"]
    assert status["state"] == "Succeeded", status
    room.kubectl.wait("tr", "r1", lambda found: not found["status"].get("previousDatabase"), 60)
    names = room.server.sql(
        f"SELECT datname FROM pg_database WHERE datname LIKE '{room.database}%'"
    ).splitlines()
    assert names == [room.database]


def test_replace_works_when_the_live_database_is_gone(room: Room) -> None:
    """Disaster means that there is nothing to swap with."""
    good = room.server.fingerprint(room.database)
    room.back_up("b1")
    room.server.sql(f"DROP DATABASE {room.database}")
    status = room.restore("r1", "b1")["status"]
    assert status["state"] == "Succeeded", status
    assert room.server.fingerprint(room.database) == good


def test_replace_carries_over_what_a_rename_loses(room: Room) -> None:
    """Grants on the database, settings and comment are those of the live one."""
    role = f"{room.database}_reader"
    room.server.sql(
        f"CREATE ROLE {role}; GRANT CONNECT ON DATABASE {room.database} TO {role};"
        f"ALTER DATABASE {room.database} SET statement_timeout = '7s';"
        f"ALTER ROLE {role} IN DATABASE {room.database} SET work_mem = '9MB';"
        f"COMMENT ON DATABASE {room.database} IS 'orders — live'"
    )
    before = _database_facts(room)
    room.back_up("b1")
    assert room.restore("r1", "b1")["status"]["state"] == "Succeeded"
    assert _database_facts(room) == before


def test_excluded_columns_keep_their_live_values(room: Room) -> None:
    """Without KeepLive nobody could log in after a restore."""
    spec = room.tenant_spec()
    spec["exclusions"] = {
        "columns": [{"table": "public.person", "column": "password", "onRestore": "KeepLive", "else": "!"}]
    }
    room.apply("Tenant", "acme", spec)
    room.back_up("b1")
    room.server.sql(
        "UPDATE person SET password = 'changed' WHERE id = 5; DELETE FROM note; DELETE FROM person WHERE id = 7",
        room.database,
    )

    status = room.restore("r1", "b1")["status"]
    assert status["state"] == "Succeeded", status
    rows = room.server.sql("SELECT id, password FROM person WHERE id IN (5, 6, 7) ORDER BY id", room.database)
    kept = room.server.sql("SELECT 'secret-' || md5('6')")
    assert rows.splitlines() == ["5|changed", f"6|{kept}", "7|!"]


def test_a_database_on_the_nodes_own_address_works_the_same(room: Room) -> None:
    """Servers outside the cluster are the usual case."""
    address = room.kubectl.list("nodes")[0]["status"]["addresses"][0]["address"]
    with room.server.kubectl.popen(
        "port-forward",
        "--address",
        address,
        f"deploy/{room.server.name}",
        "54329:5432",
        stdout=subprocess.PIPE,
    ) as forward:
        assert forward.stdout is not None
        assert b"Forwarding" in forward.stdout.readline()
        try:
            room.create_tenant(host=address, port=54329)
            assert room.back_up("b1")["status"]["state"] == "Succeeded"
        finally:
            forward.terminate()


def test_a_volume_store_holds_and_gives_back(empty_room: Room) -> None:
    """A PersistentVolumeClaim is a store like any other."""
    room = empty_room
    room.server.sql(f'SET ROLE "{room.database}";' + SMALL_SQL, room.database)
    good = room.server.fingerprint(room.database)
    room.create_tenant()
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "backups"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    room.kubectl.apply(claim)
    room.apply(
        "BackupStore", "prod", {"volume": {"persistentVolumeClaim": {"claimName": "backups"}, "path": "/lab"}}
    )
    status = room.back_up("b1")["status"]
    assert status["state"] == "Succeeded", status
    room.server.sql("DROP TABLE note", room.database)
    assert room.restore("r1", "b1")["status"]["state"] == "Succeeded"
    assert room.server.fingerprint(room.database) == good


def test_deleting_the_object_deletes_the_manifest(room: Room) -> None:
    """DeletionPolicy Delete is the default."""
    room.back_up("b1")
    room.kubectl("delete", "tb", "b1", "--timeout=60s")
    assert room.manifests() == []


def test_retain_leaves_the_manifest(room: Room) -> None:
    """DeletionPolicy Retain deletes the object alone."""
    room.back_up("b1", deletionPolicy="Retain")
    room.kubectl("delete", "tb", "b1", "--timeout=60s")
    assert len(room.manifests()) == 1


def test_a_running_backup_that_is_deleted_leaves_nothing(room: Room) -> None:
    """Job first, then pods, then what was written."""
    room.apply("TenantBackup", "b1", {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}})
    room.kubectl.wait("tb", "b1", lambda found: found.get("status", {}).get("state") == "Running", 30)
    room.kubectl("delete", "tb", "b1", "--timeout=90s")
    assert room.manifests() == []


def test_a_schedule_fires_names_its_backups_and_keeps_the_last(room: Room) -> None:
    """Two slots, keepLast 1: the older one goes, the newer one stays."""
    spec = {
        "schedule": "* * * * *",
        "tenants": ["acme"],
        "template": {"storeRef": {"name": "prod"}},
        "retention": {"keepLast": 1},
    }
    room.apply("BackupSchedule", "often", spec)
    first = room.kubectl.wait(
        "bsch", "often", lambda found: bool(found.get("status", {}).get("lastSuccess")), 100
    )
    assert len(first["status"]["nextRuns"]) == 3
    (backup,) = room.kubectl.list("tb", "-l", "tenantbackup.dev/schedule=often")
    name = backup["metadata"]["name"]
    room.kubectl("wait", f"tb/{name}", "--for=delete", "--timeout=150s")
    (kept,) = room.kubectl.list("tb", "-l", "tenantbackup.dev/schedule=often")
    assert kept["metadata"]["name"] > name
    room.kubectl("patch", "bsch", "often", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    assert len(room.manifests()) <= 2


def test_each_container_holds_only_its_own_secrets(room: Room) -> None:
    """The pod that ran is the proof."""
    room.back_up("b1")
    room.restore("r1", "b1")
    assert {
        "prepare": {"prod-s3"},
        "dump": {"db"},
        "archive": {"keys"},
        "upload": {"prod-s3"},
        "download": {"prod-s3"},
        "open": {"keys", "identity"},
        "load": {"db", "admin"},
    } == _secrets_by_container(room)


def _secrets_by_container(room: Room) -> dict[str, set[str]]:
    keys = room.kubectl.get("tnt", "acme")["status"]["keySecret"]  # type: ignore[index]
    found: dict[str, set[str]] = {}
    for job in room.kubectl.list("jobs"):
        pod = job["spec"]["template"]["spec"]
        secrets = {item["name"]: item["secret"]["secretName"] for item in pod["volumes"] if "secret" in item}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            mounted = {secrets[item["name"]] for item in container["volumeMounts"] if item["name"] in secrets}
            names = {"keys" if name == keys else name for name in mounted}
            if container["name"] in {"prepare", "dump", "archive", "upload", "download", "open", "load"}:
                found[container["name"]] = names
    return found


def _database_facts(room: Room) -> str:
    return room.server.sql(
        f"""SELECT (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(datacl) x), pg_get_userbyid(datdba), datconnlimit, encoding, datcollate,
        shobj_description(oid, 'pg_database'), (SELECT array_agg(setrole::regrole || ':' || setconfig::text ORDER BY 1) FROM pg_db_role_setting
        WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '{room.database}'"""
    )


def test_an_expired_approval_is_no_approval(room: Room) -> None:
    """An approval from yesterday's page must not destroy today's database."""
    room.back_up("b1")
    spec = room.restore_spec("b1", approval={"confirm": {"database": room.database, "expires": in_hours(-1)}})
    room.apply("TenantRestore", "r1", spec)
    waiting = room.kubectl.wait("tr", "r1", lambda found: "ApprovalPending" in str(found.get("status")), 30)
    assert "ran out" in str(waiting["status"]["conditions"])

"""Every way a user or the world can be wrong: the right reason, one sentence, nothing lost."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from hack.lab.kubectl import Kubectl, condition, is_over
from hack.lab.servers import S3, postgres, secret

from . import processes
from .conftest import Room, failure, new_room

pytestmark = pytest.mark.cluster

KNOWN = 30  # seconds within which a failure that can be known must be told
VANISHED = 120  # seconds for a server that went without a word: silence has to last before it says something
BIG_SQL = (
    "INSERT INTO note SELECT i, 1 + i % 1000, repeat(md5(i::text), 16) FROM generate_series(10001, 110000) i"
)


# What the tenant's spec or Secrets say


def _wrong_password(room: Room) -> None:
    room.kubectl.apply(secret("db", username=room.database, password="wrong"))


def _unknown_database(room: Room) -> None:
    room.apply("Tenant", "acme", room.tenant_spec(name="no_such_database"))


def _unknown_host(room: Room) -> None:
    room.create_tenant(host="no-such-host.databases.svc")


def _missing_secret(room: Room) -> None:
    room.kubectl("delete", "secret", "db")


def _missing_key(room: Room) -> None:
    room.kubectl("delete", "secret", "db")
    room.kubectl.apply(secret("db", username=room.database))


def _missing_module_table(room: Room) -> None:
    room.apply(
        "Tenant",
        "acme",
        room.tenant_spec() | {"modules": [{"name": "hr", "tables": ["public.no_such_table"]}]},
    )


def _missing_column(room: Room) -> None:
    column = {"table": "public.person", "column": "no_such_column", "onRestore": "Null"}
    room.apply("Tenant", "acme", room.tenant_spec() | {"exclusions": {"columns": [column]}})


def _store_without_rights(room: Room) -> None:
    room.kubectl.apply(secret("prod-s3", accessKeyId="stranger", secretAccessKey="nonsense"))


def _store_of_another_cluster(room: Room) -> None:
    owner = {
        "clusterId": "another",
        "namespace": "elsewhere",
        "name": "acme",
        "slug": "acme",
        "formatVersion": 1,
    }
    folder = f"/data/backups/{room.prefix}/{room.database.replace('_', '-')}"
    room.s3.shell(f"mkdir -p {folder} && printf '%s' '{json.dumps(owner)}' > {folder}/TENANT")


def _no_select(room: Room) -> None:
    room.server.sql(
        f"CREATE TABLE hidden (id int); ALTER TABLE hidden OWNER TO postgres; REVOKE ALL ON hidden FROM {room.database}",
        room.database,
    )


@pytest.mark.parametrize(
    ("spoil", "reason", "says"),
    [
        (_wrong_password, "AuthenticationFailed", "password authentication failed"),
        (_unknown_database, "DatabaseNotFound", "no_such_database"),
        (_unknown_host, "DatabaseUnreachable", "no-such-host"),
        (_missing_secret, "SecretNotFound", "db"),
        (_missing_key, "KeyMissing", "password"),
        (_missing_module_table, "TableNotFound", "public.no_such_table"),
        (_missing_column, "ColumnNotFound", "no_such_column"),
        (_store_without_rights, "StorePermissionDenied", "prod-s3"),
        (_store_of_another_cluster, "StoreForeign", "elsewhere"),
        (_no_select, "PermissionDenied", "GRANT SELECT"),
    ],
)
def test_a_backup_says_what_is_wrong_and_stores_nothing(
    room: Room, spoil: Callable[[Room], None], reason: str, says: str
) -> None:
    """The reason from the closed list, the culprit by name, within the time it takes to know."""
    spoil(room)
    got, message = failure(room.back_up("b1", seconds=KNOWN))
    assert (reason, True) == (got, says in message), message
    assert room.manifests() == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_wrong_password, "AuthenticationFailed"),
        (_unknown_database, "DatabaseNotFound"),
        (_missing_secret, "SecretNotFound"),
        (_missing_column, "ColumnNotFound"),
    ],
)
def test_a_tenant_that_cannot_be_backed_up_is_not_ready(
    empty_room: Room, spoil: Callable[[Room], None], reason: str
) -> None:
    """Preflight says so before the first backup does."""
    room = empty_room
    room.server.sql("CREATE TABLE person (id int)", room.database)
    spoil(room)
    if room.kubectl.get("tnt", "acme") is None:
        room.create_tenant()
    room.kubectl.wait("tnt", "acme", lambda found: condition(found, "Ready").get("reason") == reason, KNOWN)


def test_a_tenant_without_recipients_is_told_how_to_make_a_key(empty_room: Room) -> None:
    """Encryption is not optional, so help is."""
    room = empty_room
    room.apply("Tenant", "acme", room.tenant_spec() | {"encryption": {"recipients": []}})
    found = room.kubectl.wait(
        "tnt", "acme", lambda found: condition(found, "Stalled").get("status") == "True", KNOWN
    )
    assert "age-keygen" in condition(found, "Stalled")["message"]


def test_objects_may_come_in_any_order(empty_room: Room) -> None:
    """GitOps applies the backup before its tenant: it waits, then runs."""
    room = empty_room
    room.server.sql(
        f'SET ROLE "{room.database}"; CREATE TABLE person AS SELECT generate_series(1, 10) id', room.database
    )
    room.apply("TenantBackup", "b1", {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}})
    room.kubectl.wait("tb", "b1", lambda found: "TenantNotFound" in str(found.get("status")), KNOWN)
    room.create_tenant()
    room.create_store()
    assert room.kubectl.wait("tb", "b1", is_over, 60)["status"]["state"] == "Succeeded"


# The database goes away


def test_a_database_dropped_in_mid_dump_is_never_a_backup(room: Room) -> None:
    """The first try loses its connection, the next one finds nothing."""
    room.server.sql(BIG_SQL, room.database)
    _start(room)
    with processes.frozen("archive", room.kubectl.namespace, "archive.sock"):
        _wait_for_copy(room)
        room.server.sql(f"DROP DATABASE {room.database} WITH (FORCE)")
    reason, _ = failure(room.kubectl.wait("tb", "b1", is_over, 60))
    assert reason == "DatabaseNotFound"
    assert room.manifests() == []


@pytest.fixture
def own_server(servers: Kubectl, namespace: Kubectl, operator: Kubectl, s3_server: S3) -> Room:
    """A room whose PostgreSQL server no other test uses."""
    server = postgres(namespace, "pg-own", "localhost/test-postgres:17")
    room = new_room(namespace, server, s3_server)
    server.sql(
        f'SET ROLE "{room.database}"; CREATE TABLE note AS SELECT i, repeat(md5(i::text), 16) FROM generate_series(1, 100000) i',
        room.database,
    )
    room.create_tenant()
    room.create_store()
    return room


def test_a_database_scaled_to_nothing_is_unreachable(own_server: Room) -> None:
    """K8up called this a success."""
    room = own_server
    room.kubectl("scale", "deploy/pg-own", "--replicas=0")
    room.kubectl("wait", "pod", "-l", "app=pg-own", "--for=delete", "--timeout=30s")
    reason, message = failure(room.back_up("b1", seconds=KNOWN))
    assert (reason, "pg-own" in message) == ("DatabaseUnreachable", True), message
    assert room.manifests() == []


def test_a_database_pod_deleted_in_mid_dump_is_never_a_backup(own_server: Room) -> None:
    """It comes back empty here: the next try finds neither user nor database, and says so."""
    room = own_server
    _start(room)
    with processes.frozen("archive", room.kubectl.namespace, "archive.sock"):
        _wait_for_copy(room)
        room.kubectl("delete", "pod", "-l", "app=pg-own", "--grace-period=1")
    reason, _ = failure(room.kubectl.wait("tb", "b1", is_over, VANISHED))
    assert reason in {"DatabaseUnreachable", "AuthenticationFailed", "DatabaseNotFound"}
    assert room.manifests() == []


# A container dies


@pytest.mark.parametrize("victim", ["dump", "archive", "upload"])
def test_a_killed_container_is_told_and_the_next_try_succeeds(room: Room, victim: str) -> None:
    """One manifest, however the first try ended."""
    room.server.sql(BIG_SQL, room.database)
    _start(room)
    with processes.frozen("archive", room.kubectl.namespace, "archive.sock"):
        _wait_for_copy(room)
        processes.kill(processes.find(victim, room.kubectl.namespace))
    found = room.kubectl.wait("tb", "b1", lambda found: "StageKilled" in str(found.get("status")), KNOWN)
    assert "attempt 1 of 3" in str(found["status"]["conditions"])
    assert room.manifests() == []
    done = room.kubectl.wait("tb", "b1", is_over, 90)["status"]
    assert (done["state"], done["attempts"], len(room.manifests())) == ("Succeeded", 2, 1)


def test_a_container_killed_each_time_fails_the_backup(room: Room) -> None:
    """Tries are bounded."""
    _start(room)
    last = 0
    for _ in range(3):
        last = processes.find_listening("archive", room.kubectl.namespace, "archive.alive", other_than=last)
        processes.kill(last)
    reason, _ = failure(room.kubectl.wait("tb", "b1", is_over, 60))
    assert reason == "StageKilled"
    assert room.manifests() == []


def test_a_killed_load_leaves_the_old_database_and_the_next_try_succeeds(room: Room) -> None:
    """The swap is the last thing that happens."""
    room.server.sql(BIG_SQL, room.database)
    good = room.server.fingerprint(room.database)
    assert room.back_up("b1")["status"]["state"] == "Succeeded"
    room.server.sql("DELETE FROM note", room.database)
    live = room.server.fingerprint(room.database)
    room.apply("TenantRestore", "r1", room.restore_spec("b1") | {"approval": _approval(room)})
    with processes.frozen("open", room.kubectl.namespace, "open.sock"):
        time.sleep(0.5)
        processes.kill(processes.find("load", room.kubectl.namespace))
        assert room.server.fingerprint(room.database) == live
    room.kubectl.wait("tr", "r1", lambda found: "StageKilled" in str(found.get("status")), KNOWN)
    done = room.kubectl.wait("tr", "r1", is_over, 90)["status"]
    assert done["state"] == "Succeeded", done
    assert room.server.fingerprint(room.database) == good
    logins = room.server.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'tbr\\_%'")
    assert logins == "0"


# The store


def test_a_full_volume_is_told_and_holds_no_manifest(empty_room: Room, tmp_path: Path) -> None:
    """Two megabytes of tmpfs are a very small store."""
    room = empty_room
    room.server.sql(
        "CREATE TABLE noise AS SELECT i, md5(random()::text) || md5(random()::text) x FROM generate_series(1, 200000) i",
        room.database,
    )
    room.server.sql(f"ALTER TABLE noise OWNER TO {room.database}", room.database)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0777", "tmpfs", str(small)], check=True)
    try:
        room.kubectl.apply(*_volume(f"small-{room.kubectl.namespace}", small, room.kubectl.namespace))
        room.apply("BackupStore", "prod", {"volume": {"persistentVolumeClaim": {"claimName": "small"}}})
        room.create_tenant()
        reason, message = failure(room.back_up("b1", seconds=KNOWN))
        assert reason == "StoreFull", message
        assert not list(small.rglob("manifests/*"))
    finally:
        room.kubectl("delete", "jobs", "--all", "--wait=true", "--timeout=60s")
        subprocess.run(["umount", "-l", str(small)], check=True)
        room.kubectl("delete", "pv", f"small-{room.kubectl.namespace}", "--wait=false")


# Restores


@pytest.fixture
def backed_up(room: Room) -> Iterator[Room]:
    """A room with a good backup b1; whatever the test does, the live database stays as it is."""
    assert room.back_up("b1")["status"]["state"] == "Succeeded"
    before = room.server.fingerprint(room.database)
    yield room
    assert room.server.fingerprint(room.database) == before
    left = room.server.sql(f"SELECT datname FROM pg_database WHERE datname LIKE '{room.database}\\_new\\_%'")
    assert left == ""


def test_a_wrong_identity_opens_nothing(backed_up: Room) -> None:
    """The key of somebody else."""
    backed_up.kubectl.apply(secret("identity", identity=str(pyrage.x25519.Identity.generate())))
    reason, message = failure(backed_up.restore("r1", "b1", seconds=KNOWN))
    assert (reason, "identity" in message) == ("WrongKey", True), message


def test_a_missing_identity_is_named(backed_up: Room) -> None:
    """Which Secret, which key."""
    backed_up.kubectl("delete", "secret", "identity")
    reason, message = failure(backed_up.restore("r1", "b1", seconds=KNOWN))
    assert (reason in {"SecretNotFound", "KeyMissing"}, "identity" in message) == (True, True), (
        reason,
        message,
    )


def test_a_corrupted_pack_is_detected_before_the_database_sees_it(backed_up: Room) -> None:
    """One byte in the middle."""
    script = "f=$(find . -path '*/packs/*' -type f | head -1); n=$(($(stat -c %s $f) / 2)); "
    backed_up.s3.shell(
        f"cd /data/backups/{backed_up.prefix} && {script} printf '\\377\\000\\377' | dd of=$f bs=1 seek=$n conv=notrunc 2>/dev/null"
    )
    assert failure(backed_up.restore("r1", "b1", seconds=KNOWN))[0] == "ChecksumMismatch"


def test_a_deleted_pack_is_missed_before_anything_is_done(backed_up: Room) -> None:
    """Gone behind everybody's back."""
    backed_up.s3.shell(f"cd /data/backups/{backed_up.prefix} && find . -path '*/packs/*' -type f -delete")
    assert failure(backed_up.restore("r1", "b1", seconds=KNOWN))[0] == "PackMissing"


def test_a_forged_manifest_is_refused(backed_up: Room) -> None:
    """Whoever can write the store still cannot sign."""
    backed_up.s3.shell(
        f"cd /data/backups/{backed_up.prefix} && sed -i 's/\"rows\": *6000/\"rows\":6001/' $(find . -path '*/manifests/*' -type f)"
    )
    assert failure(backed_up.restore("r1", "b1", seconds=KNOWN))[0] in {
        "SignatureInvalid",
        "ChecksumMismatch",
    }


def test_a_deleted_manifest_is_a_backup_not_found(backed_up: Room) -> None:
    """The object says Succeeded, the store says no."""
    backed_up.s3.shell(f"cd /data/backups/{backed_up.prefix} && find . -path '*/manifests/*' -type f -delete")
    assert failure(backed_up.restore("r1", "b1", seconds=KNOWN))[0] == "BackupNotFound"


def test_a_new_database_never_overwrites_an_existing_one(backed_up: Room) -> None:
    """The name is taken."""
    spec = backed_up.new_database_spec("b1", "postgres")
    backed_up.apply("TenantRestore", "r1", spec)
    assert failure(backed_up.kubectl.wait("tr", "r1", is_over, KNOWN))[0] == "NameTaken"


def test_replace_without_approval_waits_and_says_how_to_approve(backed_up: Room) -> None:
    """Nothing runs before somebody says so."""
    backed_up.apply("TenantRestore", "r1", backed_up.restore_spec("b1"))
    found = backed_up.kubectl.wait(
        "tr", "r1", lambda found: "ApprovalPending" in str(found.get("status")), KNOWN
    )
    assert "kubectl" in str(found["status"]["conditions"])
    time.sleep(2)
    assert [name for name in backed_up.jobs() if name.startswith("r1")] == []


def test_replace_with_the_wrong_name_confirmed_waits(backed_up: Room) -> None:
    """A slip of the pen is not an approval."""
    wrong = _approval(backed_up)
    wrong["confirm"]["database"] = "another"
    backed_up.apply("TenantRestore", "r1", backed_up.restore_spec("b1") | {"approval": wrong})
    backed_up.kubectl.wait("tr", "r1", lambda found: "ApprovalPending" in str(found.get("status")), KNOWN)


def test_replace_from_a_partial_backup_is_refused(room: Room) -> None:
    """Half a database must not replace a whole one."""
    room.apply(
        "Tenant", "acme", room.tenant_spec() | {"modules": [{"name": "people", "tables": ["public.person"]}]}
    )
    assert room.back_up("b1", modules=["people"])["status"]["state"] == "Succeeded"
    before = room.server.fingerprint(room.database)
    assert failure(room.restore("r1", "b1", seconds=KNOWN))[0] == "PartialBackup"
    assert room.server.fingerprint(room.database) == before


def test_a_backup_of_another_tenant_is_refused(backed_up: Room) -> None:
    """One tenant can never reach another."""
    backed_up.apply("Tenant", "other", backed_up.tenant_spec() | {"slug": "other"})
    spec = backed_up.restore_spec(
        "b1", strategy="NewDatabase", target={"tenantRef": {"name": "other"}, "database": "stolen"}
    )
    backed_up.apply("TenantRestore", "r1", spec)
    assert failure(backed_up.kubectl.wait("tr", "r1", is_over, KNOWN))[0] == "CrossTenantAccess"


EVIL = """
CREATE FUNCTION public.climb_now() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN {attempt} END $f$;
CREATE FUNCTION public.climb(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$
BEGIN
  IF session_user <> '{owner}' THEN PERFORM public.climb_now(); END IF;
  RETURN i;
END $f$;
CREATE INDEX climbing ON person (public.climb(id));
"""


def test_code_of_the_tenant_that_wants_administrator_rights_fails_the_restore(room: Room) -> None:
    """It runs as a login that may do nothing; the old database stays."""
    _plant(room, f"EXECUTE 'ALTER ROLE {room.database} SUPERUSER';")
    assert room.back_up("b1")["status"]["state"] == "Succeeded"
    before = room.server.fingerprint(room.database)
    reason, message = failure(room.restore("r1", "b1", seconds=KNOWN))
    assert reason == "PermissionDenied", message
    assert room.server.fingerprint(room.database) == before
    assert _superuser(room) == "f"


def test_code_of_the_tenant_that_hides_its_attempt_gains_nothing(room: Room) -> None:
    """Caught errors do not fail the restore, and do not help either."""
    _plant(
        room, f"BEGIN EXECUTE 'ALTER ROLE {room.database} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;"
    )
    assert room.back_up("b1")["status"]["state"] == "Succeeded"
    assert room.restore("r1", "b1")["status"]["state"] == "Succeeded"
    assert _superuser(room) == "f"


# The cluster


@pytest.fixture
def runner_image(operator: Kubectl) -> Iterator[Callable[[str], None]]:
    """Set the image of the Jobs, and put it back."""
    deployment = operator.list("deploy")[0]["metadata"]["name"]
    before = "localhost/tenant-backup-runner:dev"

    def use(image: str) -> None:
        operator("set", "env", f"deploy/{deployment}", f"TENANT_BACKUP_RUNNER_IMAGE={image}")
        operator("rollout", "status", f"deploy/{deployment}", "--timeout=60s")

    yield use
    use(before)


def test_an_image_that_cannot_be_pulled_is_told(room: Room, runner_image: Callable[[str], None]) -> None:
    """Silence is what users get elsewhere."""
    runner_image("localhost/no-such-image:dev")
    _start(room)
    found = room.kubectl.wait(
        "tb", "b1", lambda found: condition(found, "Stalled").get("status") == "True", KNOWN
    )
    stalled = condition(found, "Stalled")
    assert (stalled["reason"], "no-such-image" in stalled["message"]) == ("ImagePullFailed", True), stalled


def test_a_node_that_takes_no_pod_is_told_and_the_backup_runs_when_it_does(room: Room) -> None:
    """Waiting is visible, and ends by itself."""
    node = room.kubectl.list("nodes")[0]["metadata"]["name"]
    room.kubectl("cordon", node)
    try:
        _start(room)
        room.kubectl.wait("tb", "b1", lambda found: "Unschedulable" in str(found.get("status")), KNOWN)
    finally:
        room.kubectl("uncordon", node)
    assert room.kubectl.wait("tb", "b1", is_over, 60)["status"]["state"] == "Succeeded"


def _start(room: Room) -> None:
    room.apply("TenantBackup", "b1", {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}})


def _wait_for_copy(room: Room) -> None:
    """Return once a worker of the dump stands in the middle of a COPY."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        busy = room.server.sql(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{room.database}' AND query LIKE 'COPY%'"
        )
        if busy != "0":
            return
    raise TimeoutError("the dump never came to COPY")


def _approval(room: Room) -> dict[str, Any]:
    from .conftest import in_hours

    return {"confirm": {"database": room.database, "expires": in_hours(1)}}


def _plant(room: Room, attempt: str) -> None:
    evil = EVIL.format(owner=room.database, attempt=attempt)
    # Made in a session of the tenant's own: SET ROLE would leave another session_user.
    room.server.sql(f"SET SESSION AUTHORIZATION {room.database};" + evil, room.database)


def _superuser(room: Room) -> str:
    return room.server.sql(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{room.database}'")


def _volume(name: str, path: Path, namespace: str) -> list[dict[str, Any]]:
    size = {"storage": "2Mi"}
    shared = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **shared,
                "capacity": size,
                "hostPath": {"path": str(path)},
                "claimRef": {"namespace": namespace, "name": "small"},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "small", "namespace": namespace},
            "spec": {**shared, "volumeName": name, "resources": {"requests": size}},
        },
    ]

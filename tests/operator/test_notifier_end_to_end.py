"""A real operator on a real API server tells real receivers, and is killed between telling and remembering."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from hack.localcluster.builds import KUBERNETES
from tests.chart.conftest import rendered
from tests.operator.conftest import Space
from tests.operator.control_plane import OPERATOR_TOKEN
from tests.operator.node import Node
from tests.operator.processes import Process
from tests.operator.receivers import PASSWORD, SIGNING, USERNAME, Authority, Web, smtp, web
from tests.operator.test_end_to_end import BACKUP, three_objects

OPS = {"name": "ops"}
WEBHOOK: dict[str, Any] = {
    "events": ["BackupFailed", "BackupSucceeded"],
    "webhook": {"urlSecretRef": OPS, "signingSecretRef": OPS},
}
ACCOUNT = "tenant-backup-system:tenant-backup-operator"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def operator(space: Space, crash_at: str = "never:0", **settings: str) -> Process:
    """Start an operator that may reach receivers on loopback, but not the cloud's metadata."""
    allowed = {"TENANT_BACKUP_REFUSED_NETWORKS": "169.254.0.0/16", "TENANT_BACKUP_SERVICE_ACCOUNT": ACCOUNT}
    return space.operator(crash_at, **allowed, **settings)


def of_the_chart(space: Space) -> str:
    """Give the chart's service account the chart's rights, and return its kubeconfig."""
    for item in rendered():
        if item["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            answer = space.api.call("POST", f"{RBAC}/{item['kind'].lower()}s", item)
            assert answer.ok or answer.status_code == 409, answer.text
    document = json.loads(space.api.kubeconfig.read_text())
    document["users"][0]["user"]["token"] = OPERATOR_TOKEN
    kubeconfig = space.folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(document))
    return str(kubeconfig)


def secret(space: Space, name: str = "ops", **values: str) -> None:
    """Make a Secret, or change it."""
    data = {
        key.replace("ca_crt", "ca.crt"): base64.b64encode(text.encode()).decode()
        for key, text in values.items()
    }
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    if space.api.call("POST", space.core("secrets"), body).status_code == 409:
        space.api.do("PATCH", space.core("secrets", name), {"data": data})


def failed(space: Space, name: str, message: str = "no space left") -> None:
    """A backup that failed right now."""
    space.create("TenantBackup", name, BACKUP)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Succeeded", "status": "False", "reason": "DumpFailed", "message": message}
    status = {
        "state": "Failed",
        "observedGeneration": 1,
        "completedAt": now,
        "conditions": [{**condition, "lastTransitionTime": now}],
    }
    space.api.do("PATCH", f"{space.path('TenantBackup', name)}/status", {"status": status})


def status(space: Space, name: str = "ops") -> dict[str, Any]:
    """The status of a notifier."""
    return dict((space.get("BackupNotifier", name) or {}).get("status", {}))


def names(receiver: Web) -> list[str]:
    """Which backups a receiver was told of."""
    return [event["data"]["name"] for event in receiver.accepted]


def written(space: Space) -> int:
    """How often the status of notifiers was written."""
    return sum("backupnotifiers" in line for line in space.writes)


def test_a_backup_is_told_by_webhook_mail_and_heartbeat(
    space: Space, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From the three objects of a first backup to the receivers; at rest nothing is written."""
    authority = Authority.make(tmp_path_factory.mktemp("authority"))
    with web() as hook, web() as heart, smtp(authority.server()) as box, Node(space.api, space.name):
        secret(space, url=hook.url, secret=SIGNING)
        secret(space, "heart", url=heart.url)
        login = {"username": USERNAME, "password": PASSWORD, "ca_crt": authority.pem}
        secret(space, "mail", host="localhost", port=str(box.port), **login)
        mail = {"smtpSecretRef": {"name": "mail"}, "from": "backup@example.org", "to": ["ops@example.org"]}
        spec = {**WEBHOOK, "email": mail, "heartbeat": {"urlSecretRef": {"name": "heart"}}}
        space.create("BackupNotifier", "ops", spec)
        operator(space)
        space.until_condition("BackupNotifier", "ops", "Ready")
        assert hook.asked == heart.asked == 0
        three_objects(space)
        space.until(lambda: status(space).get("delivered") == 3, "all three receivers were told")
        found = status(space)
    assert (hook.accepted[0]["type"], hook.forged) == ("dev.tenantbackup.BackupSucceeded", 0)
    assert hook.accepted[0]["data"]["name"] == "acme-1"
    assert heart.asked == 1
    assert box.mails[0]["Subject"] == f"[backup] BackupSucceeded: acme ({space.name}/acme-1)"
    assert {entry["name"]: entry["delivered"] for entry in found["receivers"]} == {
        "Webhook": 1,
        "Email": 1,
        "Heartbeat": 1,
    }
    assert "lastError" not in found
    assert hook.url not in space.log.read_text()


def test_what_was_told_and_not_recorded_is_told_again_under_the_same_id(space: Space) -> None:
    """The operator is killed with SIGKILL before the write that records the delivery, and after another one."""
    with web() as hook:
        secret(space, url=hook.url, secret=SIGNING)
        space.create("BackupNotifier", "ops", WEBHOOK)
        first = operator(space)
        space.until_condition("BackupNotifier", "ops", "Ready")
        first.send_signal(signal.SIGKILL)
        first.wait()
        for n in range(5):
            failed(space, f"a{n}")
        dying = operator(space, "before:1")
        space.until(lambda: dying.poll() is not None, "the operator has died before it recorded the delivery")
        assert Counter(names(hook)) == Counter({f"a{n}": 1 for n in range(5)})
        assert status(space)["delivered"] == 0
        dying = operator(space, "after:1")
        space.until(lambda: dying.poll() is not None, "the operator has died after it recorded the delivery")
        assert status(space)["delivered"] == 5
        failed(space, "b")
        operator(space)
        space.until(lambda: status(space)["delivered"] == 6, "what came later is told")
    assert Counter(names(hook)) == Counter({**{f"a{n}": 2 for n in range(5)}, "b": 1})
    assert len(set(hook.ids)) == 6


def test_hundreds_of_notifications_are_a_few_writes(space: Space) -> None:
    """And each is told once, in the order in which things happened."""
    with web() as hook:
        secret(space, url=hook.url, secret=SIGNING)
        space.create("BackupNotifier", "ops", WEBHOOK)
        for n in range(400):
            failed(space, f"b{n}")
        operator(space)
        space.until(lambda: status(space).get("delivered") == 400, "all were told", 120)
    assert set(Counter(names(hook)).values()) == {1}
    assert [event["time"] for event in hook.accepted] == sorted(event["time"] for event in hook.accepted)
    assert written(space) <= 10
    assert len(json.dumps(status(space))) < 16384


def test_a_receiver_that_is_down_is_tried_again_and_holds_up_no_other(space: Space) -> None:
    """500, then nobody there, then well again: nothing is lost and nothing told twice."""
    with web() as hook, web() as other:
        hook.manner = lambda n: 500 if n < 2 else 200
        secret(space, url=hook.url, secret=SIGNING)
        secret(space, "other", url=other.url, secret=SIGNING)
        for name in ("ops", "other"):
            place = {"urlSecretRef": {"name": name}, "signingSecretRef": {"name": name}}
            space.create("BackupNotifier", name, {**WEBHOOK, "webhook": place})
        operator(space)
        for name in ("ops", "other"):
            space.until_condition("BackupNotifier", name, "Ready")
        failed(space, "a")
        waiting = space.until_condition("BackupNotifier", "ops", "Ready", "False")
        conditions = {item["type"]: item for item in waiting["status"]["conditions"]}
        assert (conditions["Ready"]["reason"], conditions["Ready"]["message"]) == (
            "DeliveryFailed",
            "Webhook: answered 500",
        )
        space.until(lambda: names(other) == ["a"], "the other one was told")
        space.until_condition("BackupNotifier", "ops", "Ready")
        assert names(hook) == ["a"]
        assert (hook.asked, status(space)["failed"]) == (3, 0)


def test_a_secret_nobody_allowed_is_asked_for_by_the_command_that_allows_it(space: Space) -> None:
    """The operator has the chart's rights here, and no more; then the command is run as it was printed."""
    with web() as hook:
        secret(space, url=hook.url, secret=SIGNING)
        space.create("BackupNotifier", "ops", WEBHOOK)
        operator(space, KUBECONFIG=of_the_chart(space))
        stalled = space.until_condition("BackupNotifier", "ops", "Stalled")
        condition = next(item for item in stalled["status"]["conditions"] if item["type"] == "Ready")
        assert condition["reason"] == "PermissionDenied"
        command = condition["message"].split("`")[1]
        kubectl = f"{KUBERNETES.folder()}/kubectl --kubeconfig={space.api.kubeconfig} "
        subprocess.run(command.replace("kubectl ", kubectl), shell=True, check=True, capture_output=True)
        # The spec's new version has it look at once.
        space.api.do("PATCH", space.path("BackupNotifier", "ops"), {"spec": {"events": ["BackupFailed"]}})
        space.until_condition("BackupNotifier", "ops", "Ready")
        failed(space, "a")
        space.until(lambda: names(hook) == ["a"], "it was told")


def test_a_receiver_nobody_may_be_at_is_refused(space: Space) -> None:
    """The address of the cloud's metadata, in any spelling."""
    secret(space, url="http://169.254.169.254/latest/meta-data", secret=SIGNING)
    space.create("BackupNotifier", "ops", WEBHOOK)
    operator(space)
    space.until_condition("BackupNotifier", "ops", "Ready")
    failed(space, "a")
    refused = space.until_condition("BackupNotifier", "ops", "Ready", "False")
    assert "in a network where no receiver may be" in refused["status"]["lastError"]
    assert "169.254" not in json.dumps(refused["status"])

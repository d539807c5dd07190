"""Who may restore, who may approve, and who asked: the admission policies, by impersonation.

The tests' own copies of the policies have other names and match only the test namespaces, so that
they neither depend on nor disturb what is installed in the cluster.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hack.lab.kubectl import Kubectl
from hack.lab.servers import namespace as namespace_object

from .conftest import rendered

pytestmark = pytest.mark.cluster

Document = dict[str, Any]
REQUESTED_BY = "tenantbackup.dev/requested-by"
APPROVAL = {"confirm": {"database": "acme", "expires": "2030-01-01T00:00:00Z"}}


def restore(name: str, tenant: str = "acme", **spec: Any) -> Document:
    """A Replace of that tenant."""
    full = {
        "source": {"backupRef": {"name": "acme-1"}},
        "target": {"tenantRef": {"name": tenant}},
        "strategy": "Replace",
    }
    return {
        "apiVersion": "tenantbackup.dev/v1alpha1",
        "kind": "TenantRestore",
        "metadata": {"name": name},
        "spec": full | spec,
    }


def backup(name: str, requested_by: str | None = None) -> Document:
    """A TenantBackup, with who asked for it."""
    annotations = {REQUESTED_BY: requested_by} if requested_by else {}
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    return {
        "apiVersion": "tenantbackup.dev/v1alpha1",
        "kind": "TenantBackup",
        "metadata": {"name": name, "annotations": annotations},
        "spec": spec,
    }


def attempt(kubectl: Kubectl, user: str, document: Document, *, store: bool = False) -> tuple[bool, str]:
    """Apply as `user`; return (accepted, what the API server said)."""
    options = () if store else ("--dry-run=server",)
    done = kubectl.run("apply", "--as", user, *options, "-f", "-", stdin=json.dumps(document))
    return done.returncode == 0, (done.stdout + done.stderr).decode()


def grant(kubectl: Kubectl, user: str, *rules: tuple[str, str]) -> None:
    """Give `user` a Role with rules (verbs, resource or resource/name), and wait until it holds."""
    kubectl.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": user},
            "rules": [_rule(verbs, *resource.split("/")) for verbs, resource in rules],
        }
    )
    kubectl("create", "rolebinding", user, f"--role={user}", f"--user={user}")
    for verbs, resource in rules:
        _until(lambda: _can(kubectl, user, verbs.split()[-1], resource))  # noqa: B023 - called at once


def _rule(verbs: str, resource: str, name: str = "") -> Document:
    rule: Document = {"apiGroups": ["tenantbackup.dev"], "verbs": verbs.split(), "resources": [resource]}
    return {**rule, "resourceNames": [name]} if name else rule


def _can(kubectl: Kubectl, user: str, verb: str, resource: str) -> bool:
    return kubectl.run("auth", "can-i", verb, resource, "--as", user).stdout.strip() == b"yes"


def _until(holds: Callable[[], bool]) -> None:
    """The API server learns of roles and policies by watching: nothing is tested before they hold."""
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up, "the API server did not take the roles or policies in"
        time.sleep(0.1)


WRITE = "get create patch"


@pytest.fixture(scope="module")
def policed(kubectl: Kubectl, installed_types: None) -> Iterator[Kubectl]:
    """A namespace in which the policies of the chart hold, and users with different rights."""
    suffix = uuid.uuid4().hex[:8]
    room = kubectl.within(f"policies-{suffix}")
    kubectl.apply(namespace_object(room.namespace))
    kubectl("label", "namespace", room.namespace, f"policies={suffix}")
    policies = [_here_only(item, suffix) for item in rendered("--show-only", "templates/policies.yaml")]
    kubectl.apply(*policies)
    grant(room, "writer", (WRITE, "tenantrestores"), (WRITE, "tenantbackups"))
    grant(room, "restorer", (WRITE, "tenantrestores"), ("restore", "tenants/acme"))
    grant(room, "approver", (WRITE, "tenantrestores"), ("approve", "tenants/acme"))
    grant(room, "both", (WRITE, "tenantrestores"), ("restore", "tenants/acme"), ("approve", "tenants/acme"))
    _until(lambda: not attempt(room, "writer", restore("canary"))[0])
    _until(lambda: not attempt(room, "writer", backup("canary", "somebody else"))[0])
    yield room
    kubectl("delete", "namespace", room.namespace, "--wait=false")
    for item in policies:
        kubectl("delete", item["kind"].lower(), item["metadata"]["name"])


def _here_only(item: Document, suffix: str) -> Document:
    item["metadata"]["name"] += f".{suffix}"
    if item["kind"] == "ValidatingAdmissionPolicyBinding":
        item["spec"]["policyName"] += f".{suffix}"
        item["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {"policies": suffix}}}
    return item


def test_creating_a_restore_needs_the_verb_restore_on_the_tenant(policed: Kubectl) -> None:
    """The right to create TenantRestores alone restores nothing."""
    accepted, said = attempt(policed, "writer", restore("r1"))
    assert not accepted
    assert "writer may not restore into Tenant acme: ask for the verb restore" in said
    accepted, said = attempt(policed, "restorer", restore("r1"))
    assert accepted, said


def test_the_verb_on_one_tenant_is_no_right_on_another(policed: Kubectl) -> None:
    """Rights can be given per tenant in a namespace that many share."""
    accepted, said = attempt(policed, "restorer", restore("r1", tenant="globex"))
    assert not accepted
    assert "Tenant globex" in said


def test_whoever_creates_a_restore_need_not_be_able_to_approve_it(policed: Kubectl) -> None:
    """Neither at creation nor later; the approver in turn cannot create one."""
    accepted, said = attempt(policed, "restorer", restore("r2", approval=APPROVAL))
    assert not accepted
    assert "restorer may not approve a restore into Tenant acme: ask for the verb approve" in said
    assert attempt(policed, "restorer", restore("r2"), store=True)[0]
    assert not attempt(policed, "restorer", restore("r2", approval=APPROVAL))[0]
    accepted, said = attempt(policed, "approver", restore("r2", approval=APPROVAL), store=True)
    assert accepted, said
    accepted, said = attempt(policed, "approver", restore("r3"))
    assert not accepted
    assert "may not restore" in said


def test_an_approval_cannot_be_changed_without_the_verb_but_other_changes_go_on(policed: Kubectl) -> None:
    """The operator's own patches carry the approval along and must pass."""
    assert attempt(policed, "both", restore("r4", approval=APPROVAL), store=True)[0]
    longer = {"confirm": {**APPROVAL["confirm"], "expires": "2031-01-01T00:00:00Z"}}
    assert not attempt(policed, "restorer", restore("r4", approval=longer))[0]
    patch = ("patch", "tr", "r4", "--type=merge", "-p", '{"metadata":{"labels":{"seen":"yes"}}}')
    done = policed.run(*patch, "--as", "writer", "--dry-run=server")
    assert done.returncode == 0, done.stderr.decode()


def test_undo_is_a_restore_too(policed: Kubectl) -> None:
    """Switching back changes the live database just as much."""
    assert attempt(policed, "both", restore("r5", approval=APPROVAL), store=True)[0]
    undone = restore("r5", approval=APPROVAL, undo=True)
    accepted, said = attempt(policed, "approver", undone)
    assert not accepted
    assert "may not restore" in said
    accepted, said = attempt(policed, "restorer", undone)
    assert accepted, said


def test_who_asked_must_be_who_asks(policed: Kubectl) -> None:
    """The annotation may be left out, but never name somebody else."""
    assert attempt(policed, "writer", backup("b1"))[0]
    assert attempt(policed, "writer", backup("b1", "writer"))[0]
    accepted, said = attempt(policed, "writer", backup("b1", "boss"))
    assert not accepted
    assert "must be writer, the user of this request" in said


@pytest.mark.parametrize(("before", "after"), [("writer", None), ("writer", "boss"), (None, "writer")])
def test_who_asked_never_changes(policed: Kubectl, before: str | None, after: str | None) -> None:
    """Not changed, not removed, not added later."""
    name = f"b-{before}-{after}".lower()
    assert attempt(policed, "writer", backup(name, before), store=True)[0]
    patch = json.dumps({"metadata": {"annotations": {REQUESTED_BY: after}}})
    done = policed.run("patch", "tb", name, "--type=merge", "-p", patch, "--as", "writer")
    assert done.returncode != 0
    assert b"never changes" in done.stderr


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    [
        ("viewer", "list", "tenantbackups", True),
        ("viewer", "create", "tenantbackups", False),
        ("operator", "create", "tenantbackups", True),
        ("operator", "delete", "backupschedules", True),
        ("operator", "delete", "tenantbackups", False),
        ("operator", "create", "tenantrestores", False),
        ("operator", "patch", "tenantrestores", False),
        ("operator", "patch", "tenants", False),
        ("viewer", "list", "backupnotifiers", True),
        ("operator", "create", "backupnotifiers", False),
        ("admin", "create", "backupnotifiers", True),
        ("operator", "restore", "tenants", False),
        ("admin", "create", "tenantrestores", True),
        ("admin", "restore", "tenants", True),
        ("admin", "approve", "tenants", True),
    ],
)
def test_the_roles_to_hand_out_allow_what_their_name_says(
    objects: list[Document], role: str, verb: str, resource: str, *, allowed: bool
) -> None:
    """`edit` gets the role `operator` by aggregation, and so may not restore."""
    (found,) = [item for item in objects if item["metadata"]["name"] == f"tenant-backup-{role}" and item["kind"] == "ClusterRole"]  # fmt: skip
    may = any(verb in rule["verbs"] and resource in rule["resources"] for rule in found["rules"])
    assert may is allowed

"""The chart: lint, values schema, what it renders, and the API server's opinion of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hack.lab.kubectl import Kubectl
from tenant_backup.controllers.delivery_networks import REFUSED

from .conftest import CHART, helm, rendered

Objects = list[dict[str, Any]]
KINDS = {"tenants", "backupstores", "tenantbackups", "tenantrestores", "backupschedules", "backupnotifiers"}


def of_kind(objects: Objects, kind: str) -> Objects:
    return [item for item in objects if item["kind"] == kind]


def test_helm_lint_has_nothing_to_say() -> None:
    """Strict: warnings are failures."""
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("runner.image.pullPolicy=Sometimes", "pullPolicy"),
        ("operator.image.repository=", "repository"),
        ("watchNamespaces={Not_A_Name}", "watchNamespaces"),
        ("admissionPolicies.enabled=perhaps", "enabled"),
        ("notifiers.refusedNetworks={everywhere}", "refusedNetworks"),
        ("runer.image.tag=1", "runer"),
    ],
)
def test_a_wrong_value_is_refused_by_name(option: str, field: str) -> None:
    """A typing error must not become a default."""
    done = helm("template", "x", str(CHART), "--set", option)
    assert done.returncode != 0
    assert field in done.stderr


def test_every_value_is_in_the_schema_and_every_schema_entry_is_a_value() -> None:
    """The schema forbids what values.yaml does not show, and shows nothing else."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)  # helm adds `global` itself


def test_uninstalling_keeps_the_kinds_and_so_every_object(objects: Objects) -> None:
    """Deleting a CRD deletes all its objects, and with them, by finalizer, the data."""
    definitions = of_kind(objects, "CustomResourceDefinition")
    assert {item["metadata"]["name"] for item in definitions} == {
        f"{name}.tenantbackup.dev" for name in KINDS
    }
    assert all(item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for item in definitions)


def test_the_operator_cannot_read_a_secret(objects: Objects) -> None:
    """Jobs mount Secrets; the operator creates key Secrets and reads none."""
    names = {"tenant-backup-operator-controller", "tenant-backup-operator-cluster"}
    roles = [role for role in of_kind(objects, "ClusterRole") if role["metadata"]["name"] in names]
    rules = [rule for role in roles for rule in role["rules"]]
    assert len(roles) == len(names)
    assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == [["create"]]
    assert not [rule for rule in rules if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"]]
    assert of_kind(objects, "Role") == []


def test_secrets_of_notifiers_may_be_read_in_the_namespaces_that_are_named() -> None:
    """And not changed or listed, nor anywhere else."""
    objects = rendered("--set", "notifiers.namespaces={blue}")
    (role,) = of_kind(objects, "Role")
    assert role["metadata"]["namespace"] == "blue"
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    (binding,) = of_kind(objects, "RoleBinding")
    assert binding["metadata"]["namespace"] == "blue"
    assert binding["subjects"][0]["namespace"] == "tenant-backup-system"


def test_the_networks_where_no_receiver_may_be_are_those_of_the_code(objects: Objects) -> None:
    """Whoever runs the operator without the chart is as safe; and whom to allow what is told by name."""
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["TENANT_BACKUP_REFUSED_NETWORKS"].split(",") == list(REFUSED)
    account = environment["TENANT_BACKUP_SERVICE_ACCOUNT"]
    assert account == "tenant-backup-system:tenant-backup-operator"


def test_with_watched_namespaces_the_operator_has_rights_there_only() -> None:
    """One RoleBinding each instead of a ClusterRoleBinding."""
    objects = rendered("--set", "watchNamespaces={blue,green}")
    bound = {item["roleRef"]["name"] for item in of_kind(objects, "ClusterRoleBinding")}
    assert bound == {"tenant-backup-operator-cluster"}
    assert {item["metadata"]["namespace"] for item in of_kind(objects, "RoleBinding")} == {"blue", "green"}
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "TENANT_BACKUP_NAMESPACES", "value": "blue,green"} in container["env"]


def test_without_policies_the_operator_is_told_not_to_trust_the_annotation() -> None:
    """`requestedBy` is empty rather than a guess."""
    objects = rendered("--set", "admissionPolicies.enabled=false")
    assert not of_kind(objects, "ValidatingAdmissionPolicy")
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "TENANT_BACKUP_ADMISSION_POLICIES", "value": "false"} in container["env"]


def test_image_values_reach_the_operator_and_its_jobs() -> None:
    """The runner's image is not a pod of the chart: it travels as environment."""
    operator = "operator.image.repository=a/operator,operator.image.tag=1.2.3"
    runner = "runner.image.repository=a/runner,runner.image.tag=1.2.4,runner.image.pullPolicy=Never"
    objects = rendered("--set", operator, "--set", runner)
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "a/operator:1.2.3"
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["TENANT_BACKUP_RUNNER_IMAGE"] == "a/runner:1.2.4"
    assert environment["TENANT_BACKUP_RUNNER_PULL_POLICY"] == "Never"


@pytest.mark.cluster
def test_the_api_server_takes_every_object_of_the_chart(namespace: Kubectl) -> None:
    """Server-side dry-run with strict validation, in a namespace of its own beside what is installed."""
    objects = rendered("--namespace", namespace.namespace)
    options = ("--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict")
    done = namespace.run("apply", *options, "-f", "-", stdin=yaml.safe_dump_all(objects))
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.splitlines()) == len(objects)


@pytest.mark.cluster
def test_the_operators_pod_passes_the_restricted_profile(namespace: Kubectl, objects: Objects) -> None:
    """The test's namespace enforces it, so the API server says so for a bare pod."""
    (deployment,) = of_kind(objects, "Deployment")
    spec = {**deployment["spec"]["template"]["spec"], "serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}
    namespace("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    done = namespace.run("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    assert done.returncode == 0, done.stderr.decode()
    assert b"violate" not in done.stderr

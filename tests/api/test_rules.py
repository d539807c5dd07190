"""Every CEL rule and the limits of the schema, run by the real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hack.lab.kubectl import Kubectl
from tenant_backup.api.schema import custom_resource_definitions

from .examples import BACKUP, EXAMPLES, REFUSED_BY_SCHEMA, REPLACE, TENANT, Document, Example

pytestmark = pytest.mark.cluster


def dry_run(kubectl: Kubectl, document: Document) -> tuple[bool, str]:
    """Apply on the server without storing; return (accepted, what it said)."""
    done = kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(document))
    return done.returncode == 0, (done.stdout + done.stderr).decode()


def rules_in(node: Any) -> Iterator[str]:
    """Yield the messages of all CEL rules below a schema node."""
    if isinstance(node, dict):
        yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
        for child in node.values():
            yield from rules_in(child)
    if isinstance(node, list):
        for child in node:
            yield from rules_in(child)


def test_every_rule_has_an_accepted_and_a_refused_example() -> None:
    """A rule without examples may be wrong in either direction."""
    assert set(rules_in(custom_resource_definitions())) == {example.rule for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.rule[:40])
def test_the_api_server_accepts_and_refuses_as_the_rule_says(
    installed_types: None, namespace: Kubectl, example: Example
) -> None:
    """The refusal carries the rule's own message, so it is this rule that refuses."""
    for document in example.before:
        namespace.apply(document)
    accepted, said = dry_run(namespace, example.accepted)
    assert accepted, said
    accepted, said = dry_run(namespace, example.refused)
    assert not accepted
    assert example.rule in said


@pytest.mark.parametrize(("document", "field"), REFUSED_BY_SCHEMA, ids=lambda value: str(value)[-40:])
def test_the_api_server_refuses_what_the_schema_forbids(
    installed_types: None, namespace: Kubectl, document: Document, field: str
) -> None:
    """The refusal names the field."""
    accepted, said = dry_run(namespace, document)
    assert not accepted
    assert field in said


def test_a_new_object_says_that_nobody_has_seen_it(installed_types: None, namespace: Kubectl) -> None:
    """kstatus, Flux and Argo CD must not call it current before the operator looked."""
    # A dry run answers what would be stored, before an operator that may be running can look.
    made = namespace("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(TENANT))
    assert json.loads(made)["status"] == {"observedGeneration": -1}


def test_defaults_are_stored_and_empty_things_are_not(installed_types: None, namespace: Kubectl) -> None:
    """`kubectl get -o yaml` shows what the operator will do, and no empty lists."""
    namespace.apply(BACKUP)
    (stored,) = namespace.list("tenantbackups")
    defaults = {
        "contents": "All",
        "mode": "Incremental",
        "compression": {"level": 3},
        "verification": "Checksum",
        "deletionPolicy": "Delete",
        "deadline": "6h",
    }
    assert stored["spec"] == BACKUP["spec"] | defaults


def test_backups_and_restores_can_be_selected_by_tenant(installed_types: None, namespace: Kubectl) -> None:
    """Selectable fields: the operator and users ask the server, not all objects."""
    namespace.apply(BACKUP, REPLACE)
    assert namespace.list("tb", "--field-selector=spec.tenantRef.name=acme")
    assert not namespace.list("tb", "--field-selector=spec.tenantRef.name=other")
    assert namespace.list("tr", "--field-selector=spec.target.tenantRef.name=acme")
    assert not namespace.list("tr", "--field-selector=status.state=Succeeded")


def test_short_names_and_the_category_find_the_kinds(installed_types: None, namespace: Kubectl) -> None:
    """`kubectl get tnt,bst,tb,tr,bsch,bn` and `kubectl get tenantbackup` work as documented."""
    for what in ("tnt", "bst", "tb", "tr", "bsch", "bn", "tnt,bst,tb,tr,bsch,bn"):
        assert "No resources found" in namespace.run("get", what).stderr.decode()

"""Tenant and BackupStore: keys once, a Job per spec, Ready or the reason why not."""

from __future__ import annotations

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import store as stores
from tenant_backup.decisions import tenant as tenants
from tenant_backup.decisions.observed import Ended, KeyState
from tenant_backup.decisions.plan import Announce, ExpireJob, MakeKeys, RemoveJob, Run
from tests.decisions.objects import NOW, at, condition, job, kinds, store_seen, succeeded, tenant, tenant_seen

FOUND = {"version": "17.2", "sizeBytes": 12345, "tables": 7}
FACTS = {"database": FOUND}


@pytest.mark.parametrize(("keys", "made"), [("Absent", True), ("Lost", True), ("Present", False)])
def test_keys_are_made_once(keys: KeyState, made: bool) -> None:
    """Lost: named in status by a pass that died before it created them."""
    plan = tenants.decide(tenant_seen(keys=keys, status={}), NOW)
    assert any(isinstance(action, MakeKeys) for action in plan.actions) == made
    # The Event may have been lost with a pass that died: it comes until status says that they are there.
    assert any(isinstance(action, Announce) for action in plan.actions)
    settled = tenants.decide(tenant_seen(keys="Present"), NOW)
    assert not any(isinstance(action, MakeKeys | Announce) for action in settled.actions)


def test_a_new_tenant_gets_a_preflight_of_its_spec() -> None:
    """Under a name of its own for each generation."""
    plan = tenants.decide(tenant_seen(), NOW)
    (run,) = [action for action in plan.actions if isinstance(action, Run)]
    assert (run.purpose, run.generation, run.retries) == ("preflight", 1, 0)
    assert run.secrets.store == ""
    assert plan.status
    assert condition(plan.status, "Ready")["status"] == "Unknown"
    assert condition(plan.status, "Reconciling")["reason"] == Reason.RUNNING


def test_a_good_preflight_makes_it_ready() -> None:
    """With what was found."""
    done = job("preflight", generation=1, outcome=succeeded(FACTS))
    plan = tenants.decide(
        tenant_seen(jobs=(done,), backups=2, last_backup=("b", "2024-01-15T14:00:00Z")), NOW
    )
    assert plan.status
    assert condition(plan.status, "Ready")["status"] == "True"
    assert kinds(plan.status) == {"Ready"}
    assert plan.status["database"] == FOUND
    assert plan.status["backups"] == 2
    assert plan.status["lastBackup"] == {"name": "b", "completedAt": "2024-01-15T14:00:00Z"}
    assert plan.retry_in is None


def test_a_ready_tenant_costs_nothing() -> None:
    """The recorded answer holds for this generation; a Job left over may go."""
    first = tenants.decide(
        tenant_seen(jobs=(job("preflight", generation=1, outcome=succeeded(FACTS)),)), NOW
    ).status
    assert first
    again = tenants.decide(tenant_seen(status=first, jobs=(job("preflight", generation=1),)), at(1000))
    assert again.status == first
    assert all(isinstance(action, ExpireJob) for action in again.actions)


def test_a_new_spec_is_looked_at_again() -> None:
    """What the old Job says is not asked any more."""
    first = tenants.decide(tenant_seen(jobs=(job("preflight", generation=0, outcome=succeeded(FACTS)),)), NOW)
    assert any(isinstance(action, RemoveJob) for action in first.actions)
    assert any(isinstance(action, Run) for action in first.actions)


@pytest.mark.parametrize(
    "reason", [Reason.DATABASE_NOT_FOUND, Reason.AUTHENTICATION_FAILED, Reason.TABLE_NOT_FOUND]
)
def test_a_failed_preflight_stalls_and_is_repeated_with_growing_pauses(reason: Reason) -> None:
    """A Secret may be corrected without a new generation; nobody tells us."""
    failed = job("preflight", generation=1, attempt=3, ended=1, outcome=Ended(False, reason, "no"))
    early, late = (tenants.decide(tenant_seen(jobs=(failed,)), at(wait)) for wait in (79, 80))
    assert early.status
    assert condition(early.status, "Ready")["reason"] == reason
    assert condition(early.status, "Stalled")["reason"] == reason
    assert not any(isinstance(action, Run) for action in early.actions)
    (run,) = [action for action in late.actions if isinstance(action, Run)]
    assert run.attempt == 4


def test_without_recipients_the_tenant_is_stalled() -> None:
    """The message has the command that makes a key."""
    plan = tenants.decide(tenant_seen(tenant(encryption={})), NOW)
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.KEY_MISSING
    assert "age-keygen" in condition(plan.status, "Ready")["message"]


def test_a_deleted_tenant_keeps_its_keys() -> None:
    """Its backups need them."""
    plan = tenants.decide(tenant_seen(keys="Absent"), NOW)
    assert plan.actions
    document = tenant().model_copy(
        update={"metadata": tenant().metadata.model_copy(update={"deletion_timestamp": NOW})}
    )
    assert tenants.decide(tenant_seen(document, keys="Absent"), NOW).actions == ()


def test_a_store_is_ready_once_it_was_tried() -> None:
    """And says what it can."""
    facts = {"location": "s3://b", "capabilities": {"conditionalPut": True, "delete": False}}
    plan = stores.decide(store_seen(jobs=(job("probe", generation=1, outcome=succeeded(facts)),)), NOW)
    assert plan.status
    assert condition(plan.status, "Ready")["status"] == "True"
    assert plan.status["capabilities"] == {"conditionalPut": True, "delete": False}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.STORE_UNAVAILABLE, "Reconciling"),
        (Reason.STORE_PERMISSION_DENIED, "Stalled"),
        (Reason.STORE_FOREIGN, "Stalled"),
        (Reason.SECRET_NOT_FOUND, "Stalled"),
    ],
)
def test_a_store_that_cannot_be_used_says_why(reason: Reason, kind: str) -> None:
    """What may heal by itself is Reconciling, the rest needs a person."""
    failed = job("probe", generation=1, ended=1, outcome=Ended(False, reason, "no"))
    plan = stores.decide(store_seen(jobs=(failed,)), at(1))
    assert plan.status
    assert condition(plan.status, "Ready")["status"] == "False"
    assert condition(plan.status, kind)["reason"] == reason
    assert plan.retry_in == 19

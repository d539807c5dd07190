"""Deleting a Tenant: its backups stay, or go first; and who prunes what a deleted schedule made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenant_backup.api import Tenant
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.observed import TenantSeen
from tenant_backup.decisions.offboarding import AT_ONCE
from tenant_backup.decisions.plan import Action, Announce, Audit, DeleteBackup, HoldData, Plan, ReleaseData
from tenant_backup.decisions.tenant import decide
from tests.decisions.objects import NOW, condition, document, kinds, made, summary, tenant, tenant_seen

DELETED = {"deletionTimestamp": "2024-01-15T14:30:25Z", "finalizers": ["tenantbackup.dev/data"]}


def offboarded(policy: str = "Delete", **metadata: Any) -> Tenant:
    """Tenant acme with that policy, being deleted unless told otherwise."""
    spec = tenant().spec.model_dump(mode="json", by_alias=True, exclude_none=True) | {"offboarding": policy}
    return Tenant.model_validate(document("Tenant", "acme", spec, **(metadata or DELETED)))


def seen(found: Tenant, **fields: Any) -> TenantSeen:
    """One look at it, with two backups."""
    known: dict[str, Any] = {"backups": (summary("acme-1"), summary("acme-2"))}
    return tenant_seen(found, **(known | fields))


def of_type(plan: Plan, *types: type[Any]) -> list[Action]:
    """The actions of these types."""
    return [action for action in plan.actions if isinstance(action, types)]


def names(plan: Plan) -> list[str]:
    """What is deleted."""
    return [action.name for action in plan.actions if isinstance(action, DeleteBackup)]


def test_the_finalizer_is_on_a_tenant_only_with_offboarding_delete() -> None:
    """Nothing else of ours has to go before it."""
    plain = {"generation": 1}
    assert not of_type(decide(seen(offboarded("Retain", **plain)), NOW), HoldData, ReleaseData)
    assert of_type(decide(seen(offboarded("Delete", **plain)), NOW), HoldData, ReleaseData) == [HoldData()]
    held = {"finalizers": ["tenantbackup.dev/data"]}
    assert not of_type(decide(seen(offboarded("Delete", **held)), NOW), HoldData, ReleaseData)
    assert of_type(decide(seen(offboarded("Retain", **held)), NOW), HoldData, ReleaseData) == [ReleaseData()]


def test_with_offboarding_retain_the_backups_stay() -> None:
    """Also when somebody thinks better of it after the deletion."""
    assert decide(seen(offboarded("Retain", deletionTimestamp="2024-01-15T14:30:25Z")), NOW) == Plan()
    plan = decide(seen(offboarded("Retain")), NOW)
    told, release = plan.actions
    assert isinstance(told, Announce)
    assert told.reason is Reason.DATA_RETAINED
    assert told.message.startswith("2 TenantBackups")
    assert isinstance(release, ReleaseData)


def test_with_offboarding_delete_the_backups_go_first() -> None:
    """Each with a line in the audit log, before it is done."""
    plan = decide(seen(offboarded()), NOW)
    assert names(plan) == ["acme-1", "acme-2"]
    first, second, *_ = plan.actions
    assert isinstance(first, Audit)
    assert (first.record["event"], first.record["name"]) == ("offboarding", "acme-1")
    assert second == DeleteBackup("acme-1", "uid-acme-1", "1")
    assert not of_type(plan, ReleaseData)
    assert plan.status
    assert condition(plan.status, "Reconciling")["reason"] == Reason.RUNNING


def test_the_tenant_goes_when_its_last_backup_is_gone() -> None:
    """Until then it waits; those that go already are not deleted again."""
    going = (summary("acme-1", removing=True),)
    waiting = decide(seen(offboarded(), backups=going), NOW)
    assert waiting.actions == ()
    assert waiting.retry_in == 10.0
    told, release = decide(seen(offboarded(), backups=()), NOW).actions
    assert isinstance(told, Announce)
    assert told.reason is Reason.DATA_DELETED
    assert isinstance(release, ReleaseData)


def test_a_thousand_backups_do_not_go_at_once() -> None:
    """Each costs a Job."""
    many = tuple(summary(f"acme-{number:03}", removing=number < 5) for number in range(60))
    assert len(names(decide(seen(offboarded(), backups=many), NOW))) == AT_ONCE - 5


def test_what_somebody_holds_stays_and_so_does_the_tenant() -> None:
    """The others go; then the Tenant says what to do."""
    held = summary("acme-1", held=True)
    assert names(decide(seen(offboarded(), backups=(held, summary("acme-2"))), NOW)) == ["acme-2"]
    plan = decide(seen(offboarded(), backups=(held,)), NOW)
    assert plan.actions == ()
    assert plan.status
    stalled = condition(plan.status, "Stalled")
    assert stalled["reason"] == Reason.HELD
    assert "acme-1" in stalled["message"]


def test_deletion_policy_retain_is_kept_and_said() -> None:
    """The object goes, its data does not."""
    plan = decide(seen(offboarded(), backups=(summary("acme-1", retained=True),)), NOW)
    told = plan.actions[0]
    assert isinstance(told, Announce)
    assert told.reason is Reason.DATA_RETAINED
    assert "acme-1" in told.message
    assert names(plan) == ["acme-1"]


def test_a_namespace_that_goes_away_is_never_held_by_a_tenant() -> None:
    """Nor is the kind itself: the data stays."""
    plan = decide(seen(offboarded(), terminating=True), NOW)
    told, release = plan.actions
    assert isinstance(told, Announce)
    assert told.reason is Reason.DATA_RETAINED
    assert isinstance(release, ReleaseData)


def test_a_condition_says_that_nobody_prunes_what_a_deleted_schedule_made() -> None:
    """While it is so, and counted."""
    nightly, manual = made(NOW), summary("by-hand")
    orphans = seen(tenant(), backups=(nightly, replace(nightly, uid="other", name="other"), manual))
    plan = decide(orphans, NOW)
    assert plan.status
    found = condition(plan.status, "Unpruned")
    assert (found["status"], found["reason"]) == ("True", Reason.SCHEDULE_NOT_FOUND)
    assert "2 of nightly" in found["message"]
    again = decide(replace(orphans, schedules=frozenset({"nightly"}), status=plan.status), NOW)
    assert again.status
    assert "Unpruned" not in kinds(again.status)


def test_nobody_needs_to_prune_what_has_expired_or_goes_already() -> None:
    """Nor what no schedule made."""
    left = (made(NOW, "Expired"), made(NOW, removing=True), summary("by-hand"))
    plan = decide(seen(tenant(), backups=left), NOW)
    assert plan.status
    assert "Unpruned" not in kinds(plan.status)

"""Tenant and BackupStore: keys once, a Job per spec, Ready or the reason why not."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import store as stores
from tenant_backup.decisions import tenant as tenants
from tenant_backup.decisions.observed import Ended, KeyState
from tenant_backup.decisions.plan import Announce, ExpireJob, MakeKeys, RemoveJob, Run
from tenant_backup.decisions.summaries import of_backup
from tests.decisions.objects import (
    NOW,
    VERIFIED,
    at,
    condition,
    document,
    job,
    kinds,
    store_seen,
    succeeded,
    summary,
    tenant,
    tenant_seen,
)

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
        tenant_seen(jobs=(done,), backups=(summary("a", completed=at(-60)), summary("b"))), NOW
    )
    assert plan.status
    assert condition(plan.status, "Ready")["status"] == "True"
    assert kinds(plan.status) == {"Ready"}
    assert plan.status["database"] == FOUND
    assert plan.status["backups"] == 2
    assert plan.status["lastBackup"] == {"name": "b", "completedAt": "2024-01-15T14:30:25Z"}
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


def test_what_modules_leave_out_is_in_the_status_while_it_is_so() -> None:
    """Tables that no module claims, foreign keys that leave one; a list of nothing is not shown."""
    lists = {
        "unclaimedTables": {"count": 2, "names": ["public.a", "public.b"]},
        "leavingForeignKeys": {"count": 1, "names": ["public.a.k (module hr)"]},
    }
    first = _looked({"database": FOUND | lists}, {})
    assert {key: first[key] for key in lists} == lists
    assert first["database"] == FOUND
    empty = {key: {"count": 0, "names": []} for key in lists}
    assert not lists.keys() & _looked({"database": FOUND | empty}, first).keys()


def _looked(facts: dict[str, Any], status: Any) -> Any:
    done = job("preflight", generation=1, outcome=succeeded(facts))
    seen = tenant_seen(status={**status, "lookedAt": "2024-01-01T00:00:00Z"}, jobs=(done,))
    own = tenants.decide(seen, NOW).retry_in or 0.0 if status else 0.0  # its time of the day
    return tenants.decide(seen, at(own)).status


@pytest.mark.parametrize(
    ("backups", "size", "brake", "estimate"),
    [
        ((), 4 << 30, None, {"duration": "1m47s", "basis": "Size"}),
        ((), 4 << 30, "8Mi", {"duration": "8m37s", "basis": "Size"}),
        ((30, 10, 20), 4 << 30, None, {"duration": "20s", "basis": "Backups"}),
        ((900, 10, 10, 10, 10, 10, 10, 10), 0, None, {"duration": "10s", "basis": "Backups"}),
        ((0,), 4 << 30, None, {"duration": "1s", "basis": "Backups"}),
        ((), None, None, None),
    ],
)
def test_a_backup_takes_as_long_as_those_before_it_or_as_there_is_to_read(
    backups: tuple[int, ...], size: int | None, brake: str | None, estimate: dict[str, str] | None
) -> None:
    """The last seven of everything; parts and failures say nothing."""
    made = [
        summary(f"b{number}", started=at(100 * number - seconds), completed=at(100 * number))
        for number, seconds in enumerate(backups)
    ]
    others = [
        summary("part", modules=("hr",), started=at(-9999)),
        summary("rows", contents="Database", started=at(-9999)),
        summary("bad", health="Corrupt", started=at(-9999)),
    ]
    facts = {"database": {"version": "17.2"} | ({} if size is None else {"sizeBytes": size})}
    done = job("preflight", generation=1, outcome=succeeded(facts))
    acme = tenant(**({"readRate": brake} if brake else {}))
    plan = tenants.decide(tenant_seen(acme, jobs=(done,), backups=(*made, *others)), NOW)
    assert plan.status
    assert plan.status.get("estimate") == estimate


HOUR = 3600.0


def test_once_a_day_it_is_looked_at_again() -> None:
    """Passwords run out and tables are made without a new spec; until the look has ended the last one holds."""
    first = _looked(FACTS, {})
    calm = tenants.decide(tenant_seen(status=first), at(HOUR))
    assert not any(isinstance(action, Run) for action in calm.actions)
    assert calm.retry_in
    assert 11 * HOUR <= calm.retry_in <= 35 * HOUR
    time = HOUR + calm.retry_in
    due = tenants.decide(tenant_seen(status=first), at(time))
    assert any(isinstance(action, Run) for action in due.actions)
    assert due.status == first
    for fields, ready in [
        ({"running": True}, "True"),
        ({"outcome": Ended(False, Reason.AUTHENTICATION_FAILED, "no")}, "False"),
        ({"outcome": succeeded(FACTS)}, "True"),
    ]:
        again = job("preflight", generation=1, created=at(time), **fields)
        status = tenants.decide(tenant_seen(status=first, jobs=(again,)), at(time)).status
        assert status
        assert condition(status, "Ready")["status"] == ready
        assert (status["lookedAt"] != first["lookedAt"]) == ("outcome" in fields and ready == "True")


def test_after_a_rest_not_everybody_is_looked_at_at_once() -> None:
    """An operator that was down for days: each tenant waits for its own time of day."""
    first = _looked(FACTS, {})
    rest = 100 * HOUR
    calm = tenants.decide(tenant_seen(status=first), at(HOUR)).retry_in
    assert calm
    late = HOUR + calm + 3 * HOUR
    for moment in (late, late + rest - rest % (24 * HOUR)):
        waiting = tenants.decide(tenant_seen(status=first), at(moment))
        assert not any(isinstance(action, Run) for action in waiting.actions)
        assert waiting.retry_in
        then = tenants.decide(tenant_seen(status=first), at(moment + waiting.retry_in))
        assert any(isinstance(action, Run) for action in then.actions)


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


def test_the_last_backup_is_the_newest_good_one() -> None:
    """A Corrupt one was counted, and nobody can restore it."""
    corrupt = summary("new", health="Corrupt")
    plan = tenants.decide(tenant_seen(backups=(summary("old", completed=at(-60)), corrupt)), NOW)
    assert plan.status
    assert plan.status["backups"] == 2
    assert plan.status["lastBackup"]["name"] == "old"
    none = tenants.decide(tenant_seen(status=plan.status, backups=(corrupt,)), NOW)
    assert none.status
    assert "lastBackup" not in none.status


def test_the_last_verification_is_one_that_found_a_backup_healthy() -> None:
    """One that could not be done, and one of a backup that is Corrupt now, say nothing."""
    verified = summary("good", verified=at(-60))
    others = (summary("never", verified=None), summary("bad", verified=NOW, health="Corrupt"))
    plan = tenants.decide(tenant_seen(backups=(verified, *others)), NOW)
    assert plan.status
    assert plan.status["lastVerified"] == {"name": "good", "verifiedAt": "2024-01-15T14:29:25Z"}


@pytest.mark.parametrize("health", ["Corrupt", "Degraded", "Unknown"])
def test_only_a_healthy_backup_was_verified(health: str) -> None:
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    status = {"state": "Succeeded", "health": health, "verification": VERIFIED}
    assert of_backup(document("TenantBackup", "b", spec) | {"status": status}).verified is None


def test_a_verification_that_could_not_be_done_is_not_the_last_one() -> None:
    """It ended, and what was found before still holds."""
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    failed = VERIFIED | {"completedAt": "2024-02-01T00:00:00Z", "message": "could not be verified"}
    status = {"state": "Succeeded", "health": "Healthy", "verification": failed}
    assert of_backup(document("TenantBackup", "b", spec) | {"status": status}).verified == at(-1)

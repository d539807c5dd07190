"""What a tenant's backups need, what a store has, and that nothing but words comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.api import BackupStore
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import store as stores
from tenant_backup.decisions import tenant as tenants
from tenant_backup.decisions.capacity import stored_bytes
from tenant_backup.decisions.plan import Announce, Plan
from tests.decisions.objects import (
    NOW,
    at,
    condition,
    document,
    kinds,
    ready_store,
    store_seen,
    summary,
    tenant,
    tenant_seen,
)

GIB = 1 << 30


@dataclass(frozen=True)
class Run:
    """One backup of a model store: which packs it wrote and which it needs. A pack's id is its length."""

    wrote: frozenset[int]
    needs: frozenset[int]


@st.composite
def histories(draw: st.DrawFn) -> list[Run]:
    """Runs one after the other: each keeps some packs of the one before and writes new ones."""
    runs: list[Run] = []
    length, before = 1, frozenset[int]()
    for _ in range(draw(st.integers(1, 8))):
        kept = frozenset(pack for pack in before if draw(st.booleans()))
        count = draw(st.integers(0, 4))
        wrote = frozenset(range(length, length + count))
        length += count
        before = kept | wrote
        runs.append(Run(wrote, before))
    return runs


def remembered(runs: list[Run], keep: list[bool]) -> tuple[list[Any], int]:
    """What the roster has of those that are kept, and what they need in truth."""
    kept = [(number, run) for number, run in enumerate(runs) if keep[number]]
    backups = [
        summary(f"b{number}", completed=at(number), stored=sum(run.needs), added=sum(run.wrote))
        for number, run in kept
    ]
    return backups, sum(frozenset[int]().union(*(run.needs for _, run in kept)))


@given(histories())
def test_what_a_tenant_stores_is_exact_while_no_backup_was_deleted(runs: list[Run]) -> None:
    backups, truth = remembered(runs, [True] * len(runs))
    assert stored_bytes(backups) == truth


@given(histories(), st.lists(st.booleans(), min_size=8, max_size=8))
def test_what_a_tenant_stores_is_never_said_to_be_more_than_it_is(runs: list[Run], keep: list[bool]) -> None:
    """And never less than the largest backup needs."""
    backups, truth = remembered(runs, keep)
    assert max((one.stored for one in backups), default=0) <= stored_bytes(backups) <= truth


def test_backups_in_two_stores_share_nothing() -> None:
    pair = [summary("a", stored=10, added=10), summary("b", store="other", stored=7, added=7)]
    assert stored_bytes(pair) == 17


def told(plan: Plan) -> list[tuple[str, Reason]]:
    reasons = (Reason.STORED_BYTES_EXCEEDED, Reason.STORE_NEARLY_FULL)
    events = [action for action in plan.actions if isinstance(action, Announce)]
    return [(event.type, event.reason) for event in events if event.reason in reasons]


def storing(count: int, limit: str | None = "1Gi", **fields: Any) -> Plan:
    """A Tenant whose only backup needs that many bytes."""
    found = tenant(more={"limits": {"storedBytes": limit}} if limit else {})
    return tenants.decide(tenant_seen(found, backups=(summary(stored=count),), **fields), NOW)


def test_a_tenant_beyond_its_limit_is_warned_once_each_time() -> None:
    plan = storing(GIB + 1)
    assert plan.status
    assert plan.status["storedBytes"] == GIB + 1
    assert condition(plan.status, "WithinLimits")["status"] == "False"
    assert told(plan) == [("Warning", Reason.STORED_BYTES_EXCEEDED)]
    again = storing(GIB + 2, status=plan.status)
    assert told(again) == []
    below = storing(GIB, status=again.status)
    assert below.status
    assert condition(below.status, "WithinLimits")["status"] == "True"
    assert told(storing(GIB + 1, status=below.status)) == [("Warning", Reason.STORED_BYTES_EXCEEDED)]


def test_without_a_limit_there_is_the_figure_and_no_condition() -> None:
    plan = storing(GIB, limit=None)
    assert plan.status
    assert plan.status["storedBytes"] == GIB
    assert "WithinLimits" not in kinds(plan.status)


def test_what_is_corrupt_is_stored_and_what_expired_or_failed_is_not() -> None:
    backups = (
        summary("a", stored=10, health="Corrupt"),
        summary("b", stored=50, state="Expired"),
        summary("c", stored=70, state="Failed"),
    )
    plan = tenants.decide(tenant_seen(backups=backups), NOW)
    assert plan.status
    assert plan.status["storedBytes"] == 10


def room(used: int | None, before: dict[str, Any] | None = None, **capacity: Any) -> Plan:
    """A store of 10Gi after the collection that counted so many bytes."""
    spec = {"volume": {"persistentVolumeClaim": {"claimName": "b"}}, "capacity": {"limit": "10Gi"} | capacity}
    found = BackupStore.model_validate(document("BackupStore", "prod", spec))
    figures = {} if used is None else {"usedBytes": used}
    collected = {"startedAt": "2024-01-15T14:30:20Z", "attemptedAt": "2024-01-15T14:30:20Z"}
    status = {**(before or ready_store(collection=collected)), **figures}
    return stores.decide(store_seen(store=found, status=status), NOW)


def full(plan: Plan) -> str:
    assert plan.status
    return str(condition(plan.status, "CapacityOk")["status"])


def test_a_store_is_nearly_full_from_the_percentage_on() -> None:
    assert full(room(8 * GIB - 1)) == "True"
    assert full(room(8 * GIB)) == "False"
    assert full(room(8 * GIB, warnAt=81)) == "True"
    assert full(room(20 * GIB, warnAt=100)) == "False"


def test_nothing_is_said_of_a_store_before_its_first_collection() -> None:
    plan = room(None)
    assert full(plan) == "Unknown"
    assert told(plan) == []


def test_a_store_that_fills_up_is_told_once_for_each_crossing_and_stays_ready() -> None:
    first = room(9 * GIB)
    assert told(first) == [("Warning", Reason.STORE_NEARLY_FULL)]
    assert first.status
    assert condition(first.status, "Ready")["status"] == "True"
    again = room(9 * GIB + 1, dict(first.status))
    assert told(again) == []
    emptied = room(GIB, dict(again.status or {}))
    assert full(emptied) == "True"
    assert told(room(9 * GIB, dict(emptied.status or {}))) == [("Warning", Reason.STORE_NEARLY_FULL)]


def test_a_store_at_rest_writes_nothing() -> None:
    first = room(9 * GIB)
    assert room(9 * GIB, dict(first.status or {})).status == first.status


def test_a_store_without_capacity_has_no_such_condition() -> None:
    plan = stores.decide(store_seen(status=ready_store(usedBytes=GIB)), NOW)
    assert plan.status
    assert "CapacityOk" not in kinds(plan.status)

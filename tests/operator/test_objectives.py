"""A miss, by a real operator whose clock is ahead: told in its moment, once, and healed by a good backup."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_backup.decisions.instants import rfc3339
from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.processes import Process
from tests.operator.test_end_to_end import BACKUP, TENANT

POINT = timedelta(hours=1)
SOON = timedelta(seconds=12)


def ready_tenant(space: Space) -> datetime:
    """Tenant acme with an objective of an hour and no operator; return when the hour is over."""
    operator = space.operator()
    space.create("Tenant", "acme", {**TENANT, "objectives": {"recoveryPoint": "1h"}})
    space.until_condition("Tenant", "acme", "Ready")
    tenant = space.until_condition("Tenant", "acme", "ObjectivesMet")
    stop(operator)
    return datetime.fromisoformat(tenant["metadata"]["creationTimestamp"]) + POINT


def stop(operator: Process) -> None:
    operator.send_signal(signal.SIGTERM)
    operator.wait(20)


def good_backup(space: Space, taken: datetime) -> None:
    """Say of a backup that it succeeded, with the data of that time."""
    if space.get("TenantBackup", "acme-1") is None:
        space.create("TenantBackup", "acme-1", {**BACKUP, "verification": "None", "deletionPolicy": "Retain"})
    status: dict[str, Any] = {"state": "Succeeded", "health": "Healthy", "observedGeneration": 1}
    status |= {"startedAt": rfc3339(taken), "completedAt": rfc3339(taken + timedelta(minutes=1))}
    space.api.do("PATCH", f"{space.path('TenantBackup', 'acme-1')}/status", {"status": status})


def told(space: Space) -> list[str]:
    """The messages of the Events that tell of a miss."""
    events = space.api.items(space.core("events"))
    return [event["message"] for event in events if event["reason"] == "BackupMissed"]


def ahead_of(moment: datetime) -> float:
    """By how many seconds a clock is ahead that shows `moment` now."""
    return (moment - datetime.now(UTC)).total_seconds()


def test_a_miss_is_told_in_its_moment_and_healed_by_the_next_good_backup(space: Space) -> None:
    """Nothing happens in the cluster in that moment: the operator looks by itself."""
    with Node(space.api, space.name):
        missed = ready_tenant(space)
        good_backup(space, missed - 3 * POINT)
        space.operator(ahead=ahead_of(missed - SOON))
        space.until(
            lambda: (space.get("Tenant", "acme") or {})["status"].get("lastBackup"), "the operator has looked"
        )
        assert told(space) == []
        tenant = space.until_condition("Tenant", "acme", "ObjectivesMet", "False")
        assert tenant["status"]["recoveryPoint"] == {"metUntil": rfc3339(missed), "missedAt": rfc3339(missed)}
        assert len(told(space)) == 1
        good_backup(space, missed + timedelta(minutes=1))
        tenant = space.until_condition("Tenant", "acme", "ObjectivesMet")
    assert tenant["status"]["recoveryPoint"]["missedAt"] == rfc3339(missed)
    assert tenant["status"]["lastBackup"]["name"] == "acme-1"
    assert len(told(space)) == 1


def test_an_operator_that_was_down_tells_the_miss_at_its_start_and_once(space: Space) -> None:
    """Although it dies between the Event and the status that remembers it."""
    with Node(space.api, space.name):
        missed = ready_tenant(space)
        dying = space.operator("after:1:/events", ahead=ahead_of(missed + POINT))
        space.until(lambda: dying.poll() is not None, "the operator has died after the Event")
        assert len(told(space)) == 1
        space.operator(ahead=ahead_of(missed + POINT))
        space.until_condition("Tenant", "acme", "ObjectivesMet", "False")
    assert len(told(space)) == 1
    assert f"missed since {rfc3339(missed)}" in told(space)[0]

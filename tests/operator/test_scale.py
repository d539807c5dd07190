"""Many tenants due in the same minute: budgets hold, none is missed, none doubled, whenever the operator dies.

`python -m bench --only scale` does the same with a thousand.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from tests.operator.conftest import Space
from tests.operator.crowd import AT_REST, Runs, made, names, run_once, server_of, settle, states, until_idle
from tests.operator.node import Node

TENANTS, SERVERS = 40, 3
TOTAL, PER_SERVER = 6, 3
BUDGET = {"TENANT_BACKUP_BUDGET_TOTAL": str(TOTAL), "TENANT_BACKUP_BUDGET_PER_SERVER": str(PER_SERVER)}


def test_a_burst_drains_at_the_budgets_pace_though_the_operator_is_killed_in_it(space: Space) -> None:
    """Killed with all places taken, and again half way through: places taken stay taken, and no more."""
    settle(space, TENANTS, SERVERS)
    operator = space.operator(**BUDGET)
    with Runs(space) as runs:
        run_once(space)
        full = {"Running": TOTAL, "Queued": TENANTS - TOTAL}
        space.until(lambda: states(space) == full, "the budget is used up and the others are queued")
        waiting = _one_that_waits(space)
        assert 1 <= waiting["queue"]["position"] <= TENANTS - TOTAL
        assert waiting["queue"]["message"].endswith("are running")
        operator.kill()
        operator = space.operator(**BUDGET)
        until_idle(operator)
        assert states(space) == full
        with Node(space.api, space.name):
            space.until(lambda: states(space)["Succeeded"] >= TENANTS // 2, "half of them are done")
            operator.kill()
            space.operator(**BUDGET)
            space.until(lambda: states(space) == {"Succeeded": TENANTS}, "all are done", 120)
    tenants = [item["spec"]["tenantRef"]["name"] for item in made(space)]
    assert sorted(tenants) == names(TENANTS)
    assert set(runs.jobs_per_backup.values()) == {1}
    assert runs.most_at_once(lambda _tenant: "") == {"": TOTAL}
    assert max(runs.most_at_once(lambda tenant: server_of(tenant, SERVERS)).values()) <= PER_SERVER


def _one_that_waits(space: Space) -> dict[str, Any]:
    found = space.api.items(space.path("TenantBackup"), fieldSelector="status.state=Queued")
    return dict(found[0]["status"])


def test_a_backup_of_a_schedule_takes_eight_writes_at_most_and_what_is_unchanged_none(space: Space) -> None:
    """From its creation to its Tenant's status, having waited in the queue; the schedule's own status shared."""
    settle(space, TENANTS, SERVERS)
    operator = space.operator(**BUDGET)
    until_idle(operator)
    before = len(space.writes)
    run_once(space)
    full = {"Running": TOTAL, "Queued": TENANTS - TOTAL}
    space.until(lambda: states(space) == full, "the budget is used up and the others are queued")
    with Node(space.api, space.name):
        space.until(lambda: states(space) == {"Succeeded": TENANTS}, "all are done", 120)
        until_idle(operator, AT_REST)
    ours = space.writes[before:]
    assert len(ours) / TENANTS <= 8, Counter(re.sub(r"[^/]*\d[^/]*", "…", write) for write in ours)
    operator.kill()
    before = len(space.writes)
    until_idle(space.operator(**BUDGET))
    assert space.writes[before:] == []


@pytest.mark.timeout(1200)
def test_a_queue_is_worked_off_one_by_one_at_whatever_write_the_operator_dies(space: Space) -> None:
    """Three backups and room for one, again and again, killed one write later each time."""
    settle(space, 1, 1)
    with Runs(space) as runs, Node(space.api, space.name):
        lives = 0
        while _three_backups(space, lives):
            lives += 1
    assert lives > 3 * 6  # each write of three backups
    assert set(runs.jobs_per_backup.values()) == {1}
    assert runs.most_at_once(lambda _tenant: "") == {"": 1}


def _three_backups(space: Space, life: int) -> bool:
    """Let three be made, with an operator that dies after so many writes; return whether it did."""
    mine = [f"life-{life}-{number}" for number in range(3)]
    for name in mine:
        space.create("TenantBackup", name, {"tenantRef": {"name": names(1)[0]}, "storeRef": {"name": "prod"}})
    one_at_once = {"TENANT_BACKUP_BUDGET_TOTAL": "1"}
    dying = operator = space.operator(f"after:{life}" if life else "before:1", **one_at_once)

    def over() -> bool:
        nonlocal operator
        if operator.poll() is not None:
            operator = space.operator(**one_at_once)
        there = [space.get("TenantBackup", name) or {} for name in mine]
        done = all(one.get("status", {}).get("state") == "Succeeded" for one in there)
        recorded = all("ttlSecondsAfterFinished" in job["spec"] for job in space.api.items(space.jobs))
        tenant = space.get("Tenant", names(1)[0]) or {}
        return done and recorded and tenant["status"].get("backups") == 1 + 3 * (life + 1)

    space.until(over, f"three backups are made after a crash at write {life}", 120)
    operator.kill()
    operator.wait()
    return operator is not dying

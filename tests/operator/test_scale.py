"""Many tenants due in the same minute: budgets hold, none is missed, none doubled, whenever the operator dies.

`python -m bench --only scale` does the same with a thousand.
"""

from __future__ import annotations

from typing import Any

from tests.operator.conftest import Space
from tests.operator.crowd import Runs, made, names, run_once, server_of, settle, states, until_idle
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
        until_idle(operator)
    ours = space.writes[before:]
    assert len(ours) / TENANTS <= 8, "\n".join(sorted(ours))
    operator.kill()
    before = len(space.writes)
    until_idle(space.operator(**BUDGET))
    assert space.writes[before:] == []

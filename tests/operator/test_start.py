"""What an operator does when it starts among many objects: as little as it can, and all that is left to do."""

from __future__ import annotations

from tests.operator.conftest import Space
from tests.operator.crowd import names, settle, until_idle
from tests.operator.test_metrics import address, scraped

TENANTS = 12
RECONCILES = "tenant_backup_reconciles_total"


def test_a_start_looks_only_at_tenants_that_may_have_something_to_do(space: Space) -> None:
    """One whose spec changed, one that lost its backup, one whose objective has run out, one that goes."""
    settle(space, TENANTS, 1)
    changed, poorer, late, leaving, *_ = names(TENANTS)
    _patch(space, late, {"spec": {"objectives": {"recoveryPoint": "1m"}}})
    operator = space.operator()
    space.until_condition("Tenant", late, "ObjectivesMet")
    until_idle(operator)
    operator.kill()
    operator.wait()
    _patch(space, changed, {"spec": {"database": {"connections": 3}}})
    space.api.do("DELETE", space.path("TenantBackup", f"{poorer}-first"))
    _patch(space, leaving, {"metadata": {"finalizers": ["example.com/kept"]}})
    space.api.do("DELETE", space.path("Tenant", leaving))
    url = address()
    until_idle(space.operator(metrics=url, ahead=120))
    looks = {key: count for key, count in scraped(url)[RECONCILES].items() if key[0] == "Tenant"}
    assert sum(looks.values()) < TENANTS
    assert (space.get("Tenant", changed) or {})["status"]["observedGeneration"] == 2
    assert (space.get("Tenant", poorer) or {})["status"]["backups"] == 0
    space.until_condition("Tenant", late, "ObjectivesMet", "False")


def _patch(space: Space, tenant: str, patch: dict[str, object]) -> None:
    space.api.do("PATCH", space.path("Tenant", tenant), patch)

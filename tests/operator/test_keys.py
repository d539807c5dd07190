"""The keys of a tenant: made once, and never silently again."""

from __future__ import annotations

from tenant_backup.contract.reasons import Reason
from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.test_end_to_end import TENANT


def test_a_deleted_key_secret_is_told_and_not_replaced(space: Space) -> None:
    """With a new pair every backup that is there would look forged. Brought back, all is well again."""
    space.create("Tenant", "acme", TENANT)
    with Node(space.api, space.name):
        operator = space.operator()
        before = space.until_condition("Tenant", "acme", "Ready")["status"]
        operator.terminate()
        operator.wait(20)
        name = before["keySecret"]
        secret = space.api.do("GET", space.core("secrets", name))
        space.api.do("DELETE", space.core("secrets", name))

        space.operator()
        _have_it_looked_at(space, connections=5)  # and not within the hour
        status = space.until_condition("Tenant", "acme", "Stalled")["status"]
        told = next(item for item in status["conditions"] if item["type"] == "Ready")
        assert (told["status"], told["reason"]) == ("False", Reason.KEY_MISSING)
        assert name in told["message"]
        assert "recover-keys" in told["message"]
        assert space.api.items(space.core("secrets")) == []
        assert (status["keySecret"], status["signingKey"]) == (name, before["signingKey"])

        for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
            secret["metadata"].pop(field, None)
        space.api.do("POST", space.core("secrets"), secret)
        _have_it_looked_at(space, connections=6)  # and not in a minute
        after = space.until_condition("Tenant", "acme", "Ready")["status"]
    assert (after["keySecret"], after["signingKey"]) == (name, before["signingKey"])


def _have_it_looked_at(space: Space, connections: int) -> None:
    patch = {"spec": {"database": {"connections": connections}}}
    space.api.do("PATCH", space.path("Tenant", "acme"), patch)

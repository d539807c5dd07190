"""Losing the operator at any instruction loses nothing and runs nothing twice.

A real process is killed with SIGKILL before and after every single write to the API, started again, and
must end where an undisturbed one ends: a backup, a Replace whose previous database was dropped, and a second
backup that was deleted with its data.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.test_end_to_end import BACKUP, replace, three_objects

_CHANGES = ("duration", "signingKey", "keySecret", "backupId")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
PURPOSES = Counter(
    {"preflight": 1, "probe": 1, "catalogue": 1, "backup": 2, "restore": 1, "swap": 1, "delete": 1}
)


def settled(space: Space) -> bool:
    """Whether everything that was asked for is done and recorded."""
    restore, tenant = space.get("TenantRestore", "back"), space.get("Tenant", "acme")
    if restore is None or tenant is None or space.get("TenantBackup", "gone") is not None:
        return False
    done = restore["status"].get("state") == "Succeeded" and "previousDatabase" not in restore["status"]
    counted = tenant["status"].get("backups") == 1 and "lastRestore" in tenant["status"]
    # What a backup needs is counted until it is gone from the store, a moment longer than the backup itself.
    kept = (space.get("TenantBackup", "acme-1") or {})["status"]["bytes"]["stored"] if done else None
    counted = counted and tenant["status"].get("storedBytes") == kept
    ready = all(
        any(
            item["type"] == "Ready" and item["status"] == "True"
            for item in found["status"].get("conditions", ())
        )
        for found in (tenant, space.get("BackupStore", "prod") or {})
    )
    jobs = space.api.items(space.jobs)
    return done and counted and ready and all("ttlSecondsAfterFinished" in job["spec"] for job in jobs)


def life(space: Space, crash_at: str) -> tuple[bool, Counter[str]]:
    """Live through the whole story with an operator that dies once; return whether it did, and pods by purpose."""
    three_objects(space)
    space.create("TenantBackup", "gone", BACKUP)
    space.create("TenantRestore", "back", replace(keepPrevious="0s"))
    with Node(space.api, space.name) as node:
        operator = space.operator(crash_at)
        asked = False

        def over() -> bool:
            nonlocal operator, asked
            if operator.poll() is not None:
                operator = space.operator()
            if (
                not asked
                and (space.get("TenantBackup", "gone") or {}).get("status", {}).get("state") == "Succeeded"
            ):
                space.api.do("DELETE", space.path("TenantBackup", "gone"))
                asked = True
            return asked and settled(space)

        space.until(over, f"everything is done after a crash at {crash_at}", 300)
        for process in space.processes:
            process.kill()  # the end state is there: nobody waits for manners
            process.wait()
    return len(space.processes) > 1, Counter(_purpose(name) for name in node.ran.elements())


def end_state(space: Space) -> str:
    """What is left in the cluster, without what must differ between two lives; as text, to be compared."""
    objects = [space.get("Tenant", "acme"), space.get("BackupStore", "prod")]
    objects += [space.get("TenantBackup", "acme-1"), space.get("TenantRestore", "back")]
    events = Counter(event["reason"] for event in space.api.items(space.core("events")) if _is_ours(event))
    state = {
        "status": [_stable((found or {}).get("status", {})) for found in objects],
        "events": events,
        "finalizers": [(found or {}).get("metadata", {}).get("finalizers") for found in objects],
    }
    return json.dumps(state, indent=1, sort_keys=True)


def _is_ours(event: dict[str, Any]) -> bool:
    return bool(event.get("source", {}).get("component") == "tenant-backup-operator")


def _purpose(job: str) -> str:
    found = re.search(r"-(backup|restore|swap|preflight|probe|catalogue|delete)-[0-9a-f]{10}$", job)
    assert found
    return found[1]


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "…" if key in _CHANGES else _stable(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_stable(item) for item in value]
    return _TIME.sub("…", re.sub(r"-[0-9a-f]{10}\b", "-…", value)) if isinstance(value, str) else value


@pytest.mark.timeout(2400)
def test_a_crash_at_any_write_changes_nothing(new_space: Callable[[], Space]) -> None:
    """The same end state, one Secret in use, and no pod more than without a crash."""
    calm = new_space()
    died, ran = life(calm, "never:0")
    assert not died
    assert ran == PURPOSES
    expected = end_state(calm)
    points = ("before:1" if number == 0 else f"after:{number}" for number in itertools.count())
    survived = 0
    for point in points:  # dying after one write is dying before the next
        space = new_space()
        died, ran = life(space, point)
        assert ran == PURPOSES, point
        assert end_state(space) == expected, point
        _keys_are_usable(space)
        space.close()
        if not died:
            break
        survived += 1
    assert survived > len(calm.writes) // 2


def _keys_are_usable(space: Space) -> None:
    """The Secret that status names is there, and holds the key that status names."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    status = (space.get("Tenant", "acme") or {})["status"]
    (secret,) = space.api.items(space.core("secrets"))
    assert secret["metadata"]["name"] == status["keySecret"]
    seed = base64.b64decode(secret["data"]["signingKey"])
    assert (
        Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
        == status["signingKey"]
    )

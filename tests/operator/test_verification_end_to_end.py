"""A verification that finds damage, with an operator that dies at each of its writes."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tenant_backup.contract.results import Result
from tests.operator.conftest import Space
from tests.operator.node import FACTS, Node, all_is_well
from tests.operator.test_end_to_end import BACKUP, three_objects

DAMAGE = "packs/aa/1 is damaged"
FOUND = {
    "health": "Corrupt",
    "verification": {"level": "Checksum", "message": f"{DAMAGE}; tables hit: public.t; make a new backup"},
    "damaged": DAMAGE,
    "backups": [FACTS["upload"]["backupId"]],  # on this node all backups have one id
}


def answer(purpose: str, container: str) -> tuple[int, Result]:
    """What is stored is damaged; all else is well."""
    return (0, Result(True, FOUND)) if container == "examine" else all_is_well(purpose, container)


def backups(space: Space) -> list[dict[str, Any]]:
    """The status of the backup that is verified, and of one that needs the same pack."""
    return [(space.get("TenantBackup", name) or {}).get("status", {}) for name in ("acme-1", "acme-2")]


def at_rest(space: Space) -> bool:
    """Whether every Job's outcome is recorded."""
    jobs = space.api.items(space.jobs)
    done = all(status.get("state") == "Succeeded" for status in backups(space))
    return done and all("ttlSecondsAfterFinished" in job["spec"] for job in jobs)


def back_up_twice(space: Space) -> None:
    """Two healthy backups, and an operator that came and went."""
    operator = space.operator()
    three_objects(space)
    space.create("TenantBackup", "acme-2", BACKUP)
    space.until(lambda: at_rest(space) and len(space.api.items(space.jobs)) == 5, "both are done")
    operator.send_signal(signal.SIGTERM)
    operator.wait(20)


def life(space: Space, crash_at: str) -> tuple[bool, int, str]:
    """Verify with an operator that dies once; return whether it did, the pods it took, and what is left."""
    with Node(space.api, space.name, answer) as node:
        back_up_twice(space)
        asked = {"metadata": {"annotations": {"tenantbackup.dev/verify": "now"}}}
        space.api.do("PATCH", space.path("TenantBackup", "acme-1"), asked)
        lives = len(space.processes) + 1
        operator = space.operator(crash_at)

        def over() -> bool:
            nonlocal operator
            if operator.poll() is not None:
                operator = space.operator()
            handled = backups(space)[0].get("verification", {}).get("requested") == "now"
            return handled and at_rest(space)

        space.until(over, f"the verification is recorded after a crash at {crash_at}", 120)
        for process in space.processes:
            process.kill()
            process.wait()
    pods = sum(count for name, count in node.ran.items() if "-verify-" in name)
    return len(space.processes) > lives, pods, left(space)


def left(space: Space) -> str:
    """What users see in the end, as text to be compared."""
    shown = [
        {
            "state": status["state"],
            "health": status["health"],
            "progress": status.get("progress"),
            "verification": {**status["verification"], "completedAt": "…", "healthyAt": "…"},
        }
        for status in backups(space)
    ]
    events = Counter(
        (event["involvedObject"]["name"], event["reason"])
        for event in space.api.items(space.core("events"))
        if event.get("source", {}).get("component") == "tenant-backup-operator"
    )
    told = sorted((name, count) for (name, reason), count in events.items() if reason == "VerificationFailed")
    return json.dumps({"backups": shown, "told": told}, indent=1, sort_keys=True)


@pytest.mark.timeout(900)
def test_a_crash_at_any_write_of_a_verification_changes_nothing(new_space: Callable[[], Space]) -> None:
    """One pod, one Event for each backup that is hit, and both are Corrupt."""
    calm = new_space()
    died, pods, expected = life(calm, "never:0")
    assert (died, pods) == (False, 1)
    found = json.loads(expected)
    assert [status["health"] for status in found["backups"]] == ["Corrupt", "Corrupt"]
    assert [status["state"] for status in found["backups"]] == ["Succeeded", "Succeeded"]
    assert found["told"] == [["acme-1", 1], ["acme-2", 1]]
    assert "acme-1" in found["backups"][1]["verification"]["message"]
    survived = 0
    for number in itertools.count(1):
        space = new_space()
        died, pods, after = life(space, f"after:{number}")
        assert (pods, after) == (1, expected), number
        space.close()
        if not died:
            break
        survived += 1
    assert survived >= 5

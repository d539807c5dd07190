"""What the chart sets arrives, and what cannot work is refused at the start."""

from __future__ import annotations

import pytest

from tenant_backup.controllers.settings import Configuration
from tenant_backup.decisions.observed import Collection
from tenant_backup.decisions.queue import Budget

IMAGE = {"TENANT_BACKUP_RUNNER_IMAGE": "runner:1"}


def test_collections_are_daily_unless_told_otherwise() -> None:
    """And the grace leaves a backup a day."""
    assert Configuration.from_environment(IMAGE).collection == Collection(86400, 90000)
    told = {"TENANT_BACKUP_COLLECTOR_INTERVAL": "12h", "TENANT_BACKUP_COLLECTOR_GRACE": "2h30m"}
    assert Configuration.from_environment(IMAGE | told).collection == Collection(43200, 9000)


def test_ten_backups_run_at_once_and_four_on_one_server_unless_told_otherwise() -> None:
    """The others wait."""
    assert Configuration.from_environment(IMAGE).budget == Budget(10, 4)
    told = {"TENANT_BACKUP_BUDGET_TOTAL": "50", "TENANT_BACKUP_BUDGET_PER_SERVER": "1"}
    assert Configuration.from_environment(IMAGE | told).budget == Budget(50, 1)


@pytest.mark.parametrize(("name", "value"), [("TOTAL", "0"), ("TOTAL", "many"), ("PER_SERVER", "-1")])
def test_a_budget_that_lets_nobody_in_is_refused(name: str, value: str) -> None:
    """With the value to correct."""
    with pytest.raises(ValueError, match=r"budget\."):
        Configuration.from_environment(IMAGE | {f"TENANT_BACKUP_BUDGET_{name}": value})


@pytest.mark.parametrize("told", [("INTERVAL", "59s"), ("GRACE", "119m"), ("GRACE", "a day")])
def test_times_that_cannot_work_are_refused(told: tuple[str, str]) -> None:
    """With the name of what to correct."""
    name, value = told
    with pytest.raises(ValueError, match=r"collector\.|duration"):
        Configuration.from_environment(IMAGE | {f"TENANT_BACKUP_COLLECTOR_{name}": value})

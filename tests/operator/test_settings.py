"""What the chart sets arrives, and what cannot work is refused at the start."""

from __future__ import annotations

import pytest

from tenant_backup.controllers.settings import Configuration
from tenant_backup.decisions.observed import Collection

IMAGE = {"TENANT_BACKUP_RUNNER_IMAGE": "runner:1"}


def test_collections_are_daily_unless_told_otherwise() -> None:
    """And the grace leaves a backup a day."""
    assert Configuration.from_environment(IMAGE).collection == Collection(86400, 90000)
    told = {"TENANT_BACKUP_COLLECTOR_INTERVAL": "12h", "TENANT_BACKUP_COLLECTOR_GRACE": "2h30m"}
    assert Configuration.from_environment(IMAGE | told).collection == Collection(43200, 9000)


@pytest.mark.parametrize("told", [("INTERVAL", "59s"), ("GRACE", "119m"), ("GRACE", "a day")])
def test_times_that_cannot_work_are_refused(told: tuple[str, str]) -> None:
    """With the name of what to correct."""
    name, value = told
    with pytest.raises(ValueError, match=r"collector\.|duration"):
        Configuration.from_environment(IMAGE | {f"TENANT_BACKUP_COLLECTOR_{name}": value})

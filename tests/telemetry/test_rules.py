"""The alert rules of the chart: of metrics that exist, and fit to be read by the person they wake."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from hack.metrics_page import RULES
from tests.telemetry.fleet import exported

ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in ALERTS]


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_a_rule_is_about_metrics_that_are_exported(rule: dict[str, Any]) -> None:
    """An alert on a name that does not exist never fires."""
    used = set(re.findall(r"\btenant_backup_[a-z_]+", rule["expr"]))
    assert used
    assert used <= exported()


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_a_rule_says_how_urgent_it_is_and_what_happened_in_a_sentence(rule: dict[str, Any]) -> None:
    """The summary is the same for all tenants, the description names the one."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["annotations"]["summary"].endswith(".")
    assert "{{" not in rule["annotations"]["summary"]


def test_alert_names_are_unique_and_ours() -> None:
    """They share an Alertmanager with everybody else's."""
    assert len(set(NAMES)) == len(NAMES)
    assert all(name.startswith("TenantBackup") for name in NAMES)

"""The alert rules of the chart: of metrics that exist, and fit to be read by the person they wake."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.localcluster import builds
from hack.metrics_page import RULES
from tests.telemetry.fleet import exported

ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in ALERTS]
CASES = Path(__file__).with_name("rules_test.yaml")


@pytest.mark.timeout(1200)  # the tool is built once
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """Prometheus' own tool plays the series of rules_test.yaml through the rules."""
    builds.ensure((builds.PROMTOOL,))
    for file in (RULES, CASES):
        shutil.copy(file, tmp_path)
    command = [str(builds.PROMTOOL.folder() / "promtool"), "test", "rules", CASES.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_firing_and_silent() -> None:
    """Else a rule that always or never fires would pass."""
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if "exp_alerts" in case} == set(NAMES)
    assert {case["alertname"] for case in cases if "exp_alerts" not in case} == set(NAMES)


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

"""docs/metrics.md: every metric the operator exports, written from the code that exports it; and every alert."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from tenant_backup.telemetry import counters
from tenant_backup.telemetry.metrics import GROUPS, PREFIX

RULES = Path(__file__).resolve().parents[1] / "charts" / "tenant-backup-operator" / "files" / "rules.yaml"
_INTRODUCTION = """<!-- Made by `python -m hack.generate` from operator/tenant_backup/telemetry and the chart's rules; do not edit. -->
# Metrics and alerts

The operator serves `/metrics` on port 8081, computed at each scrape from the objects it watches, so a restart loses nothing.
Times are seconds since 1970, sizes are bytes. No label names a backup; `reason` is a word of [reasons.md](reasons.md).
`schedule` is empty for backups that no BackupSchedule made, or one that is gone. Tenants that are gone have no series.

With Prometheus Operator set `monitoring.serviceMonitor.enabled` and `monitoring.rules.enabled` in the chart. Without it,
scrape the Service that ends in `-metrics` with `honor_labels: true` (else `namespace` becomes the operator's own),
and load the chart's [rules.yaml](../charts/tenant-backup-operator/files/rules.yaml) under `rule_files`.
"""
_COUNTED = """## What the operator does

Counted from the start of its process, beside `process_resident_memory_bytes`, `process_cpu_seconds_total` and the other
`process_…` of every Prometheus client.
"""


def metrics_page() -> str:
    """Return docs/metrics.md."""
    return "\n".join([_INTRODUCTION, *_computed(), *_counted(), *_alerts()])


def _computed() -> Iterator[str]:
    for group in GROUPS:
        yield f"## {group.title}\n"
        yield f"Labels: {', '.join(f'`{label}`' for label in group.labels)}.\n"
        yield from _table((PREFIX + measure.name, measure.help) for measure in group.measures)


def _counted() -> Iterator[str]:
    yield _COUNTED
    yield from _table(
        (family.name + ("_total" if family.type == "counter" else ""), family.documentation)
        for family in counters.REGISTRY.collect()
        if family.name.startswith(PREFIX)
    )


def _table(metrics: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "| metric | meaning |\n|---|---|"
    yield from (f"| `{name}` | {meaning} |" for name, meaning in metrics)
    yield ""


def _alerts() -> Iterator[str]:
    yield "## Alerts\n"
    yield "| alert | severity | for | fires when |\n|---|---|---|---|"
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            severity, waits = rule["labels"]["severity"], rule.get("for", "")
            yield f"| {rule['alert']} | {severity} | {waits} | {rule['annotations']['summary']} |"
    yield ""

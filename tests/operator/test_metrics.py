"""A real operator is scraped: before and after it was killed."""

from __future__ import annotations

import signal
import socket
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.test_end_to_end import three_objects

SUCCESS = "tenant_backup_last_success_timestamp_seconds"


def address() -> str:
    """Where nobody listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/metrics"


def scraped(url: str) -> dict[str, dict[tuple[str, ...], float]]:
    """What /metrics says: samples by name and by label values in the order of label names; empty: no answer."""
    try:
        answer = requests.get(url, timeout=10)
    except requests.ConnectionError:
        return {}
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_a_backup_is_in_the_metrics_and_still_is_after_the_operator_was_killed(space: Space) -> None:
    """Nobody asked the API server for it: the second operator read it when it started."""
    url = address()
    first = space.operator(metrics=url)
    with Node(space.api, space.name):
        three_objects(space)
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
        before = space.until(lambda: (said := scraped(url)) and said.get(SUCCESS) and said, "it is told")
    first.send_signal(signal.SIGKILL)
    first.wait(20)
    space.operator(metrics=url)
    after = space.until(lambda: scraped(url), "the second operator answers")
    key = (space.name, "", "acme")
    assert before[SUCCESS] == after[SUCCESS] == {key: _ended(space)}
    assert before["tenant_backup_last_success_added_bytes"] == {key: 10}
    assert before["tenant_backup_last_run_succeeded"] == {key: 1}
    assert before["tenant_backup_backups"][space.name, "", "Succeeded"] == 1
    assert before["tenant_backup_reconciles_total"]["TenantBackup", "settled"] >= 1
    assert before["tenant_backup_reconcile_errors_total"]["TenantBackup", "InternalError"] == 0
    assert before["tenant_backup_api_requests_total"]["201", "POST"] >= 1
    assert set(before["tenant_backup_work_queue_objects"]) == {("ready",), ("active",), ("delayed",)}
    assert before["process_resident_memory_bytes"][()] > 0


def _ended(space: Space) -> float:
    from tenant_backup.decisions.instants import parse

    backup: dict[str, Any] = space.get("TenantBackup", "acme-1") or {}
    ended = parse(backup["status"]["completedAt"])
    assert ended
    return ended.timestamp()


def test_an_operator_that_cannot_serve_metrics_says_so_and_ends(space: Space) -> None:
    """With the setting that has to be corrected."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = space.operator(metrics=f"http://127.0.0.1:{taken.getsockname()[1]}/metrics")
        assert process.wait(30) != 0
    assert "correct TENANT_BACKUP_METRICS" in space.log.read_text()


def test_metrics_are_served_at_their_path_only(space: Space) -> None:
    """And to readers only."""
    url = address()
    space.operator(metrics=url)
    space.until(lambda: scraped(url), "it answers")
    assert requests.get(url.removesuffix("/metrics"), timeout=10).status_code == 404
    assert requests.post(url, timeout=10).status_code == 405

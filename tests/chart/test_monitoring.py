"""What the chart makes for Prometheus."""

from __future__ import annotations

from typing import Any

import yaml

from .conftest import CHART, rendered

Objects = list[dict[str, Any]]
EVERYTHING = (
    "--set",
    "monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true",
    "--set",
    "monitoring.serviceMonitor.labels.release=mine,monitoring.rules.labels.release=mine",
)


def one(objects: Objects, kind: str) -> dict[str, Any]:
    """The only object of its kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def test_the_service_leads_to_the_port_the_operator_serves_metrics_on(objects: Objects) -> None:
    """By the port's name, and to this release's pods only."""
    service, deployment = one(objects, "Service"), one(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = [
        port for port in container["ports"] if port["name"] == service["spec"]["ports"][0]["targetPort"]
    ]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["TENANT_BACKUP_METRICS"] == f"http://0.0.0.0:{port['containerPort']}/metrics"
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


def test_without_monitoring_nothing_is_served() -> None:
    """No port, no Service."""
    objects = rendered("--set", "monitoring.enabled=false")
    assert not [item for item in objects if item["kind"] == "Service"]
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "TENANT_BACKUP_METRICS", "value": ""} in container["env"]
    assert [port["name"] for port in container["ports"]] == ["healthz"]


def test_what_needs_prometheus_operator_is_off_unless_asked_for(objects: Objects) -> None:
    """Its kinds are not in every cluster, and an unknown kind would fail the installation."""
    assert not [item for item in objects if item["apiVersion"].startswith("monitoring.coreos.com")]


def test_the_service_monitor_finds_the_service_and_keeps_the_tenants_namespace() -> None:
    """Without honorLabels `namespace` would be the operator's own for every tenant."""
    objects = rendered(*EVERYTHING)
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": service["spec"]["ports"][0]["name"], "interval": "30s", "honorLabels": True}
    assert monitor["metadata"]["labels"]["release"] == "mine"


def test_the_rules_are_shipped_as_they_are_tested() -> None:
    """The file for `rule_files` and the PrometheusRule are the same."""
    rule = one(rendered(*EVERYTHING), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "mine"

"""How the operator is configured, from its environment; and how kopf is, in one function."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import kopf

from tenant_backup.api.values import duration_seconds
from tenant_backup.decisions.observed import Collection
from tenant_backup.decisions.queue import Budget
from tenant_backup.jobs import labels
from tenant_backup.jobs.manifest import Runner

from .delivery import Correspondence
from .delivery_networks import REFUSED, Networks

_SHORTEST_INTERVAL, _SHORTEST_GRACE = 60, 7200  # seconds; backups may last an hour less than the grace
BUDGET = Budget(total=10, per_server=4)  # backups at once
LIVENESS = "http://0.0.0.0:8080/healthz"
METRICS = "http://0.0.0.0:8081/metrics"


@dataclass(frozen=True)
class Configuration:
    """What the chart sets. No namespaces: all of them."""

    runner: Runner
    namespaces: tuple[str, ...] = ()
    trusts_requested_by: bool = False
    liveness: str = LIVENESS
    metrics: str = METRICS
    log_level: str = "INFO"
    collection: Collection = field(default_factory=Collection)
    budget: Budget = BUDGET
    correspondence: Correspondence = field(default_factory=lambda: Correspondence(Networks.parse(REFUSED)))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Configuration:
        """Read TENANT_BACKUP_… variables. Raises ValueError with what is wrong."""
        image = environment.get("TENANT_BACKUP_RUNNER_IMAGE", "")
        if not image:
            raise ValueError("TENANT_BACKUP_RUNNER_IMAGE is not set; it names the image that Jobs run")
        runner = Runner(
            image=image,
            pull_policy=environment.get("TENANT_BACKUP_RUNNER_PULL_POLICY", "IfNotPresent"),
            pull_secrets=_words(environment.get("TENANT_BACKUP_RUNNER_PULL_SECRETS", "")),
        )
        return cls(
            runner=runner,
            namespaces=_words(environment.get("TENANT_BACKUP_NAMESPACES", "")),
            trusts_requested_by=environment.get("TENANT_BACKUP_ADMISSION_POLICIES", "").lower() == "true",
            liveness=environment.get("TENANT_BACKUP_LIVENESS", LIVENESS),
            metrics=environment.get("TENANT_BACKUP_METRICS", METRICS),
            log_level=environment.get("TENANT_BACKUP_LOG_LEVEL", "INFO").upper(),
            collection=_collection(environment),
            correspondence=_correspondence(environment),
            budget=Budget(
                total=_at_least_one(environment, "BUDGET_TOTAL", "budget.total", BUDGET.total),
                per_server=_at_least_one(
                    environment, "BUDGET_PER_SERVER", "budget.perServer", BUDGET.per_server
                ),
            ),
        )


def _at_least_one(environment: Mapping[str, str], name: str, value: str, default: int | None) -> int:
    text = environment.get(f"TENANT_BACKUP_{name}", str(default))
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{value} is {text!r}; it must be a whole number of at least 1")
    return int(text)


def _correspondence(environment: Mapping[str, str]) -> Correspondence:
    refused = environment.get("TENANT_BACKUP_REFUSED_NETWORKS")
    try:
        networks = Networks.parse(REFUSED if refused is None else _words(refused))
    except ValueError as error:
        raise ValueError(f"notifiers.refusedNetworks: {error}") from None
    return Correspondence(networks, environment.get("TENANT_BACKUP_SERVICE_ACCOUNT", ""))


def _collection(environment: Mapping[str, str]) -> Collection:
    interval = duration_seconds(environment.get("TENANT_BACKUP_COLLECTOR_INTERVAL", "24h"))
    grace = duration_seconds(environment.get("TENANT_BACKUP_COLLECTOR_GRACE", "25h"))
    if interval < _SHORTEST_INTERVAL or grace < _SHORTEST_GRACE:
        raise ValueError("collector.interval must be at least 1m and collector.grace at least 2h")
    return Collection(interval, grace)


class _NothingToCompare(kopf.DiffBaseStorage):
    """For each event kopf copies the object several times, for handlers of changes; we have none."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return nothing of the object."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Return nothing known from before."""

    def store(self, **_: Any) -> None:
        """Store nothing."""


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches and nothing else; it writes neither annotations nor Events."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = f"{labels.PREFIX}/kopf"  # never set: we have no handlers that need one
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=labels.PREFIX)
    settings.persistence.diffbase_storage = _NothingToCompare()
    settings.posting.level = logging.WARNING
    settings.posting.enabled = False  # our Events are ours: named by content, never posted twice
    settings.peering.standalone = True
    settings.scanning.disabled = True  # needs no right to watch namespaces and CRDs
    settings.watching.server_timeout = 600  # seconds, then the watch is renewed
    settings.watching.connect_timeout = 30
    settings.watching.chunk_size = 500  # objects of the first list in memory at once
    settings.watching.label_selectors["batch", "v1", "jobs"] = labels.KIND
    settings.watching.label_selectors["v1", "pods"] = labels.KIND
    settings.queueing.idle_timeout = 0.5  # kopf's own worker per object must not stay for thousands
    settings.networking.request_timeout = 60
    return settings


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())

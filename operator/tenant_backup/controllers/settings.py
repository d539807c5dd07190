"""How the operator is configured, from its environment; and how kopf is, in one function."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import kopf

from tenant_backup.jobs import labels
from tenant_backup.jobs.manifest import Runner

LIVENESS = "http://0.0.0.0:8080/healthz"


@dataclass(frozen=True)
class Configuration:
    """What the chart sets. No namespaces: all of them."""

    runner: Runner
    namespaces: tuple[str, ...] = ()
    trusts_requested_by: bool = False
    liveness: str = LIVENESS
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Configuration:
        """Read TENANT_BACKUP_… variables. Raises ValueError when the runner image is not named."""
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
            log_level=environment.get("TENANT_BACKUP_LOG_LEVEL", "INFO").upper(),
        )


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches and nothing else; it writes neither annotations nor Events."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = f"{labels.PREFIX}/kopf"  # never set: we have no handlers that need one
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=labels.PREFIX)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=labels.PREFIX)
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

"""BackupStore: a probe Job tries each new spec; `collection` and `catalogue` are about what is in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .capacity import capacity
from .catalogue import cataloguing
from .collection import collecting
from .conditions import condition_of, conditions, stamped
from .names import job_name
from .observed import Ended, StoreSeen
from .plan import Plan, Run, Subject
from .runs import Course, Pauses, again_after_failure, of_purpose, outdated, recorded
from .verdicts import Done, Failed, Stalled, Verdict, Waiting

PAUSES = Pauses(20.0, 600.0)  # seconds between probes of a store that is not ready
PROBE_DEADLINE = 300  # seconds


def decide(seen: StoreSeen, now: datetime) -> Plan:
    """Return what to do about a BackupStore."""
    if seen.store.metadata.deletion_timestamp:
        return Plan()
    generation = seen.store.metadata.generation
    course, stale = _course(seen, now), outdated(seen.jobs, "probe", generation)
    verdict = _lasting(course.verdict)
    status = _status(seen, verdict, course.facts, now)
    collected = collecting(replace(seen, status=status), now)
    room = capacity(seen.store, seen.status, collected.status.get("usedBytes"))
    said = [stamped(fact, seen.status, generation, now) for fact in room.facts]
    listed = cataloguing(replace(seen, status=collected.status), now)
    times = [time for time in (verdict.retry_in, collected.retry_in, listed.retry_in) if time is not None]
    return Plan(
        actions=(*stale, *course.actions, *collected.actions, *room.actions, *listed.actions),
        status={**listed.status, "conditions": [*status["conditions"], *said]},
        retry_in=min(times, default=None),
    )


def _course(seen: StoreSeen, now: datetime) -> Course:
    generation = seen.store.metadata.generation
    ready = condition_of(seen.status, "Ready")
    probes = tuple(job for job in seen.jobs if job.purpose == "probe")
    if ready.get("observedGeneration") == generation and ready.get("status") == "True":
        return Course(Done(Reason.READY, str(ready["message"])), recorded(probes))
    jobs = of_purpose(seen.jobs, "probe", generation)
    return again_after_failure(jobs, lambda attempt: _probe(seen, attempt), now, PAUSES, ready)


def _probe(seen: StoreSeen, attempt: int) -> Run:
    metadata = seen.store.metadata
    return Run(
        name=job_name(metadata.name, metadata.uid, "probe", metadata.generation, attempt),
        purpose="probe",
        job=contract.Probe(metadata.uid, seen.platform.cluster_id, described.store(seen.store)),
        subject=Subject.of(seen.store),
        tenant="",
        secrets=described.store_secrets(seen.store),
        claim=described.claim(seen.store),
        deadline=PROBE_DEADLINE,
        retries=0,
        generation=metadata.generation,
        attempt=attempt,
    )


def _lasting(verdict: Verdict) -> Verdict:
    """A failed probe is not the end: the next one may find the store."""
    if isinstance(verdict, Failed):
        heals = verdict.reason in (Reason.STORE_UNAVAILABLE, Reason.STAGE_KILLED, Reason.NODE_LOST)
        kind = Waiting if heals else Stalled
        return kind(verdict.reason, verdict.message, verdict.retry_in)
    if isinstance(verdict, Done) and verdict.reason is Reason.SUCCEEDED:
        return Done(Reason.READY, "the store was written, read back and listed")
    if isinstance(verdict, Waiting) and verdict.reason is Reason.RUNNING:
        return Waiting(Reason.RUNNING, "trying the store", verdict.retry_in)
    return verdict


def _status(seen: StoreSeen, verdict: Verdict, facts: Ended | None, now: datetime) -> dict[str, Any]:
    generation = seen.store.metadata.generation
    status = dict(seen.status)
    if facts is not None:
        wanted = ("conditionalPut", "delete")
        reported = facts.facts.get("capabilities", facts.facts)
        status["capabilities"] = {key: reported[key] for key in wanted if key in reported}
    status["observedGeneration"] = generation
    status["conditions"] = conditions("Ready", verdict, seen.status, generation, now)
    return status

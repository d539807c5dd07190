"""The one place where verdicts become conditions and `state`, the same way for every kind.

The headline condition is `Succeeded` for what runs once and `Ready` for what lasts. `Failed` stands
beside `Succeeded` so that `kubectl wait` can wait for either. `Reconciling` and `Stalled` are there
only while they are true, as kstatus wants; a failed object is stalled too, because kstatus knows no
other word for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tenant_backup.contract.reasons import Reason

from .instants import rfc3339
from .verdicts import Done, Failed, Stalled, Verdict, Waiting

MESSAGE_LIMIT = 4096  # characters, as in the CRD
Headline = Literal["Succeeded", "Ready"]
Status = Mapping[str, Any]
_OF_VERDICTS = ("Succeeded", "Ready", "Failed", "Reconciling", "Stalled")
_UNDECIDED = (Reason.PENDING, Reason.RUNNING, Reason.RETRYING)


@dataclass(frozen=True)
class Fact:
    """A condition without its times."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str


def conditions(
    headline: Headline, verdict: Verdict, before: Status, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions `verdict` stands for; `before` is the last status."""
    return [stamped(fact, before, generation, now) for fact in _facts(headline, verdict)]


def others(status: Status) -> list[dict[str, Any]]:
    """Return the conditions that no verdict stands for, as they are."""
    return [dict(item) for item in status.get("conditions", ()) if item["type"] not in _OF_VERDICTS]


def condition_of(status: Status, kind: str) -> Mapping[str, Any]:
    """Return the condition of that type from a status, or an empty mapping."""
    return next((item for item in status.get("conditions", ()) if item["type"] == kind), {})


def stamped(fact: Fact, before: Status, generation: int, now: datetime) -> dict[str, Any]:
    """Return the condition as the API wants it; its time changes only with its status."""
    old = condition_of(before, fact.type)
    same = old.get("status") == fact.status
    return {
        "type": fact.type,
        "status": fact.status,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if same else rfc3339(now),
        "reason": str(fact.reason),
        "message": fact.message[:MESSAGE_LIMIT],
    }


def _facts(headline: Headline, verdict: Verdict) -> Iterator[Fact]:
    reason, message = verdict.reason, verdict.message
    yield Fact(headline, _headline_status(headline, verdict), reason, message)
    if headline == "Succeeded" and isinstance(verdict, Failed):
        yield Fact("Failed", "True", reason, message)
    if isinstance(verdict, Waiting):
        yield Fact("Reconciling", "True", Reason.RETRYING if verdict.retrying else reason, message)
    if isinstance(verdict, Stalled | Failed):
        yield Fact("Stalled", "True", reason, message)


def _headline_status(headline: Headline, verdict: Verdict) -> Literal["True", "False", "Unknown"]:
    if isinstance(verdict, Done):
        return "True"
    undecided = isinstance(verdict, Waiting) and (headline == "Succeeded" or verdict.reason in _UNDECIDED)
    return "Unknown" if undecided else "False"

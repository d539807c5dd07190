"""The one place where verdicts become conditions and `state`, the same way for every kind.

The headline condition is `Succeeded` for what runs once and `Ready` for what lasts. `Failed` stands
beside `Succeeded` so that `kubectl wait` can wait for either. `Reconciling` and `Stalled` are there
only while they are true, as kstatus wants; a failed object is stalled too, because kstatus knows no
other word for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from tenant_backup.contract.reasons import Reason

from .instants import rfc3339
from .verdicts import Done, Failed, Stalled, Verdict, Waiting

MESSAGE_LIMIT = 4096  # characters, as in the CRD
Headline = Literal["Succeeded", "Ready"]
_UNDECIDED = (Reason.PENDING, Reason.RUNNING, Reason.RETRYING)


def conditions(
    headline: Headline,
    verdict: Verdict,
    before: Iterable[Mapping[str, Any]],
    generation: int,
    now: datetime,
    extra: Iterable[tuple[str, bool, Reason, str]] = (),
) -> list[dict[str, Any]]:
    """Return the conditions `verdict` stands for; `before` are those of the last status.

    `extra` are conditions of one kind only, such as Undone: type, status, reason, message.
    """
    wanted = [(headline, _headline_status(headline, verdict), verdict.reason, verdict.message)]
    if headline == "Succeeded" and isinstance(verdict, Failed):
        wanted.append(("Failed", "True", verdict.reason, verdict.message))
    if isinstance(verdict, Waiting):
        reason = Reason.RETRYING if verdict.retrying else verdict.reason
        wanted.append(("Reconciling", "True", reason, verdict.message))
    if isinstance(verdict, Stalled | Failed):
        wanted.append(("Stalled", "True", verdict.reason, verdict.message))
    wanted += [(kind, str(status), reason, message) for kind, status, reason, message in extra]
    known = {str(condition["type"]): condition for condition in before}
    return [_condition(known.get(kind), kind, *rest, generation, now) for kind, *rest in wanted]


def condition_of(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the condition of that type from a status, or an empty mapping."""
    return next((item for item in status.get("conditions", ()) if item["type"] == kind), {})


def _headline_status(headline: Headline, verdict: Verdict) -> str:
    if isinstance(verdict, Done):
        return "True"
    undecided = isinstance(verdict, Waiting) and (headline == "Succeeded" or verdict.reason in _UNDECIDED)
    return "Unknown" if undecided else "False"


def _condition(
    before: Mapping[str, Any] | None,
    kind: str,
    status: Any,
    reason: Any,
    message: Any,
    generation: int,
    now: datetime,
) -> dict[str, Any]:
    changed = before is None or before["status"] != status
    return {
        "type": kind,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": rfc3339(now) if changed or before is None else before["lastTransitionTime"],
        "reason": str(reason),
        "message": str(message)[:MESSAGE_LIMIT],
    }

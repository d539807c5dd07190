"""Reading a Job and its pods back: who failed first, why a pod cannot start, how far it is.

All containers of a pod end when one does, so most of them say PeerFailed; the root cause is the one
that says something else. A container that was killed says nothing: its exit code speaks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import ExitCode, Reason
from tenant_backup.contract.results import Result, decode
from tenant_backup.decisions.instants import parse
from tenant_backup.decisions.observed import Ended, JobSeen

from . import labels
from .containers import PLACE, SPOKESMAN, SURVEY
from .trouble import why_it_cannot_start

_NODE_GONE_AFTER = timedelta(seconds=60)  # a pod that is being deleted for longer has no node to do it
_NODE_REASONS = ("DeletionByTaintManager", "NodeLost", "TerminationByKubelet")
Object = Mapping[str, Any]


def see(
    job: Object,
    pods: Iterable[Object],
    now: datetime,
    *,
    warnings: Iterable[Object] = (),
    progress: Mapping[str, Any] | None = None,
) -> JobSeen:
    """Return what decisions need to know of a Job, its pods, and Events of type Warning about them."""
    mine = sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    ended = [pod for pod in mine if _has_ended(pod)]
    living = [pod for pod in mine if not _has_ended(pod)]
    metadata, status = job["metadata"], job.get("status", {})
    marks = metadata.get("labels", {})
    finished, failure = _finished(status)
    purpose = marks.get(labels.PURPOSE, "")
    waiting_since = _time(metadata["creationTimestamp"])
    return JobSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        created=waiting_since,
        purpose=purpose,
        generation=int(marks.get(labels.GENERATION, "0")),
        attempt=int(marks.get(labels.ATTEMPT, "1")),
        retries=job["spec"].get("backoffLimit", 0),
        finished=finished,
        failure=failure,
        removing="deletionTimestamp" in metadata,
        expires=job["spec"].get("ttlSecondsAfterFinished") is not None,
        pods=len(mine),
        ended=max(status.get("failed", 0), sum(_phase(pod) == "Failed" for pod in mine)),
        running=any(_is_running(pod) for pod in living),
        outcome=how_it_ended(ended[-1], purpose) if ended else None,
        trouble=None if finished else why_it_cannot_start(waiting_since, living, bool(mine), list(warnings)),
        node_lost=any(_node_is_lost(pod, now) for pod in living),
        progress=progress,
        told=_told(job["spec"]),
    )


def _told(spec: Object) -> contract.Job | None:
    """Return what the Job's containers were told: the truth, whatever happened to the objects since."""
    for container in spec.get("template", {}).get("spec", {}).get("containers", ()):
        for variable in container.get("env", ()):
            if variable["name"] == contract.ENVIRONMENT_VARIABLE:
                try:
                    return contract.from_json(variable.get("value", ""))
                except ValueError:  # made by another version of the operator
                    return None
    return None


def how_it_ended(pod: Object, purpose: str) -> Ended:
    """Return the answer of a pod that ended, from its containers' termination messages."""
    answers = [_answer(status) for status in _container_statuses(pod)]
    failures = [(name, result) for name, result in answers if result is not None and not result.ok]
    if _phase(pod) != "Failed" and answers and not failures:
        return Ended(True, facts=_facts(answers, purpose))
    causes = [result for _name, result in failures if result.reason is not Reason.PEER_FAILED]
    causes.sort(key=_rank)
    if causes:
        return Ended(False, causes[0].reason, causes[0].message, causes[0].retriable)
    return _nobody_said_why(pod)


def _facts(answers: Sequence[tuple[str, Result | None]], purpose: str) -> dict[str, Any]:
    """Return the spokesman's facts; by volume, in `placed` what was restored, in `volumes` what was seen."""
    good = {name: result.facts for name, result in answers if result}
    facts = dict(good.get(SPOKESMAN.get(purpose, ""), {}))
    for key, stage in (("placed", PLACE), ("volumes", SURVEY)):
        mine = [name for name in good if name.startswith(f"{stage}-")]
        facts |= {key: {name.removeprefix(f"{stage}-"): good[name] for name in mine}} if mine else {}
    return facts


def _rank(result: Result) -> int:
    """A cause that a stage names itself comes before one we infer, and a stop order comes last."""
    inferred = (Reason.STAGE_KILLED, Reason.INTERNAL_ERROR)
    return 2 if result.reason is Reason.CANCELLED else 1 if result.reason in inferred else 0


def _nobody_said_why(pod: Object) -> Ended:
    status = pod.get("status", {})
    if any(
        item.get("type") == "DisruptionTarget" and item["status"] == "True"
        for item in status.get("conditions", ())
    ):
        return Ended(False, Reason.STAGE_KILLED, "the pod was evicted from its node; it is tried again", True)
    said = (
        ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
        or "no container said why"
    )
    return Ended(False, Reason.STAGE_KILLED, f"the pod ended without an answer ({said})", True)


def _answer(status: Object) -> tuple[str, Result | None]:
    name, ended = status["name"], status.get("state", {}).get("terminated")
    if ended is None:
        return name, None
    result = decode(ended.get("message", ""))
    if result is not None and result.ok == (ended["exitCode"] == 0):
        return name, result
    if ended["exitCode"] == 0:
        return name, Result(ok=True)
    if ended["exitCode"] == ExitCode.PEER_FAILED:
        return name, Result(False, {}, Reason.PEER_FAILED, "", True)
    return name, Result(False, {}, Reason.STAGE_KILLED, _killed(name, ended), True)


def _killed(name: str, ended: Object) -> str:
    if ended.get("reason") == "OOMKilled":
        return f"container {name} used more memory than its limit and was killed"
    if ended.get("reason") in ("StartError", "ContainerCannotRun"):
        return f"container {name} could not start: {_one_line(ended.get('message', ''))}"
    return f"container {name} was killed (exit code {ended['exitCode']}) before it could say why"


def _container_statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _finished(status: Object) -> tuple[Any, str]:
    for condition in status.get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return condition["type"], condition.get("reason", "")
    return "", ""


def _is_running(pod: Object) -> bool:
    return any("running" in status.get("state", {}) for status in _container_statuses(pod))


def _node_is_lost(pod: Object, now: datetime) -> bool:
    asked = parse(pod["metadata"].get("deletionTimestamp"))
    conditions = pod.get("status", {}).get("conditions", ())
    said = (
        any(item.get("reason") in _NODE_REASONS for item in conditions)
        or pod["status"].get("reason") == "NodeLost"
    )
    return said or (asked is not None and now - asked > _NODE_GONE_AFTER)


def _has_ended(pod: Object) -> bool:
    """Whether nothing runs in the pod any more; the kubelet changes the phase seconds later."""
    if _phase(pod) in ("Succeeded", "Failed"):
        return True
    states = [status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses", ())]
    return bool(states) and all("terminated" in state for state in states)


def _phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _time(text: str) -> datetime:
    return parse(text) or datetime.now(UTC)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()[:500]

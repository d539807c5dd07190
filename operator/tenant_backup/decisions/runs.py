"""How a Job's course becomes a verdict, the same way for every kind of Job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.contract.reasons import Reason

from .observed import Ended, JobSeen
from .plan import Action, ExpireJob, RemoveJob, Run
from .verdicts import Done, Failed, Stalled, Verdict, Waiting

_TROUBLES = (
    Reason.UNSCHEDULABLE,
    Reason.IMAGE_PULL_FAILED,
    Reason.VOLUME_UNAVAILABLE,
)
LOOK_AGAIN = 5.0  # seconds, while a pod is starting
FOLLOW = 10.0  # seconds, while a pod is running: progress
PATIENCE = timedelta(seconds=20)  # a pod that cannot start for longer needs a person
GRACE = timedelta(seconds=60)  # after the deadline, for the Job controller to end it by itself
KEEP_SUCCEEDED, KEEP_FAILED = 300, 1800  # seconds a finished Job and its log stay


@dataclass(frozen=True)
class Course:
    """Where a Job stands: what to do about it, and what it means."""

    verdict: Verdict
    actions: tuple[Action, ...] = ()
    facts: Ended | None = None  # of a Job that succeeded


def start(run: Run, started: datetime | None, now: datetime) -> Course:
    """Decide about a Job that is not there; `started` is when an earlier one began, if one did."""
    # A Job that is gone without a recorded outcome is never success: it runs again, and `prepare`
    # finds what the earlier one committed.
    if started and now > started + timedelta(seconds=run.deadline) + GRACE:
        return Course(_too_late(run.deadline, "its Job is gone"))
    return Course(Waiting(Reason.RUNNING, f"Job {run.name} is under way", LOOK_AGAIN), (run,))


def follow(
    job: JobSeen, deadline: int, started: datetime | None, now: datetime, known: Mapping[str, Any]
) -> Course:
    """Decide about a Job that is there.

    `deadline` is in seconds from when the first one started; `known` is the headline condition so far.
    """
    case = _Case(job, deadline, started or job.created, now, known)
    for check in _CHECKS:
        course = check(case)
        if course is not None:
            return course
    return Course(Waiting(Reason.RUNNING, f"Job {job.name} is under way", FOLLOW))


@dataclass(frozen=True)
class _Case:
    """What a check looks at."""

    job: JobSeen
    deadline: int
    started: datetime
    now: datetime
    known: Mapping[str, Any]

    @property
    def is_late(self) -> bool:
        return self.now > self.started + timedelta(seconds=self.deadline) + GRACE


def the_job_is_being_removed(case: _Case) -> Course | None:
    """Somebody deleted the Job: wait until its pods are gone, then start again."""
    if not case.job.removing:
        return None
    message = f"Job {case.job.name} is being removed; it will be created again"
    return Course(Waiting(Reason.PENDING, message, LOOK_AGAIN))


def it_succeeded(case: _Case) -> Course | None:
    """The last container acknowledged: its facts are the result."""
    outcome = case.job.outcome
    if outcome is None or not outcome.ok:
        return None
    return Course(Done(Reason.SUCCEEDED, "done"), _expire(case.job, KEEP_SUCCEEDED), outcome)


def it_succeeded_but_nobody_read_it(case: _Case) -> Course | None:
    """The pods vanished before they were read: the same Job again finds what was committed."""
    job = case.job
    if job.finished != "Complete" or job.outcome is not None:
        return None
    message = f"Job {job.name} ended well but its pod is gone; it runs again to read the result"
    return Course(Waiting(Reason.RETRYING, message, LOOK_AGAIN), (RemoveJob(job.name, job.uid),))


def it_cannot_heal_by_itself(case: _Case) -> Course | None:
    """A permanent failure is reported from the pod, before the Job controller has counted it."""
    outcome = case.job.outcome
    if outcome is None or outcome.ok or outcome.retriable:
        return None
    return Course(Failed(outcome.reason, outcome.message), _expire(case.job, KEEP_FAILED))


def all_tries_are_used_up(case: _Case) -> Course | None:
    """The Job controller gave up: the last try's cause is the cause."""
    job = case.job
    if job.finished != "Failed":
        return None
    if job.failure == "DeadlineExceeded":
        return Course(_too_late(case.deadline, _last_words(case)), _expire(job, KEEP_FAILED))
    if job.outcome is None:
        message = f"Job {job.name} failed ({job.failure}) and its pods are gone; look at its Events"
        return Course(Failed(Reason.STAGE_KILLED, message), _expire(job, KEEP_FAILED))
    verdict = Failed(job.outcome.reason, _counted(job.outcome.message, job))
    return Course(verdict, _expire(job, KEEP_FAILED))


def the_deadline_has_passed(case: _Case) -> Course | None:
    """On a dead node neither pod nor Job ever ends: the operator ends it here."""
    if not case.is_late:
        return None
    job, deadline = case.job, case.deadline
    remove = () if job.removing else (RemoveJob(job.name, job.uid),)
    if job.node_lost:
        message = f"the node of Job {job.name} was lost and nothing ended within {deadline} s; try again"
        return Course(Failed(Reason.NODE_LOST, message), remove)
    return Course(_too_late(deadline, _last_words(case)), remove)


def the_pod_cannot_start(case: _Case) -> Course | None:
    """Said within seconds; when it lasts, a person must help, and the Job waits for that."""
    trouble = case.job.trouble
    if trouble is None:
        return None
    if case.now - trouble.since >= PATIENCE:
        return Course(Stalled(trouble.reason, trouble.message, LOOK_AGAIN))
    return Course(Waiting(trouble.reason, trouble.message, LOOK_AGAIN))


def a_try_has_failed(case: _Case) -> Course | None:
    """The first cause is shown while tries go on; after the second a person should look."""
    job = case.job
    if job.outcome is None or not job.ended:
        return None
    message = f"attempt {job.ended} of {job.retries + 1}: {job.outcome.message}"
    if job.ended > 1:
        return Course(Stalled(job.outcome.reason, message, LOOK_AGAIN))
    return Course(Waiting(job.outcome.reason, message, LOOK_AGAIN, retrying=True))


def the_pod_is_starting(case: _Case) -> Course | None:
    """Nothing runs yet: look again soon, so that trouble is seen within seconds."""
    if case.job.running:
        return None
    return Course(Waiting(Reason.RUNNING, f"Job {case.job.name} is under way", LOOK_AGAIN))


_CHECKS: tuple[Callable[[_Case], Course | None], ...] = (
    it_succeeded,
    it_cannot_heal_by_itself,
    all_tries_are_used_up,
    the_deadline_has_passed,
    the_job_is_being_removed,
    it_succeeded_but_nobody_read_it,
    the_pod_cannot_start,
    a_try_has_failed,
    the_pod_is_starting,
)


@dataclass(frozen=True)
class Pauses:
    """Seconds between tries: each is twice the one before, up to the longest."""

    first: float
    longest: float

    def after(self, attempt: int) -> float:
        """Return the pause after that try."""
        return min(self.first * 2.0 ** min(attempt - 1, 30), self.longest)


def again_after_failure(
    jobs: tuple[JobSeen, ...],
    run: Callable[[int], Run],
    now: datetime,
    pauses: Pauses,
    known: Mapping[str, Any],
) -> Course:
    """Follow a Job the operator itself repeats for ever, with exponential back-off, until it succeeds.

    `run(n)` is the n-th try, a Job of its own name, so that the number of tries is kept by the cluster
    and not by the operator. `known` is the headline condition so far.
    """
    job = newest(jobs)
    if job is None:
        return start(run(1), None, now)
    course = follow(job, run(job.attempt).deadline, job.created, now, known)
    if not isinstance(course.verdict, Failed):
        return course
    left = pauses.after(job.attempt) - (now - job.created).total_seconds()
    if left > 0:
        return replace(course, verdict=replace(course.verdict, retry_in=left))
    again = replace(course.verdict, retry_in=LOOK_AGAIN)
    return Course(again, (*course.actions, run(job.attempt + 1)))


def of_purpose(jobs: tuple[JobSeen, ...], purpose: str, generation: int = 0) -> tuple[JobSeen, ...]:
    """Return the Jobs that do `purpose` for this generation of the spec."""
    return tuple(job for job in jobs if job.purpose == purpose and job.generation == generation)


def newest(jobs: tuple[JobSeen, ...]) -> JobSeen | None:
    """Return the Job of the last try."""
    return max(jobs, key=lambda job: job.attempt, default=None)


def outdated(jobs: tuple[JobSeen, ...], purpose: str, generation: int) -> tuple[Action, ...]:
    """Remove Jobs of an earlier spec: what they say is no longer asked."""
    old = [job for job in jobs if job.purpose == purpose and job.generation != generation]
    return tuple(RemoveJob(job.name, job.uid) for job in old if not job.removing)


def recorded(jobs: tuple[JobSeen, ...]) -> tuple[Action, ...]:
    """Let Jobs go whose outcome is in status: a previous pass may have died before it could."""
    return tuple(action for job in jobs if not job.removing for action in _expire(job, KEEP_SUCCEEDED))


def _expire(job: JobSeen, seconds: int) -> tuple[Action, ...]:
    return () if job.expires else (ExpireJob(job.name, seconds),)


def _too_late(deadline: int, last: str) -> Failed:
    message = f"it did not end within its deadline of {deadline} s ({last}); give it a longer deadline"
    return Failed(Reason.DEADLINE_EXCEEDED, message)


def _last_words(case: _Case) -> str:
    outcome, trouble = case.job.outcome, case.job.trouble
    if outcome is not None and not outcome.ok:
        return f"last: {outcome.reason}: {outcome.message}"
    if trouble is not None:
        return f"last: {trouble.reason}: {trouble.message}"
    # The Job controller takes the pods away at the deadline; what they said is in status.
    if case.known.get("reason") in _TROUBLES:
        return f"last: {case.known['reason']}: {case.known['message']}"
    return "it was still running"


def _counted(message: str, job: JobSeen) -> str:
    tries = max(job.ended, 1)
    return message if tries == 1 else f"after {tries} attempts: {message}"

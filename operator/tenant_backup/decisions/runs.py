"""How a Job's course becomes a verdict, the same way for every kind of Job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tenant_backup.contract.reasons import Reason

from .observed import Ended, JobSeen
from .plan import Action, ExpireJob, RemoveJob, Run
from .verdicts import Done, Failed, Stalled, Verdict, Waiting

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


def follow(job: JobSeen | None, run: Run, started: datetime | None, now: datetime) -> Course:
    """Decide about the Job `run` asks for; `started` is when the first try began, if it did."""
    if job is None:
        return _start(run, started, now)
    for check in _CHECKS:
        course = check(job, run, started or job.created, now)
        if course is not None:
            return course
    return Course(Waiting(Reason.RUNNING, f"Job {job.name} is running", FOLLOW))


def _start(run: Run, started: datetime | None, now: datetime) -> Course:
    # A Job that is gone without a recorded outcome is never success: it runs again, and `prepare`
    # finds what the earlier one committed.
    if started and now > started + timedelta(seconds=run.deadline) + GRACE:
        return Course(_too_late(run, "its Job is gone"))
    return Course(Waiting(Reason.RUNNING, f"Job {run.name} was created", LOOK_AGAIN), (run,))


def the_job_is_being_removed(job: JobSeen, run: Run, _started: datetime, _now: datetime) -> Course | None:
    """Somebody deleted the Job: wait until its pods are gone, then start again."""
    if not job.removing:
        return None
    return Course(
        Waiting(Reason.PENDING, f"Job {job.name} is being removed; it will be created again", LOOK_AGAIN)
    )


def it_succeeded(job: JobSeen, run: Run, _started: datetime, _now: datetime) -> Course | None:
    """The last container acknowledged: its facts are the result."""
    if job.outcome is None or not job.outcome.ok:
        return None
    return Course(Done(Reason.SUCCEEDED, "done"), _expire(job, KEEP_SUCCEEDED), job.outcome)


def it_succeeded_but_nobody_read_it(
    job: JobSeen, run: Run, _started: datetime, _now: datetime
) -> Course | None:
    """The pods vanished before they were read: the same Job again finds what was committed."""
    if job.finished != "Complete" or job.outcome is not None:
        return None
    message = f"Job {job.name} ended well but its pod is gone; it runs again to read the result"
    return Course(Waiting(Reason.RETRYING, message, LOOK_AGAIN), (RemoveJob(job.name, job.uid),))


def it_cannot_heal_by_itself(job: JobSeen, run: Run, _started: datetime, _now: datetime) -> Course | None:
    """A permanent failure is reported from the pod, before the Job controller has counted it."""
    if job.outcome is None or job.outcome.ok or job.outcome.retriable:
        return None
    verdict = Failed(job.outcome.reason, job.outcome.message)
    return Course(verdict, _expire(job, KEEP_FAILED))


def all_tries_are_used_up(job: JobSeen, run: Run, _started: datetime, _now: datetime) -> Course | None:
    """The Job controller gave up: the last try's cause is the cause."""
    if job.finished != "Failed":
        return None
    if job.failure == "DeadlineExceeded":
        return Course(_too_late(run, _last_words(job)), _expire(job, KEEP_FAILED))
    ended = job.outcome or Ended(
        False,
        Reason.STAGE_KILLED,
        f"Job {job.name} failed ({job.failure}) and its pods are gone; look at its Events",
    )
    return Course(Failed(ended.reason, _counted(ended.message, job)), _expire(job, KEEP_FAILED))


def the_deadline_has_passed(job: JobSeen, run: Run, started: datetime, now: datetime) -> Course | None:
    """On a dead node neither pod nor Job ever ends: the operator ends it here."""
    if now <= started + timedelta(seconds=run.deadline) + GRACE:
        return None
    remove = (RemoveJob(job.name, job.uid),)
    if job.node_lost:
        message = f"the node of Job {job.name} was lost and nothing ended within {run.deadline} s; try again"
        return Course(Failed(Reason.NODE_LOST, message), remove)
    return Course(_too_late(run, _last_words(job)), remove)


def the_pod_cannot_start(job: JobSeen, run: Run, _started: datetime, now: datetime) -> Course | None:
    """Said within seconds; when it lasts, a person must help, and the Job waits for that."""
    trouble = job.trouble
    if trouble is None:
        return None
    kind = Stalled if now - trouble.since >= PATIENCE else Waiting
    return Course(kind(trouble.reason, trouble.message, LOOK_AGAIN))


def a_try_has_failed(job: JobSeen, run: Run, _started: datetime, _now: datetime) -> Course | None:
    """The first cause is shown while tries go on."""
    if job.outcome is None or not job.ended:
        return None
    message = f"attempt {job.ended} of {job.retries + 1}: {job.outcome.message}"
    return Course(Waiting(job.outcome.reason, message, LOOK_AGAIN, retrying=True))


def the_pod_is_starting(job: JobSeen, run: Run, _started: datetime, _now: datetime) -> Course | None:
    """Nothing runs yet: look again soon, so that trouble is seen within seconds."""
    if job.running:
        return None
    return Course(Waiting(Reason.RUNNING, f"Job {job.name} is starting", LOOK_AGAIN))


_Check = Callable[[JobSeen, Run, datetime, datetime], Course | None]
_CHECKS: tuple[_Check, ...] = (
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


def again_after_failure(
    jobs: tuple[JobSeen, ...], run: Callable[[int], Run], now: datetime, *, first: float, longest: float
) -> Course:
    """Follow a Job the operator itself repeats for ever, with exponential back-off, until it succeeds.

    `run(n)` is the n-th try, a Job of its own name, so that the number of tries is kept by the cluster
    and not by the operator. `first` and `longest` are seconds between tries.
    """
    job = newest(jobs)
    attempt = job.attempt if job else 1
    course = follow(job, run(attempt), job.created if job else None, now)
    if job is None or not isinstance(course.verdict, Failed):
        return course
    pause = min(first * 2 ** (attempt - 1), longest)
    left = pause - (now - job.created).total_seconds()
    if left > 0:
        return replace(course, verdict=replace(course.verdict, retry_in=left))
    again = replace(course.verdict, retry_in=LOOK_AGAIN)
    return Course(again, (*course.actions, run(attempt + 1)))


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


def _too_late(run: Run, last: str) -> Failed:
    message = f"it did not end within its deadline of {run.deadline} s ({last}); give it a longer deadline"
    return Failed(Reason.DEADLINE_EXCEEDED, message)


def _last_words(job: JobSeen) -> str:
    if job.outcome is not None and not job.outcome.ok:
        return f"last: {job.outcome.reason}: {job.outcome.message}"
    return f"last: {job.trouble.reason}: {job.trouble.message}" if job.trouble else "it was still running"


def _counted(message: str, job: JobSeen) -> str:
    tries = max(job.ended, 1)
    return message if tries == 1 else f"after {tries} attempts: {message}"

"""Reading what decisions need: one look at an object's Jobs, their pods, and why they do not start."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_backup.cluster import EVENT, JOB, NAMESPACE, POD, Cluster, Kind, Object, Rejected
from tenant_backup.contract.results import listed_items
from tenant_backup.decisions.instants import parse
from tenant_backup.decisions.observed import Collection, JobSeen, Platform
from tenant_backup.jobs import labels
from tenant_backup.jobs.containers import PROGRESS, SPOKESMAN
from tenant_backup.jobs.outcome import see

from .admission import Admission
from .delivery import Courier
from .roster import Roster

PROGRESS_EVERY = timedelta(seconds=10)  # one status write per interval at most
SILENCE = timedelta(seconds=8)  # without a started container; then Events are asked why
ASK_AGAIN = timedelta(minutes=10)  # whether an object that was there still is
_LOG_LINES = 20
_log = logging.getLogger(__name__)


class Look:
    """One per operator. Keeps the roster, the cluster's id, and the last progress of running Jobs."""

    def __init__(  # noqa: PLR0913 - what all of the operator shares
        self,
        cluster: Cluster,
        roster: Roster,
        admission: Admission,
        courier: Courier,
        *,
        trusts_requested_by: bool,
        collection: Collection,
    ) -> None:
        self.cluster = cluster
        self.roster = roster
        self.admission = admission
        self.courier = courier
        self._trusts = trusts_requested_by
        self._collection = collection
        self._platform: Platform | None = None
        self._asking = asyncio.Lock()
        self._progress: dict[str, tuple[datetime, Mapping[str, Any] | None]] = {}
        self._there: dict[tuple[str, str, str], datetime] = {}

    @staticmethod
    def now() -> datetime:
        """Return the time of this look."""
        return datetime.now(UTC)

    def was_there(self, kind: Kind, namespace: str, name: str, now: datetime) -> bool:
        """Return whether `note_there` was called for the object a short while ago."""
        seen = self._there.get((kind.name, namespace, name))
        return seen is not None and now - seen < ASK_AGAIN

    def note_there(self, kind: Kind, namespace: str, name: str, now: datetime) -> None:
        """Remember that the object exists, so that not each look has to ask."""
        self._there[kind.name, namespace, name] = now

    async def platform(self) -> Platform:
        """Return what is the same for every object. Raises a ClusterError."""
        async with self._asking:  # a thousand Tenants of a first list want it at once
            if self._platform is None:
                system = await self.cluster.get(NAMESPACE, "", "kube-system")
                if system is None:
                    raise Rejected("namespace kube-system does not exist: the cluster has no identity")
                self._platform = Platform(system["metadata"]["uid"], self._trusts, self._collection)
            return self._platform

    async def jobs(self, namespace: str, uid: str, now: datetime) -> tuple[JobSeen, ...]:
        """Return the Jobs made for the object with this UID."""
        selector = f"{labels.UID}={uid}"
        jobs = await self.cluster.list(JOB, namespace, labels=selector)
        if not jobs:
            return ()
        pods = await self.cluster.list(POD, namespace, labels=selector)
        return tuple([await self._seen(job, _pods_of(job, pods), now) for job in jobs])

    async def listed(self, namespace: str, job: JobSeen) -> tuple[Mapping[str, Any], ...] | None:
        """Return the list that a Job answered with; None when it cannot be read any more."""
        assert job.outcome
        lines: list[str] = []
        if "items" not in job.outcome.facts:
            pods = await self.cluster.list(POD, namespace, labels=f"{labels.JOB}={job.name}")
            newest = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
            if newest is None:
                return None
            container = SPOKESMAN[job.purpose]
            lines = await self.cluster.log(namespace, newest["metadata"]["name"], container)
        try:
            return tuple(listed_items(job.outcome.facts, lines))
        except ValueError as error:
            _log.warning("the answer of Job %s cannot be read: %s", job.name, error)
            return None

    async def _seen(self, job: Object, pods: list[Object], now: datetime) -> JobSeen:
        warnings = await self._warnings(job, pods, now)
        seen = see(job, pods, now, warnings=warnings)
        if seen.finished or not seen.running or seen.outcome is not None:
            self._progress.pop(seen.uid, None)
            return seen
        return see(job, pods, now, warnings=warnings, progress=await self._latest(job, pods, now))

    async def _warnings(self, job: Object, pods: list[Object], now: datetime) -> list[Object]:
        """Return warning Events of what is silent for too long; asking always would cost a request each."""
        newest = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=job)
        born = parse(newest["metadata"]["creationTimestamp"]) or now
        if now - born < SILENCE or "completionTime" in job.get("status", {}) or not _is_silent(newest):
            return []
        namespace, name = newest["metadata"]["namespace"], newest["metadata"]["name"]
        try:
            events = await self.cluster.list(
                EVENT, namespace, fields=f"involvedObject.name={name},type=Warning"
            )
        except Rejected:
            return []  # the right to read Events is a comfort, not a need
        return sorted(events, key=lambda event: str(event.get("lastTimestamp") or ""), reverse=True)

    async def _latest(self, job: Object, pods: list[Object], now: datetime) -> Mapping[str, Any] | None:
        """Return the newest progress line, read at most once per interval."""
        uid = job["metadata"]["uid"]
        asked, known = self._progress.get(uid, (parse(job["metadata"]["creationTimestamp"]) or now, None))
        if now - asked < PROGRESS_EVERY:
            return known
        container = PROGRESS.get(job["metadata"]["labels"].get(labels.PURPOSE, ""), "")
        pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))["metadata"]
        if container in _names(job):
            lines = await self.cluster.log_tail(pod["namespace"], pod["name"], container, _LOG_LINES)
            known = _progress_of(lines) or known
        self._progress[uid] = (now, known)
        return known


def _names(job: Object) -> list[str]:
    return [container["name"] for container in job["spec"]["template"]["spec"]["containers"]]


def _pods_of(job: Object, pods: list[Object]) -> list[Object]:
    uid = job["metadata"]["uid"]
    return [
        pod
        for pod in pods
        if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences", ()))
    ]


def _is_silent(thing: Object) -> bool:
    status = thing.get("status", {})
    states = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return not any({"running", "terminated"} & state.get("state", {}).keys() for state in states)


def _progress_of(lines: list[str]) -> Mapping[str, Any] | None:
    for line in reversed(lines):
        try:
            said = json.loads(line)["progress"]
            wanted = {
                key: said[key] for key in ("percent", "phase", "bytesRead") if said.get(key) is not None
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        return wanted
    return None

"""From watch events to keys: nothing is decided here, where kopf would swallow an exception."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import kopf

from tenant_backup.api.references import LABEL_SCHEDULE
from tenant_backup.cluster import BACKUP, JOB, NOTIFIER, OURS, POD, RESTORE, SCHEDULE, STORE, TENANT
from tenant_backup.decisions.expiry import expires_at, is_going
from tenant_backup.decisions.summaries import FINISHED
from tenant_backup.decisions.verdicts import Ref
from tenant_backup.decisions.wishes import is_awaited
from tenant_backup.jobs import labels

from .admission import Admission
from .dependents import Dependents
from .queue import WorkQueue
from .roster import Roster

TALLY = 5.0  # seconds: a thousand backups of one schedule end within minutes, and each tally is a write
TOGETHER = 1.0  # seconds: what follows from a change is done once for several that come together
BURST = 0.05  # seconds: a pod's containers change one after the other
_TOLD = (BACKUP.name, RESTORE.name, TENANT.name, STORE.name)
Event = Mapping[str, Any]
Rest = Callable[[dict[str, Any]], Awaitable[float]]  # for how many seconds an object can be left alone


def register(  # noqa: PLR0913 - what all of the operator shares
    registry: kopf.OperatorRegistry,
    queue: WorkQueue[Ref],
    dependents: Dependents,
    roster: Roster,
    admission: Admission,
    *,
    rest: Rest,
) -> None:
    """Have kopf watch our kinds, our Jobs and their pods, and add the keys they are about to the queue.

    `rest` is asked of each Tenant of a first list.
    """

    def ours(kind: str) -> Callable[..., Any]:
        async def changed(event: Event, **_: Any) -> None:
            admission.see(kind, event["object"], deleted=event["type"] == "DELETED")
            _our_object(queue, dependents, kind, event, await _pause(rest, kind, event))
            _tell(queue, roster, kind, event)
            _those_it_prunes(queue, roster, kind, event)
            _its_schedules(queue, roster, kind, event)

        return changed

    async def job_changed(event: Event, **_: Any) -> None:
        if not _is_recorded(roster, event) or "ttlSecondsAfterFinished" not in event["object"]["spec"]:
            _made_by_us(queue, event, 0.0)

    async def pod_changed(event: Event, **_: Any) -> None:
        if not _is_recorded(roster, event):
            _made_by_us(queue, event, BURST)

    for kind in OURS.values():
        group, version = kind.api_version.split("/")
        kopf.on.event(group, version, kind.plural, registry=registry, id=f"{kind.name}-changed")(
            ours(kind.name)
        )
    kopf.on.event("batch", "v1", JOB.plural, registry=registry, id="job-changed")(job_changed)
    kopf.on.event("v1", POD.plural, registry=registry, id="pod-changed")(pod_changed)


async def _pause(rest: Rest, kind: str, event: Event) -> float:
    """Return in how many seconds to look at an object; of a first list most can wait."""
    listed = kind == TENANT.name and event["type"] is None
    return await rest(event["object"]) if listed else 0.0


def _our_object(queue: WorkQueue[Ref], dependents: Dependents, kind: str, event: Event, pause: float) -> None:
    document = event["object"]
    metadata = document["metadata"]
    key = Ref(kind, metadata["namespace"], metadata["name"])
    if pause:
        queue.after(key, pause)
    elif not is_settled(kind, document):
        queue.add(key)
    elif kind == BACKUP.name:
        _when_it_expires(queue, key, document)
    for waiting in dependents.of(key):
        queue.add(waiting)
    if event["type"] is not None:  # None: the first list; they all get a key of their own
        for other in also_concerned(kind, document, deleted=event["type"] == "DELETED"):
            queue.after(other, TOGETHER)


def _tell(queue: WorkQueue[Ref], roster: Roster, kind: str, event: Event) -> None:
    """Have the notifiers of the namespace look whether this is news."""
    document = event["object"]
    runs = kind in (BACKUP.name, RESTORE.name) and document.get("status", {}).get("state") not in FINISHED
    if event["type"] is None or kind not in _TOLD or runs:
        return
    for notifier in roster.notifiers(document["metadata"]["namespace"]):
        queue.after(Ref(NOTIFIER.name, notifier.namespace, notifier.name), TOGETHER)


def _when_it_expires(queue: WorkQueue[Ref], key: Ref, document: Event) -> None:
    due = expires_at(document["spec"], document["status"])
    if due is not None:
        queue.after(key, max((due - datetime.now(UTC)).total_seconds(), 0.0))


def _those_it_prunes(queue: WorkQueue[Ref], roster: Roster, kind: str, event: Event) -> None:
    """Have the Tenants look whether somebody prunes their backups, when a schedule comes or goes."""
    if kind != SCHEDULE.name or event["type"] not in ("ADDED", "DELETED"):
        return
    metadata = event["object"]["metadata"]
    made = roster.of_schedule(metadata["namespace"], metadata["name"])
    for tenant in {backup.tenant for backup in made}:
        queue.after(Ref(TENANT.name, metadata["namespace"], tenant), TOGETHER)


def _its_schedules(queue: WorkQueue[Ref], roster: Roster, kind: str, event: Event) -> None:
    """Have schedules look who came and who left, and count what runs and what waits."""
    if event["type"] is None:
        return
    metadata = event["object"]["metadata"]
    namespace, made_by = metadata["namespace"], metadata.get("labels", {}).get(LABEL_SCHEDULE)
    if kind == BACKUP.name and made_by:
        queue.after(Ref(SCHEDULE.name, namespace, made_by), TALLY)
    if kind == TENANT.name:
        for schedule in roster.schedules(namespace):
            queue.after(Ref(SCHEDULE.name, namespace, schedule.name), TALLY)


def is_settled(kind: str, document: Event) -> bool:
    """Whether nothing can be left to do: such objects cost nothing at start-up, however many there are."""
    metadata, status = document["metadata"], document.get("status", {})
    current = status.get("observedGeneration") == metadata.get("generation")
    if not current or "deletionTimestamp" in metadata or status.get("state") not in (*FINISHED, "Undone"):
        return False
    if kind == BACKUP.name:
        return not is_awaited(document["spec"], metadata, status) and not is_going(status)
    return kind == RESTORE.name and "previousDatabase" not in status


def also_concerned(kind: str, document: Event, *, deleted: bool) -> list[Ref]:
    """Return who counts this object: its Tenant, once it has ended or is gone."""
    if kind not in (BACKUP.name, RESTORE.name):
        return []
    if not deleted and document.get("status", {}).get("state") not in FINISHED:
        return []
    metadata, spec = document["metadata"], document["spec"]
    tenant = spec["tenantRef"] if kind == BACKUP.name else spec["target"]["tenantRef"]
    return [Ref(TENANT.name, metadata["namespace"], tenant["name"])]


def _is_recorded(roster: Roster, event: Event) -> bool:
    """Whether it is of a backup's run whose outcome is in status: what becomes of it then is no matter."""
    its = event["object"]["metadata"].get("labels", {})
    backup = roster.backup(its.get(labels.UID, "")) if its.get(labels.PURPOSE) == "backup" else None
    return backup is not None and backup.finished and not backup.removing


def _made_by_us(queue: WorkQueue[Ref], event: Event, pause: float) -> None:
    metadata = event["object"]["metadata"]
    kind = metadata.get("labels", {}).get(labels.KIND)
    name = metadata.get("annotations", {}).get(labels.SUBJECT)
    if kind in OURS and name:
        queue.after(Ref(kind, metadata["namespace"], name), pause)

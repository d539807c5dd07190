"""Listing a BackupStore: what is in it without an object, and which objects have nothing in it any more.

Objects are created once, when the store is listed for the first time, or when somebody asks; each other
listing only counts. A listing is a chain of Jobs, a page each, whose names are functions of the page before:
wherever we die, the next pass finds the same Job, and what it created has names that are functions of what
they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api.references import ANNOTATION_ADOPT, ANNOTATION_IMPORT
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .collection import is_ready
from .imported import import_of
from .instants import parse, rfc3339
from .names import job_name, shortened
from .observed import JobSeen, StoreSeen
from .plan import Action, Announce, Judge, RemoveJob, Run, Subject
from .runs import LOOK_AGAIN, Course, Pauses, again_after_failure, recorded
from .summaries import BackupSummary
from .verdicts import Done, Failed, Stalled

DEADLINE = 3600  # seconds, for one page
PAUSES = Pauses(20.0, 600.0)  # seconds between tries
PAGE, NAMES_PAGE = 250, 5000  # backups in one Job's list: with what they are, and their names only
MOST = 20_000  # TenantBackups of one store; more are not imported, because a cluster has to hold them
UNREAD = timedelta(minutes=1)  # a page whose list cannot be read is not listed more often than this
SKEW = timedelta(minutes=5)  # clocks that disagree: what ended later was perhaps not there to be listed
REQUEST_LIMIT, MESSAGE_LIMIT, CLUSTERS = 128, 4096, 5  # as in the CRD
Status = Mapping[str, Any]
_Place = tuple[str, str]  # slug and backup id: the order of a listing


@dataclass(frozen=True)
class Catalogued:
    """What to do about the catalogue, and the store's status with what is known of it."""

    status: Status
    actions: tuple[Action, ...] = ()
    retry_in: float | None = None  # seconds


@dataclass(frozen=True)
class _Wish:
    """A listing that is to be made: to create objects, or to count."""

    imports: bool
    request: str


def cataloguing(seen: StoreSeen, now: datetime) -> Catalogued:
    """Return the next step; `seen.status` without what it says about the catalogue stays as it is."""
    mine = tuple(job for job in seen.jobs if job.purpose == "catalogue")
    if not is_ready(seen):
        return Catalogued(seen.status)
    wish, wait = _wish(seen, now)
    if wish is None:
        return Catalogued(seen.status, _tidy(mine), wait)
    page = _page(seen, wish)
    jobs = tuple(job for job in mine if job.name == _run(seen, wish, page, job.attempt).name)
    tidy = _tidy(tuple(job for job in mine if job not in jobs))
    course = again_after_failure(jobs, lambda attempt: _run(seen, wish, page, attempt), now, PAUSES, {})
    verdict = course.verdict
    if isinstance(verdict, Done) and course.facts:
        job = max(jobs, key=lambda job: job.attempt)
        step = _take(seen, wish, job, course, now)
        return Catalogued(step.status, (*tidy, *step.actions), step.retry_in)
    status = seen.status
    if isinstance(verdict, Failed | Stalled):
        said = f"{verdict.reason}: {verdict.message}"[:MESSAGE_LIMIT]
        status = {**seen.status, "catalogue": {**_known(seen.status), "message": said}}
    return Catalogued(status, (*tidy, *course.actions), verdict.retry_in)


def _known(status: Status) -> Status:
    known: Status = status.get("catalogue", {})
    return known


def _wish(seen: StoreSeen, now: datetime) -> tuple[_Wish | None, float | None]:
    """Return what is to be listed now, or in how many seconds the next listing is due."""
    known = _known(seen.status)
    asked = shortened(seen.store.metadata.annotations.get(ANNOTATION_IMPORT, ""), limit=REQUEST_LIMIT)
    completed = parse(known.get("completedAt"))
    if completed is None or asked not in ("", known.get("requested")):
        return _Wish(imports=True, request=asked), None
    left = (completed + timedelta(seconds=seen.platform.collection.interval) - now).total_seconds()
    # Another spec may name another place.
    if left <= 0 or known.get("generation") != seen.store.metadata.generation:
        return _Wish(imports=False, request=known.get("requested", "")), None
    return None, left


def _page(seen: StoreSeen, wish: _Wish) -> Status:
    """Return how far this listing is; one that was begun for something else does not count."""
    begun: Status = _known(seen.status).get("page", {})
    same = (begun.get("imports", False), begun.get("request", "")) == (wish.imports, wish.request)
    return begun if same else {"imports": wish.imports, "request": wish.request}


def _run(seen: StoreSeen, wish: _Wish, page: Status, attempt: int) -> Run:
    store, metadata = seen.store, seen.store.metadata
    slot = (metadata.uid, _known(seen.status).get("startedAt", ""), wish.request, page.get("after", ""))
    return Run(
        name=job_name(metadata.name, "\0".join(slot), "catalogue", metadata.generation, attempt),
        purpose="catalogue",
        job=contract.Catalogue(
            uid=metadata.uid,
            namespace=metadata.namespace,
            store=described.store(store),
            details=wish.imports,
            after=page.get("after", ""),
            limit=PAGE if wish.imports else NAMES_PAGE,
            request=wish.request,
        ),
        subject=Subject.of(store),
        tenant="",
        secrets=described.store_secrets(store),
        claim=described.claim(store),
        deadline=DEADLINE,
        retries=0,
        generation=metadata.generation,
        attempt=attempt,
    )


def _tidy(jobs: tuple[JobSeen, ...]) -> tuple[Action, ...]:
    """Let recorded Jobs go, and at once those that list what nobody asks for any more."""
    idle = [job for job in jobs if not job.finished and job.outcome is None]
    stale = tuple(RemoveJob(job.name, job.uid) for job in idle if not job.removing)
    return (*stale, *recorded(tuple(job for job in jobs if job not in idle)))


def _take(seen: StoreSeen, wish: _Wish, job: JobSeen, course: Course, now: datetime) -> Catalogued:
    """Take in one page."""
    if job.name not in seen.pages:
        return _again(seen, job, now)
    assert course.facts
    upto = str(course.facts.facts.get("next", ""))
    found = _Found(seen, wish, job, upto)
    judged = found.judged()
    if len(judged) > PAGE:
        # Recorded once all are judged; until then the roster tells who was.
        return Catalogued(seen.status, tuple(judged[:PAGE]), 1.0)
    created = found.created(now)
    sums = found.sums(len(created))
    actions: tuple[Action, ...] = (*created, *judged, *course.actions)
    known = {key: value for key, value in _known(seen.status).items() if key != "page"}
    known["startedAt"] = rfc3339(job.created)
    if upto:
        begun = _slim({"imports": wish.imports, "request": wish.request, "after": upto, **sums})
        return Catalogued({**seen.status, "catalogue": {**known, "page": begun}}, actions, 0.5)
    complete = _complete(seen, wish, known, sums, now)
    status = {**seen.status, "unlisted": sums["unlisted"], "catalogue": complete}
    return Catalogued(status, (*_told(wish, sums), *actions), seen.platform.collection.interval)


def _again(seen: StoreSeen, job: JobSeen, now: datetime) -> Catalogued:
    """List a page again whose log cannot be read: its pod is gone, or its node does not answer."""
    left = (job.created + UNREAD - now).total_seconds()
    if left <= 0:
        return Catalogued(seen.status, (RemoveJob(job.name, job.uid),), LOOK_AGAIN)
    said = f"the list that Job {job.name} wrote to its log cannot be read; it is made again"
    return Catalogued({**seen.status, "catalogue": {**_known(seen.status), "message": said}}, (), left)


def _complete(seen: StoreSeen, wish: _Wish, known: Status, sums: Status, now: datetime) -> dict[str, Any]:
    done = {
        **known,
        "completedAt": rfc3339(now),
        "generation": seen.store.metadata.generation,
        "requested": wish.request,
        "clusters": sums["clusters"],
        "message": _message(sums),
    }
    return _slim(done | ({"imported": sums["imported"]} if wish.imports else {}))


def _slim(values: Status) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in ("", [], False)}


def _told(wish: _Wish, sums: Status) -> tuple[Action, ...]:
    count = sums["imported"]
    if not wish.imports or not count:
        return ()
    what = f"{count} backups were found in the store and have a TenantBackup now"
    return (Announce("Normal", Reason.BACKUPS_IMPORTED, what),)


def _message(sums: Status) -> str:
    said = []
    if sums["unreadable"]:
        said.append(f"{sums['unreadable']} manifests cannot be read and were left out")
    if sums["clusters"]:
        first = sums["clusters"][0]
        said.append(
            f"tenants here belong to cluster {', '.join(sums['clusters'])}: their backups can be restored; if"
            f" that cluster writes no more, annotation {ANNOTATION_ADOPT}={first} lets this one go on"
        )
    return "; ".join(said)


class _Found:
    """One page, compared with the objects there are."""

    def __init__(self, seen: StoreSeen, wish: _Wish, job: JobSeen, upto: str) -> None:
        self._seen, self._wish, self._job, self._upto = seen, wish, job, upto
        self._page = _page(seen, wish)
        listed = seen.pages[job.name]
        self._items = [item for item in listed if "backups" in item]
        self._skipped = {str(item["slug"]) for item in listed if "skipped" in item}
        self._there = {(str(item["slug"]), _id(one)) for item in self._items for one in item["backups"]}

    def created(self, now: datetime) -> tuple[Action, ...]:
        """Return the objects to create."""
        if not self._wish.imports:
            return ()
        room = max(0, MOST - len(self._seen.backups))
        new = [(item, one) for item, one in self._unlisted() if "unreadable" not in one]
        return tuple(import_of(self._seen.store, item["tenant"], one, now) for item, one in new[:room])

    def judged(self) -> list[Judge]:
        """Return whose data vanished, and whose is back."""
        before = self._job.created - SKEW
        return [
            Judge(backup.name, backup.uid, gone=gone, store=self._seen.store.metadata.name)
            for backup in self._seen.backups
            if backup.state == "Succeeded" and not backup.removing and self._covers(backup)
            if backup.completed and backup.completed < before
            if (gone := _place(backup) not in self._there) != (backup.reason == Reason.BACKUP_NOT_FOUND)
        ]

    def sums(self, imported: int) -> dict[str, Any]:
        """Return what this listing has found so far."""
        unlisted = list(self._unlisted())
        unreadable = sum("unreadable" in one for _item, one in unlisted if isinstance(one, Mapping))
        own = self._seen.platform.cluster_id
        clusters = [item["cluster"] for item in self._items if item["cluster"] not in ("", own)]
        known = dict.fromkeys((*self._page.get("clusters", ()), *clusters))
        return {
            "unlisted": self._page.get("unlisted", 0) + len(unlisted) - imported,
            "imported": self._page.get("imported", 0) + imported,
            "unreadable": self._page.get("unreadable", 0) + unreadable,
            "clusters": list(known)[:CLUSTERS],
        }

    def _unlisted(self) -> Iterator[tuple[Status, Any]]:
        """Yield what has no object: each with its item."""
        ids = {_place(backup) for backup in self._seen.backups}
        for item in self._items:
            for one in item["backups"]:
                # A run commits before its object says so; its UID is in the manifest.
                ours = isinstance(one, Mapping) and one.get("uid") in self._seen.uids
                if (item["slug"], _id(one)) not in ids and not ours:
                    yield item, one

    def _covers(self, backup: BackupSummary) -> bool:
        """Whether this page would have it."""
        place = _place(backup)
        return (
            place > _parsed(self._page.get("after", ""))
            and (not self._upto or place <= _parsed(self._upto))
            and place[0] not in self._skipped
        )


def _id(one: Any) -> str:
    return str(one["id"]) if isinstance(one, Mapping) else str(one)


def _place(backup: BackupSummary) -> _Place:
    return backup.backup_id.partition("_")[0], backup.backup_id


def _parsed(place: str) -> _Place:
    slug, _, backup_id = place.partition("/")
    return slug, backup_id

"""Who backs up next: one pure function over all backups that run and all that want to.

Every backup takes a share of up to four budgets: of the operator, of its database server, of its
schedule, and of its schedule on that server. It starts when all of them have room, in the order of
`turn`; who has no room is passed over, so a busy server never stops another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .instants import parse, rfc3339

HEAD_START = timedelta(hours=24)  # how much longer than a manual backup a scheduled one waits at most
REFRESH = timedelta(hours=1)  # a place is written when the wait begins, and then this often


@dataclass(frozen=True, slots=True)
class Budget:
    """How many backups may run at once: at all, and on one database server. None: no limit."""

    total: int | None = None
    per_server: int | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A TenantBackup that runs or wants to."""

    uid: str
    namespace: str
    name: str
    schedule: str  # "" when a person asked for it
    server: str  # of its Tenant's database
    created: datetime


@dataclass(frozen=True)
class Budgets:
    """Of the operator, and of the schedules that have one: by namespace and name."""

    operator: Budget
    schedules: Mapping[tuple[str, str], Budget]


@dataclass(frozen=True)
class Place:
    """Where a waiting backup stands (1: the first), what holds it back, and when that was so."""

    position: int
    why: str
    at: datetime


def server_of(namespace: str, host: str, port: int) -> str:
    """Return a database server as budgets count it; a host without a dot is a Service of the namespace."""
    return f"{host.lower() if '.' in host else f'{host.lower()}.{namespace}.svc'}:{port}"


Turn = tuple[datetime, str, str]


def turn(one: Contender) -> Turn:
    """Return the order of the line: manual before scheduled, the oldest first.

    A manual one counts as a day older than it is. So it goes first, and yet a scheduled one is overtaken
    for a day at most, whatever keeps arriving.
    """
    since = one.created if one.schedule else one.created - HEAD_START
    return since, one.namespace, one.name


def may_start(
    running: Iterable[Contender], line: Iterable[Contender], budgets: Budgets
) -> tuple[Contender, ...]:
    """Return who starts now; `line` is who waits, in the order of `turn`."""
    use, starting, head = _Use(running, budgets), [], True
    for one in line:
        if use.is_exhausted:
            break
        if not use.full(one):
            use.take(one)
            starting.append(one)
        elif head:
            head = False
            use.hold(one)
    return tuple(starting)


def fits(running: Iterable[Contender], one: Contender, budgets: Budgets) -> bool:
    """Return whether its budgets have room; somebody before it in the line may want the same."""
    return not _Use(running, budgets).full(one)


def why_not(running: Iterable[Contender], one: Contender, budgets: Budgets) -> str:
    """Return in half a sentence what holds it back."""
    use = _Use(running, budgets)
    full = use.full(one)
    if not full:
        return f"the next place on database server {one.server} is kept for an older one"
    return use.described(full[0])


def steady(place: Place, recorded: Mapping[str, Any]) -> Place:
    """Return the place to show; `recorded` is `status.queue` so far.

    A thousand waiting objects must not be written anew each time one of them starts.
    """
    written = parse(recorded.get("updatedAt"))
    if written is None or place.at - written >= REFRESH:
        return place
    return Place(recorded["position"], recorded["message"], written)


def queue_status(place: Place) -> dict[str, Any]:
    """Return `status.queue` of a backup that waits."""
    return {"position": place.position, "message": place.why, "updatedAt": rfc3339(place.at)}


_Share = tuple[tuple[str, str], str | None]  # the schedule (empty: the operator) and the server (None: all)
_OPERATOR = ("", "")


class _Use:
    """How much of each budget is taken."""

    def __init__(self, running: Iterable[Contender], budgets: Budgets) -> None:
        self._budgets = budgets
        self._taken: Counter[_Share] = Counter()
        for one in running:
            self.take(one)

    @property
    def is_exhausted(self) -> bool:
        """Whether nobody at all can start."""
        return self._is_full((_OPERATOR, None))

    def take(self, one: Contender) -> None:
        self._taken.update(_shares(one))

    def full(self, one: Contender) -> list[_Share]:
        """Return the budgets that hold it back."""
        return [share for share in _shares(one) if self._is_full(share)]

    def hold(self, one: Contender) -> None:
        """Keep the free place on its server for the first of the line, when its schedule has none for it.

        Else others could take turns there, and each time its schedule has room its server has not. If
        its schedule already runs something on that server, both get room at once and nothing is held.
        """
        mine = (one.namespace, one.schedule)
        only_its_schedule = all(scope == mine for scope, _server in self.full(one))
        if only_its_schedule and not self._taken[mine, one.server]:
            self._taken[_OPERATOR, one.server] += 1

    def described(self, share: _Share) -> str:
        (_namespace, schedule), server = share
        whose = [f"BackupSchedule {schedule}"] if schedule else []
        where = [] if server is None else [f"database server {server}"]
        what = " on ".join([*whose, *where]) or "the operator"
        return f"{self._taken[share]} of {self._limit(share)} backups of {what} are running"

    def _is_full(self, share: _Share) -> bool:
        limit = self._limit(share)
        return limit is not None and self._taken[share] >= limit

    def _limit(self, share: _Share) -> int | None:
        scope, server = share
        budget = self._budgets.operator if scope == _OPERATOR else self._budgets.schedules.get(scope)
        if budget is None:
            return None
        return budget.total if server is None else budget.per_server


def _shares(one: Contender) -> Iterator[_Share]:
    yield _OPERATOR, None
    yield _OPERATOR, one.server
    if one.schedule:
        scope = (one.namespace, one.schedule)
        yield scope, None
        yield scope, one.server

"""When each tenant of a schedule is due. Pure: time is an argument, offsets are hashes.

A slot is a moment that the cron expression names; or the moment at which the operator first saw a new
`runNow`, which lies between two minutes, so that its label and names are never those of the cron's slots.
A tenant is due at a slot plus its own offset. Offsets depend on the names of schedule and tenant only, so
that they survive everything, a schedule that is deleted and comes back from Git as well.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import takewhile

from tenant_backup.api.schedule import Schedule

from .instants import rfc3339

COUNTED = 1000  # slots after a long absence
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Slots:
    """The slots around now, oldest first: as many as decide about anybody's backup.

    The first of `moments` is due for everybody, unless the schedule is younger; the last is the newest that
    has come. `asked` is the moment of the last `runNow`; nobody has an offset in it.
    """

    moments: tuple[datetime, ...]
    upcoming: tuple[datetime, ...]
    asked: datetime | None

    @classmethod
    def around(
        cls, now: datetime, schedule: Schedule, spread: timedelta, since: datetime, asked: datetime | None
    ) -> Slots:
        """Look around `now`; slots before `since` are nobody's."""
        oldest = schedule.last_run(now - spread)
        later = takewhile(lambda slot: slot <= now, schedule.runs_after(oldest))
        asked = asked if asked and asked <= now else None
        moments = tuple(slot for slot in (oldest, *later) if slot >= since)
        return cls(moments, schedule.next_runs(now), asked)

    @property
    def newest(self) -> datetime | None:
        """The newest slot that has come."""
        return max(filter(None, (*self.moments[-1:], self.asked)), default=None)

    def due(self, offset: timedelta, now: datetime) -> datetime | None:
        """Return the newest slot of the cron expression that is due for a tenant with this offset."""
        index = bisect_right(self.moments, now - offset)
        return self.moments[index - 1] if index else None

    def before(self, slot: datetime) -> datetime | None:
        """Return the slot before `slot`."""
        moments = sorted({*self.moments, *filter(None, [self.asked])})
        index = bisect_left(moments, slot)
        return moments[index - 1] if index else None

    def next_due(self, offsets: Iterable[timedelta], now: datetime) -> datetime | None:
        """Return when the next tenant is due."""
        ordered = sorted(offsets)
        found = []
        for slot in (*self.moments, *self.upcoming[:1]):
            index = bisect_right(ordered, now - slot)
            if index < len(ordered):
                found.append(slot + ordered[index])
        return min(found, default=None)


def between(schedule: Schedule, after: datetime, before: datetime) -> Iterator[datetime]:
    """Yield the slots after one moment and before another."""
    return takewhile(lambda slot: slot < before, schedule.runs_after(after))


def unserved(what: str, slots: Sequence[datetime], why: str) -> str:
    """Say that slots passed without `what`, such as backups; at most COUNTED of them, oldest first."""
    if len(slots) == 1:
        return f"no {what} in slot {rfc3339(slots[0])}: {why}"
    number = f"{len(slots)} slots" if len(slots) < COUNTED else "more slots than are counted,"
    return f"no {what} in {number} from {rfc3339(slots[0])} on: {why}"


def offset(schedule: str, tenant: str, spread: timedelta) -> timedelta:
    """Return how long after each slot a tenant is due: whole seconds, less than `spread`."""
    return timedelta(seconds=_stable("spread", schedule, tenant) % max(1, int(spread.total_seconds())))


def period_start(schedule: str, tenant: str, period: timedelta, moment: datetime) -> datetime:
    """Return when the tenant's period began that `moment` is in; each tenant's begin at another time."""
    seconds = int(period.total_seconds())
    phase = _stable("full", schedule, tenant) % seconds
    since = (int((moment - _EPOCH).total_seconds()) - phase) // seconds * seconds + phase
    return _EPOCH + timedelta(seconds=since)


def asked_at(now: datetime) -> datetime:
    """Return the slot of a `runNow` that is seen now: later than now, and never on the minute."""
    following = now.replace(microsecond=0) + timedelta(seconds=1)
    return following if following.second else following + timedelta(seconds=1)


def _stable(*parts: str) -> int:
    return int.from_bytes(sha256("\0".join(parts).encode()).digest()[:8])

"""When a schedule fires: cron expressions with a time zone, by the library cronsim.

Daylight saving: cronsim follows Debian cron. A run at a fixed time that the spring jump skips fires
right after the jump; one in the repeated autumn hour fires once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_SHORTHAND = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}

_CLOCK_CHANGE = timedelta(hours=2)  # no clock is moved by more


@dataclass(frozen=True)
class Schedule:
    """A checked cron expression in a time zone; make one with `Schedule.parse`."""

    expression: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, schedule: str, time_zone: str = "Etc/UTC") -> Schedule:
        """Check a schedule. Raises ValueError with one sentence that says what to write instead."""
        parsed = cls(_expression(schedule), _zone(time_zone))
        _any_run(parsed, schedule)
        return parsed

    def runs_after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the slots after an aware `moment`, without end, in UTC."""
        if moment.tzinfo is None:
            raise ValueError("a moment without time zone has no next run")
        for local in CronSim(self.expression, moment.astimezone(self.zone)):
            yield local.astimezone(UTC)

    def next_runs(self, moment: datetime, count: int = 3) -> tuple[datetime, ...]:
        """Return the first `count` slots after an aware `moment`, in UTC."""
        return tuple(islice(self.runs_after(moment), count))

    def last_run(self, moment: datetime) -> datetime:
        """Return the newest slot at or before an aware `moment`, in UTC."""
        # cronsim looking back disagrees with cronsim looking forward near a clock change, and forward
        # decides: so look back past the change, then go forward.
        earlier = (moment - _CLOCK_CHANGE).astimezone(self.zone)
        before = next(CronSim(self.expression, earlier, reverse=True))
        last = before.astimezone(UTC)
        for following in takewhile(lambda slot: slot <= moment, self.runs_after(last)):
            last = following
        return last


def _expression(schedule: str) -> str:
    expression = _SHORTHAND.get(schedule.strip(), schedule.strip())
    if expression.startswith("@") or len(expression.split()) != 5:
        raise ValueError(
            f"schedule {schedule!r} is not five fields (minute, hour, day of month, month, day of week)"
            f" and not one of {', '.join(_SHORTHAND)}"
        )
    return expression


def _zone(time_zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(time_zone)
    except (OSError, ValueError, KeyError) as error:  # a folder, a bad key, an unknown name
        raise ValueError(f"time zone {time_zone!r} is unknown; write a name such as Europe/Rome") from error


def _any_run(schedule: Schedule, text: str) -> None:
    try:
        next(schedule.runs_after(datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"schedule {text!r} cannot be read: {error}") from error
    except StopIteration:
        raise ValueError(f"schedule {text!r} never fires; its day does not exist in its month") from None

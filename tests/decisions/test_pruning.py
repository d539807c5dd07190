"""Carrying retention out: shown before it first deletes, decided afresh, a few at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tenant_backup.api.schedule import Schedule
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.observed import ScheduleSeen
from tenant_backup.decisions.plan import Announce, Audit, DeleteBackup
from tenant_backup.decisions.pruning import AT_ONCE, LISTED, Pruning, condemned, prune
from tests.decisions.objects import NOW, made, schedule, schedule_seen

RULES = "keepLast 2, keepFailed 3 in Etc/UTC"
SHOWN = {
    "retention": {"rules": RULES, "deletesFrom": "2024-01-15T14:30:25Z"},
    "lastRun": "2024-01-15T02:00:00Z",
}
NIGHTS = tuple(made(NOW - timedelta(days=day)) for day in (4, 3, 2, 1))


def seen(**fields: Any) -> ScheduleSeen:
    """Four good backups, of which two are kept, by rules that were shown for long enough."""
    known: dict[str, Any] = {"status": SHOWN, "backups": NIGHTS, "read_afresh": frozenset({"acme"})}
    return schedule_seen(**(known | fields))


def look(found: ScheduleSeen, now: datetime = NOW) -> Pruning:
    """What is to be done about it."""
    spec = found.schedule.spec
    return prune(found, Schedule.parse(spec.schedule, spec.time_zone), now)


def after(done: Pruning) -> dict[str, Any]:
    """The schedule's status once that is recorded."""
    return {**SHOWN, "retention": done.status}


def deleted(plan: Pruning) -> list[str]:
    """The names of what goes."""
    return [action.name for action in plan.actions if isinstance(action, DeleteBackup)]


def shown(plan: Pruning) -> dict[str, Any]:
    """What status says about retention."""
    assert plan.status
    return dict(plan.status)


def test_what_goes_is_in_status() -> None:
    """With the rules it was found by, and from when on."""
    plan = look(seen())
    assert shown(plan) == {
        "rules": RULES,
        "deletesFrom": "2024-01-15T14:30:25Z",
        "kept": 2,
        "toDelete": 2,
        "next": [NIGHTS[0].name, NIGHTS[1].name],
    }
    assert deleted(plan) == [NIGHTS[0].name, NIGHTS[1].name]
    first = next(action for action in plan.actions if isinstance(action, DeleteBackup))
    assert (first.uid, first.version) == (NIGHTS[0].uid, "1")


def test_retention_shows_what_goes_for_an_interval_before_it_first_deletes() -> None:
    """A nightly schedule for a day: time to see it, to take the rules back or to hold a backup."""
    plan = look(seen(status={}))
    assert deleted(plan) == []
    assert (shown(plan)["toDelete"], shown(plan)["deletesFrom"]) == (2, "2024-01-16T14:30:25Z")
    early = look(seen(status=after(plan)), NOW + timedelta(hours=9))
    assert deleted(early) == []
    assert shown(early)["deletesFrom"] == "2024-01-16T14:30:25Z"
    assert deleted(look(seen(status=after(early)), NOW + timedelta(days=1))) == [
        NIGHTS[0].name,
        NIGHTS[1].name,
    ]


@pytest.mark.parametrize(
    ("cron", "until"),
    [
        ("* * * * *", "2024-01-15T14:31:25Z"),
        ("0 * * * *", "2024-01-15T15:30:25Z"),
        ("0 2 1 * *", "2024-01-16T14:30:25Z"),
    ],
)
def test_it_is_shown_for_a_day_at_most(cron: str, until: str) -> None:
    """An interval of the schedule, if that is shorter."""
    frequent = schedule({"schedule": cron})
    assert shown(look(seen(schedule=frequent, status={})))["deletesFrom"] == until


@pytest.mark.parametrize("spec", [{"retention": {"keepLast": 1}}, {"timeZone": "Europe/Rome"}])
def test_new_rules_are_shown_anew(spec: dict[str, Any]) -> None:
    """A slip of the hand deletes nothing at once; in another time zone days are others."""
    plan = look(seen(schedule=schedule(spec)))
    assert deleted(plan) == []
    assert shown(plan)["deletesFrom"] == "2024-01-16T14:30:25Z"
    assert not condemned(schedule(spec).spec, SHOWN, NIGHTS, NOW)


def test_what_else_changes_in_the_spec_does_not_keep_retention_waiting() -> None:
    """Somebody who runs it now each hour would never have anything deleted."""
    other = schedule({"schedule": "0 3 * * *"}, generation=7)
    assert deleted(look(seen(schedule=other))) == [NIGHTS[0].name, NIGHTS[1].name]


def test_retention_deletes_only_what_was_read_afresh() -> None:
    """The roster may be a moment behind: by it nothing goes."""
    plan = look(seen(read_afresh=frozenset()))
    assert deleted(plan) == []
    assert shown(plan)["toDelete"] == 2
    assert plan.retry_in == 10.0


def test_retention_decides_again_on_what_it_reads() -> None:
    """The newest one was found corrupt since: nothing goes."""
    going = condemned(schedule().spec, SHOWN, NIGHTS, NOW)
    assert [backup.name for backup in going] == [NIGHTS[0].name, NIGHTS[1].name]
    fresh = (*NIGHTS[:3], replace(NIGHTS[3], health="Corrupt"))
    assert deleted(look(seen(backups=fresh))) == []


def test_a_thousand_deletions_do_not_start_at_once() -> None:
    """Each costs a Job; those that are under way count, in each store for itself."""
    hours = [NOW - timedelta(hours=hour) for hour in range(60, 0, -1)]
    backups = tuple(made(hour) for hour in hours)
    first = look(seen(backups=backups))
    assert len(deleted(first)) == AT_ONCE
    assert len(shown(first)["next"]) == LISTED
    assert first.retry_in == 10.0
    going = tuple(replace(one, removing=one.name in deleted(first)) for one in backups)
    second = look(seen(backups=going))
    assert deleted(second) == []
    assert shown(second) == {**shown(first), "toDelete": 38, "next": shown(second)["next"]}
    elsewhere = tuple(replace(one, store="other", uid=f"{one.uid}-2") for one in backups)
    assert len(deleted(look(seen(backups=(*going, *elsewhere))))) == AT_ONCE


def test_each_deletion_leaves_a_line_in_the_audit_log_before_it_is_done() -> None:
    """And one Event tells of them together."""
    plan = look(seen())
    told, line, deletion, *_ = plan.actions
    assert isinstance(told, Announce)
    assert told.reason is Reason.PRUNED
    assert told.message == f"deletes {NIGHTS[0].name} and 1 more, which no rule keeps"
    assert isinstance(line, Audit)
    assert isinstance(deletion, DeleteBackup)
    assert (line.record["name"], line.record["rules"]) == (deletion.name, RULES)


def test_without_retention_nothing_is_deleted() -> None:
    """The default loses nothing, and says nothing."""
    plan = look(seen(schedule=schedule({"retention": None})))
    assert (deleted(plan), plan.status) == ([], None)


def test_when_nothing_goes_nothing_is_written() -> None:
    """A look at what has not changed leaves the status as it is."""
    done = look(seen(backups=NIGHTS[2:]))
    assert (deleted(done), shown(done)["toDelete"]) == ([], 0)
    assert (
        look(seen(backups=NIGHTS[2:], status=after(done)), NOW + timedelta(minutes=5)).status == done.status
    )

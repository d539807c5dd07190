"""A schedule's verifications: once for each tenant and slot, a few at a time, whatever happens in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_backup.api.schedule import Schedule
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.observed import ScheduleSeen
from tenant_backup.decisions.plan import Announce, CreateBackup, DeleteBackup, Plan, RequestVerification
from tenant_backup.decisions.schedule import decide
from tenant_backup.decisions.summaries import BackupSummary, of_backup
from tests.decisions.objects import condition, document, made, remembered, schedule, schedule_seen
from tests.decisions.schedule_world import World

SLOT = datetime(2024, 1, 14, 5, tzinfo=UTC)  # a Sunday
AFTER = SLOT + timedelta(seconds=10)
LATER = SLOT + timedelta(minutes=20)
REQUEST = "Checksum nightly 2024-01-14T05:00:00Z"
RAN = {"lastRun": "2024-01-14T02:00:00Z", "settledThrough": "2024-01-14T02:00:00Z"}
DUE = RAN | {"verification": {"nextRun": "2024-01-14T05:00:00Z"}}
OPEN = {"lastRun": "2024-01-14T05:00:00Z", "nextRun": "2024-01-21T05:00:00Z", "verified": 0, "failed": 0}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def weekly(level: str = "Checksum", **spec: Any) -> dict[str, Any]:
    """The spec of a schedule that also verifies, on Sundays at five."""
    return {"verification": {"schedule": "0 5 * * 0", "level": level}, "retention": None, **spec}


def of_day(day: int, state: str = "Succeeded", tenant: str = "acme", **fields: Any) -> BackupSummary:
    """A backup of that day in January, verified by whoever stored it."""
    return made(datetime(2024, 1, day, 2, 0, tzinfo=UTC), state, tenant=tenant, **fields)


def seen(
    *backups: BackupSummary, status: dict[str, Any] = DUE, spec: dict[str, Any] | None = None, **fields: Any
) -> ScheduleSeen:
    """One look at the schedule."""
    found = schedule(weekly() if spec is None else spec)
    return schedule_seen(schedule=found, status=status, backups=backups, **fields)


def requests(plan: Plan) -> list[tuple[str, str]]:
    """The verifications a plan asks for: backup and value."""
    found = [action for action in plan.actions if isinstance(action, RequestVerification)]
    return [(action.name, action.value) for action in found]


def told(plan: Plan) -> list[str]:
    """What a plan says about missed slots of verifications."""
    found = [action for action in plan.actions if isinstance(action, Announce)]
    missed = [action.message for action in found if action.reason is Reason.SCHEDULE_MISSED]
    return [message for message in missed if message.startswith("no verifications")]


def status_of(plan: Plan) -> dict[str, Any]:
    """What a plan says about verifications."""
    assert plan.status is not None
    return dict(plan.status["verification"])


def opened(pending: int = 1, **fields: Any) -> dict[str, Any]:
    """The status of a schedule whose slot is open."""
    return RAN | {"verification": OPEN | {"pending": pending, **fields}}


# --- what is asked for


def test_in_a_slot_the_newest_good_backup_of_each_tenant_is_asked_for() -> None:
    """By an annotation that is a function of level, schedule and slot, on the backup as it was read."""
    plan = decide(seen(of_day(13), of_day(14), of_day(14, tenant="beta"), tenants=("acme", "beta")), AFTER)
    assert requests(plan) == [
        ("nightly-acme-202401140200", REQUEST),
        ("nightly-beta-202401140200", REQUEST),
    ]
    assert [action.version for action in plan.actions if isinstance(action, RequestVerification)] == [
        "1",
        "1",
    ]
    assert status_of(plan) == OPEN | {"pending": 2}
    assert plan.retry_in is not None
    assert plan.retry_in <= HOUR.total_seconds()


def test_before_the_slot_nothing_is_asked_for() -> None:
    """And whoever sleeps until then is awake in time."""
    plan = decide(seen(of_day(14)), SLOT - timedelta(minutes=3))
    assert requests(plan) == []
    assert plan.retry_in == 180


@pytest.mark.parametrize(
    "newest",
    [
        {"state": "Failed"},
        {"state": "Running"},
        {"state": "Expired"},
        {"health": "Corrupt"},
        {"removing": True},
        {"removing": True, "awaited": True},
        {"store": "gone"},
    ],
    ids=str,
)
def test_what_cannot_be_verified_gives_way_to_the_newest_that_can(newest: dict[str, Any]) -> None:
    """A backup that is not good, is going away, or whose BackupStore is gone."""
    assert requests(decide(seen(of_day(13), of_day(14, **newest)), AFTER)) == [
        ("nightly-acme-202401130200", REQUEST)
    ]


def test_without_a_good_backup_there_is_nothing_to_do() -> None:
    """The slot is over at once; a Tenant that is not chosen any more is nobody's."""
    plan = decide(seen(of_day(14, "Failed"), of_day(14, tenant="gone")), AFTER)
    assert requests(plan) == []
    assert status_of(plan) == OPEN | {"pending": 0}


def test_a_held_backup_is_verified_like_any_other() -> None:
    """Reading takes nothing away."""
    assert len(requests(decide(seen(of_day(14, held=True)), AFTER))) == 1


@pytest.mark.parametrize(
    ("level", "known", "asks"),
    [
        ("Checksum", {"verified": LATER, "answered": "mine"}, False),
        ("Checksum", {"verified": LATER}, True),  # the run that stored it read a seventh of the older packs
        ("Checksum", {"verified": SLOT - HOUR, "answered": "mine"}, True),
        ("Checksum", {"verified": LATER, "level": "Contents"}, False),
        ("Checksum", {"verified": LATER, "answered": "mine", "doubted": LATER}, True),
        ("Contents", {"verified": LATER, "answered": "mine"}, True),
        ("Contents", {"verified": LATER, "level": "Contents"}, False),
        ("Contents", {"verified": LATER, "level": "Contents", "doubted": LATER}, True),
        ("Contents", {"verified": None, "health": "Unknown", "level": ""}, True),
    ],
)
def test_what_was_read_whole_since_the_slot_is_not_read_again(
    level: str, known: dict[str, Any], asks: bool
) -> None:
    """At that level or a deeper one; what could not be verified, or only in part, is."""
    plan = decide(seen(of_day(14, **known), status=opened(), spec=weekly(level)), LATER + HOUR)
    assert len(requests(plan)) == asks
    assert (status_of(plan)["verified"], status_of(plan)["pending"]) == (not asks, asks)


@pytest.mark.parametrize("day", [13, 14])
def test_what_somebody_asked_for_is_waited_for(day: int) -> None:
    """A newer request would stop it; the first verification of a large backup is no other."""
    backups = [of_day(number, awaited=number == day) for number in (13, 14)]
    plan = decide(seen(*backups), AFTER)
    assert requests(plan) == []
    assert status_of(plan)["pending"] == 1


def test_what_a_person_asked_for_counts_if_it_is_deep_enough() -> None:
    """Else the schedule asks once it is answered."""
    for level, asks in (("Checksum", 0), ("Contents", 1)):
        answered = of_day(14, verified=LATER, answered="Checksum, please")
        plan = decide(seen(answered, status=opened(), spec=weekly(level)), LATER + HOUR)
        assert len(requests(plan)) == asks


def test_a_verification_that_waits_for_a_store_that_is_gone_keeps_nobody_waiting() -> None:
    """It may wait for ever."""
    stuck = of_day(13, tenant="acme", awaited=True, store="gone")
    plan = decide(seen(stuck, of_day(14), at_once=1), AFTER)
    assert requests(plan) == [("nightly-acme-202401140200", REQUEST)]


# --- a few at a time


def test_hundreds_of_tenants_are_verified_a_few_at_a_time() -> None:
    """The next ones when those have ended; the world counts them."""
    names = [f"tenant-{number:04}" for number in range(300)]
    world = World.of(names, SLOT - DAY, **weekly())
    world.at_once, shortly_before = 10, SLOT + timedelta(minutes=29, seconds=1)
    world.live(SLOT - DAY, shortly_before)
    assert [one.tenant for one in world.asked[:10]] == names[:10]
    assert {one.moment for one in world.asked[:10]} == {SLOT}
    assert world.asked[10].moment == SLOT + timedelta(minutes=1)
    assert world.status["verification"] == OPEN | {"verified": 290, "pending": 10}
    world.live(shortly_before, SLOT + HOUR)
    assert sorted(one.tenant for one in world.asked) == names
    assert world.status["verification"] == OPEN | {"verified": 300, "pending": 0}


def test_requests_that_are_under_way_take_their_places() -> None:
    """Whoever looks again, or for the first time after a crash, counts them."""
    names = ("acme", "beta", "gamma", "delta")
    waiting = [of_day(14, tenant=name) for name in names[2:]]
    under_way = [of_day(14, tenant=name, awaited=True) for name in names[:2]]
    for at_once, expected in ((1, 0), (2, 0), (3, 1), (None, 2)):
        plan = decide(seen(*under_way, *waiting, tenants=names, at_once=at_once), AFTER)
        assert len(requests(plan)) == expected
        assert status_of(plan)["pending"] == 4


# --- how it ends


@pytest.mark.parametrize(
    ("found", "result"),
    [
        ({"verified": LATER}, "verified"),
        ({"verified": None, "doubted": LATER, "health": "Corrupt"}, "failed"),
        ({"verified": SLOT - 3 * HOUR, "doubted": LATER}, "failed"),  # it could not be verified
        ({"verified": None, "doubted": LATER, "health": "Degraded"}, "failed"),
    ],
    ids=["healthy", "corrupt", "not done", "degraded"],
)
def test_an_answer_ends_the_turn_of_the_tenant(found: dict[str, Any], result: str) -> None:
    """Whatever it is: an older backup is not looked at in its place."""
    plan = decide(seen(of_day(13), of_day(14, answered=REQUEST, **found), status=opened()), LATER + HOUR)
    assert requests(plan) == []
    status = status_of(plan)
    assert (status["verified"], status["failed"]) == (result == "verified", result == "failed")
    assert status.get("failing") == (["acme"] if result == "failed" else None)


def test_the_list_of_those_that_failed_is_short() -> None:
    """All are counted."""
    names = [f"t{number:02}" for number in range(30)]
    failed = [of_day(14, tenant=name, answered=REQUEST, doubted=LATER) for name in names]
    status = status_of(decide(seen(*failed, tenants=tuple(names), status=opened(30)), LATER))
    assert (status["failed"], status["failing"]) == (30, names[:20])


def test_what_a_slot_came_to_stays_until_the_next_one() -> None:
    """New backups, deleted ones, and what a person asks for change nothing any more."""
    done = decide(seen(of_day(14, answered=REQUEST, verified=LATER), status=opened()), LATER)
    assert done.status is not None
    assert status_of(done) == OPEN | {"verified": 1, "pending": 0}
    again = decide(seen(of_day(14, "Running"), of_day(13), status=dict(done.status)), LATER + HOUR)
    assert requests(again) == []
    assert status_of(again) == status_of(done)


def test_an_unchanged_schedule_is_not_written() -> None:
    """Before a slot, in an open one, and after it."""
    for backup, status in (
        (of_day(14), DUE),
        (of_day(14, awaited=True), opened()),
        (of_day(14), opened(0, verified=1)),
    ):
        now = SLOT - HOUR if status is DUE else LATER
        first = decide(seen(backup, status=status), now)
        assert first.status is not None
        again = decide(seen(backup, status=dict(first.status)), now + timedelta(minutes=7))
        assert (again.actions, again.status) == ((), first.status)


# --- slots


def test_verifications_begin_with_the_first_slot_after_they_were_asked_for() -> None:
    """Nobody wants a thousand Jobs at the moment of a change."""
    plan = decide(seen(of_day(14), status=RAN), LATER)
    assert requests(plan) == []
    assert status_of(plan) == {"nextRun": "2024-01-21T05:00:00Z"}


def test_a_changed_schedule_begins_with_its_next_slot() -> None:
    """From five o'clock to ten, at noon: ten o'clock today is nobody's slot."""
    spec = weekly()
    spec["verification"] = {"schedule": "0 10 * * *"}
    plan = decide(seen(of_day(14), status=opened(0), spec=spec), SLOT + 7 * HOUR)
    assert requests(plan) == []
    assert status_of(plan)["nextRun"] == "2024-01-15T10:00:00Z"


def test_what_is_taken_out_of_the_spec_leaves_the_status() -> None:
    """What was asked for already is answered all the same."""
    plan = decide(seen(of_day(14, awaited=True), status=opened(), spec={"retention": None}), LATER)
    assert requests(plan) == []
    assert plan.status is not None
    assert "verification" not in plan.status


@pytest.mark.parametrize(
    ("spec", "late", "runs"),
    [
        ({}, 4 * HOUR, True),
        ({}, 4 * HOUR + timedelta(seconds=1), False),
        ({"missedRuns": "Skip"}, timedelta(minutes=5), True),
        ({"missedRuns": "Skip"}, timedelta(minutes=6), False),
    ],
)
def test_a_missed_slot_is_made_up_for_as_one_of_backups_is(
    spec: dict[str, str], late: timedelta, runs: bool
) -> None:
    """Once; what is too late is told and the next slot is as usual."""
    plan = decide(seen(of_day(14), spec=weekly(**spec)), SLOT + late)
    assert len(requests(plan)) == runs
    late_one = "no verifications in slot 2024-01-14T05:00:00Z: the operator did not run in time"
    assert told(plan) == ([] if runs else [late_one])
    assert status_of(plan)["nextRun"] == "2024-01-21T05:00:00Z"
    assert ("lastRun" in status_of(plan)) == runs


def test_after_a_month_of_silence_one_slot_is_run_and_the_others_are_told() -> None:
    """One verification of each tenant, not four."""
    status = RAN | {"verification": {"nextRun": "2023-12-24T05:00:00Z"}}
    plan = decide(seen(of_day(14), status=status), AFTER)
    assert len(requests(plan)) == 1
    assert told(plan) == [
        "no verifications in 3 slots from 2023-12-24T05:00:00Z on: the operator did not run in time"
    ]


def test_a_slot_that_comes_while_one_is_open_is_told_and_not_begun() -> None:
    """So that nothing piles up, and the last tenant has its turn as well."""
    names = ("acme", "beta")
    backups = (of_day(14, awaited=True), of_day(14, tenant="beta"))
    plan = decide(seen(*backups, tenants=names, at_once=2, status=opened(2)), SLOT + 7 * DAY + HOUR)
    assert told(plan) == [
        "no verifications in slot 2024-01-21T05:00:00Z: the verification before it has not ended"
    ]
    assert requests(plan) == [("nightly-beta-202401140200", REQUEST)]
    assert status_of(plan) == OPEN | {"pending": 2, "nextRun": "2024-01-28T05:00:00Z"}


def test_a_suspended_schedule_asks_for_nothing_and_makes_up_for_nothing() -> None:
    """An open slot is over, too; what is under way goes on."""
    status = opened(1, verified=3)
    plan = decide(seen(of_day(14), status=status, spec=weekly(suspend=True)), LATER)
    assert requests(plan) == []
    assert status_of(plan) == {"lastRun": "2024-01-14T05:00:00Z", "verified": 3, "failed": 0}
    assert plan.status is not None
    resumed = decide(seen(of_day(14), status=dict(plan.status)), SLOT + 7 * DAY + HOUR)
    assert (requests(resumed), told(resumed)) == ([], [])
    assert status_of(resumed)["nextRun"] == "2024-01-28T05:00:00Z"


def test_an_expression_that_cannot_be_read_is_told_and_backups_go_on() -> None:
    """Stalled, because a person must correct it."""
    spec = weekly()
    spec["verification"] = {"schedule": "99 5 * * 0"}
    before = {"lastRun": "2024-01-13T02:00:00Z", "settledThrough": "2024-01-13T02:00:00Z"}
    plan = decide(seen(of_day(13), status=before, spec=spec), SLOT - 2 * HOUR)
    assert len([action for action in plan.actions if isinstance(action, CreateBackup)]) == 1
    stalled = condition(plan.status, "Stalled")
    assert stalled["reason"] == Reason.INVALID_SPEC
    assert stalled["message"].startswith("spec.verification: schedule '99 5 * * 0' cannot be read: ")
    assert plan.status is not None
    assert "verification" not in plan.status


@pytest.mark.parametrize("zone", ["Europe/Rome", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "start", [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 9, 30, tzinfo=UTC)], ids=str
)
def test_each_sunday_has_one_verification_where_clocks_change(zone: str, start: datetime) -> None:
    """They change on Sundays: the hour that is skipped, and the one that comes twice, count once."""
    spec = {"verification": {"schedule": "30 2 * * 0"}, "schedule": "0 12 * * *"}
    world = World.of(["acme"], start, **spec, timeZone=zone)
    for day in range(40):
        world.live(start + day * DAY, start + (day + 1) * DAY)
        world.forget(1)
    local = [one.moment.astimezone(ZoneInfo(zone)) for one in world.asked]
    assert {moment.strftime("%A") for moment in local} == {"Sunday"}
    assert {later.date() - earlier.date() for earlier, later in pairwise(local)} == {7 * DAY}
    assert len(local) in (5, 6)
    assert world.told == []


# --- an operator that comes and goes


@pytest.mark.parametrize("actions", range(4))
def test_whoever_dies_in_a_slot_finds_what_was_asked(actions: int) -> None:
    """After any number of annotations, with no status of it: each tenant is asked once."""
    world = World.of(["acme", "beta", "gamma"], SLOT - DAY, **weekly())
    world.live(SLOT - DAY, SLOT)
    world.look(SLOT, die_after=actions)
    assert len(world.asked) == actions
    world.live(SLOT + HOUR, SLOT + 2 * HOUR)
    assert sorted((one.tenant, one.value) for one in world.asked) == [
        (name, REQUEST) for name in ("acme", "beta", "gamma")
    ]
    assert world.status["verification"] == OPEN | {"verified": 3, "pending": 0}


@st.composite
def absences(draw: st.DrawFn) -> list[tuple[timedelta, timedelta, int]]:
    """When the operator dies, for how long, and after how many of that look's actions."""
    gaps = st.timedeltas(timedelta(), timedelta(hours=5))
    return draw(st.lists(st.tuples(gaps, gaps, st.integers(0, 4)), max_size=5))


@settings(deadline=None, max_examples=25)
@given(
    absences(),
    st.sampled_from(["@hourly", "30 */2 * * *"]),
    st.sampled_from(["RunOnce", "Skip"]),
    st.sampled_from([1, 2, None]),
)
def test_no_slot_is_lost_without_a_word_however_the_operator_comes_and_goes(
    comings: list[tuple[timedelta, timedelta, int]], cron: str, missed: str, at_once: int | None
) -> None:
    """What is asked twice, or too many at once, fails inside the world."""
    names = ["acme", "beta", "gamma"]
    start = datetime(2024, 3, 30, 3, tzinfo=UTC)
    verification = {"schedule": cron, "level": "Contents"}
    world = World.of(names, start, verification=verification, missedRuns=missed, timeZone="Europe/Rome")
    world.at_once, world.reading = at_once, timedelta(minutes=5)
    world.live(start, start + DAY)  # so that there is something to verify
    now = begin = start + DAY
    world.look(now)
    for alive, away, actions in comings:
        world.live(now, now + alive)
        world.look(now + alive, die_after=actions)
        now += alive + away
    end = now + timedelta(hours=9)
    world.live(now, end)

    parsed = Schedule.parse(cron, "Europe/Rome")
    slots = [slot for slot in parsed.next_runs(begin, 100) if slot < end - HOUR]
    for slot in slots:
        request = f"Contents nightly {slot:%Y-%m-%dT%H:%M:%SZ}"
        read = {
            one.tenant
            for one in world.asked
            if one.value == request or one.moment <= slot <= one.moment + world.reading
        }
        assert read == set(names) or _is_told(world.told, parsed, slot), f"{slot}: {read}"


def _is_told(messages: list[str], parsed: Schedule, slot: datetime) -> bool:
    for message in messages:
        what, _, rest = message.partition(" from " if " slots from " in message else " in slot ")
        if what.startswith("no verifications"):
            first = datetime.fromisoformat(rest[:20])
            number = int(what.split()[3]) if "slots" in what else 1
            if slot in parsed.next_runs(first - timedelta(seconds=1), number):
                return True
    return False


# --- retention, and what is remembered of a backup


@pytest.mark.parametrize("known", [{"awaited": True}, {"answered": REQUEST}], ids=str)
def test_retention_leaves_what_an_open_slot_reads(known: dict[str, Any]) -> None:
    """Else the tenant would begin again with a newer one, and a third tenant never have its turn."""
    old = of_day(11, **known)
    rules = "keepLast 1, keepFailed 3 in Etc/UTC"
    shown = {"retention": {"rules": rules, "deletesFrom": "2024-01-14T00:00:00Z"}}
    for status, expected in ((opened(), []), (opened(0), [old.name])):
        plan = decide(
            seen(
                old,
                of_day(14, answered=REQUEST, verified=LATER),
                status=status | shown,
                spec=weekly(retention={"keepLast": 1}),
                read_afresh=frozenset({"acme"}),
            ),
            LATER,
        )
        deleted = [action.name for action in plan.actions if isinstance(action, DeleteBackup)]
        assert deleted == expected


ENDED = {"completedAt": "2024-01-14T02:01:00Z"}


@pytest.mark.parametrize(
    ("state", "done", "asked", "expected"),
    [
        ("Running", {}, "x", (False, "", "")),
        ("Succeeded", {}, "", (True, "", "")),
        ("Succeeded", ENDED | {"level": "Checksum"}, "", (False, "Checksum", "")),
        ("Succeeded", ENDED | {"level": "Contents", "requested": "x"}, "x", (False, "Contents", "x")),
        ("Succeeded", ENDED | {"level": "Contents", "requested": "x"}, "y", (True, "Contents", "x")),
    ],
)
def test_what_is_remembered_of_a_backups_verification(
    state: str, done: dict[str, str], asked: str, expected: tuple[bool, str, str]
) -> None:
    """Whether one is to come, how deep the last one was, and what had asked for it."""
    annotations = {"tenantbackup.dev/verify": asked} if asked else {}
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    found = document("TenantBackup", "acme-1", spec, annotations=annotations)
    summary = of_backup(found | {"status": {"state": state, "verification": done}})
    assert (summary.awaited, summary.level, summary.answered) == expected


def test_the_turn_of_a_tenant_that_comes_into_an_open_slot_is_in_it() -> None:
    """And one that is deleted meanwhile is nobody's any more."""
    tenants = (remembered("beta"), remembered("new", "2024-01-14T05:10:00Z"))
    backups = (of_day(14, awaited=True), of_day(14, tenant="beta"), of_day(14, tenant="new"))
    plan = decide(seen(*backups, tenants=tenants, status=opened(2)), LATER)
    assert [name for name, _value in requests(plan)] == [
        "nightly-beta-202401140200",
        "nightly-new-202401140200",
    ]

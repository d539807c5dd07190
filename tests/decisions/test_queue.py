"""Who backs up next: budgets hold, the order holds, and everybody has a turn, whatever keeps arriving."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.backup import decide, is_at_work, wants_to_start
from tenant_backup.decisions.queue import (
    HEAD_START,
    REFRESH,
    Budget,
    Budgets,
    Contender,
    Place,
    fits,
    may_start,
    queue_status,
    server_of,
    steady,
    turn,
    why_not,
)
from tests.decisions.objects import NOW, at, backup, backup_seen, condition, job, tenant

ROOMY = Budgets(Budget(100, 100), {})


def one(name: str, schedule: str = "", server: str = "pg:5432", seconds: float = 0) -> Contender:
    """A backup created that many seconds after NOW."""
    return Contender(f"uid-{name}", "backups", name, schedule, server, at(seconds))


def names(chosen: tuple[Contender, ...]) -> list[str]:
    """Their names, in order."""
    return [contender.name for contender in chosen]


def lined_up(*waiting: Contender) -> list[Contender]:
    """The line they form."""
    return sorted(waiting, key=turn)


def test_manual_backups_go_before_scheduled_ones_and_older_before_younger() -> None:
    """Of equal age the name decides, so that two looks agree."""
    line = lined_up(
        one("s-old", "nightly", seconds=-60),
        one("s-new", "nightly"),
        one("m-new"),
        one("m-old", seconds=-10),
        one("m-also-new"),
    )
    assert names(may_start((), line, ROOMY)) == ["m-old", "m-also-new", "m-new", "s-old", "s-new"]


def test_a_scheduled_backup_that_has_waited_a_day_longer_goes_before_a_manual_one() -> None:
    """Or it would never run while people keep asking."""
    waited = one("s", "nightly", seconds=-HEAD_START.total_seconds() - 1)
    assert names(may_start((), lined_up(one("m"), waited), Budgets(Budget(1, 1), {}))) == ["s"]


def test_a_busy_server_stops_nobody_elsewhere() -> None:
    """However many wait for it, and however long."""
    stuck = [one(f"slow-{number}", server="slow:5432", seconds=-100) for number in range(50)]
    line = lined_up(*stuck, one("quick", server="quick:5432"))
    running = [one("running", server="slow:5432", seconds=-200)]
    assert names(may_start(running, line, Budgets(Budget(10, 1), {}))) == ["quick"]


def test_each_budget_is_one_limit_of_its_own() -> None:
    """Operator, server, schedule, schedule on a server: the tightest decides, and is named."""
    running = [one("a", "nightly", "x:1"), one("b", "nightly", "y:1")]
    asks = one("c", "nightly", "x:1")
    own = {("backups", "nightly"): Budget(3, 1)}
    cases = [
        (Budgets(Budget(2, 9), {}), "2 of 2 backups of the operator are running"),
        (Budgets(Budget(9, 1), {}), "1 of 1 backups of database server x:1 are running"),
        (
            Budgets(Budget(9, 9), {("backups", "nightly"): Budget(2)}),
            "2 of 2 backups of BackupSchedule nightly are running",
        ),
        (
            Budgets(Budget(9, 9), own),
            "1 of 1 backups of BackupSchedule nightly on database server x:1 are running",
        ),
    ]
    for budgets, why in cases:
        assert may_start(running, [asks], budgets) == ()
        assert not fits(running, asks, budgets)
        assert why_not(running, asks, budgets) == why
    assert names(
        may_start(running, [asks], Budgets(Budget(3, 2), {("backups", "nightly"): Budget(3, 2)}))
    ) == ["c"]


def test_the_budget_of_a_schedule_is_not_that_of_its_namesake_elsewhere() -> None:
    """Schedules are called alike in many namespaces."""
    budgets = Budgets(Budget(), {("elsewhere", "nightly"): Budget(0, 0)})
    assert names(may_start((), [one("a", "nightly")], budgets)) == ["a"]


def test_what_runs_beyond_a_budget_that_was_lowered_ends_by_itself() -> None:
    """Nothing new starts until then."""
    running = [one(str(number)) for number in range(5)]
    budgets = Budgets(Budget(3, 3), {})
    assert may_start(running, [one("next")], budgets) == ()
    assert may_start(running[:3], [one("next")], budgets) == ()
    assert names(may_start(running[:2], [one("next")], budgets)) == ["next"]


def test_who_needs_two_places_that_never_come_free_together_gets_them_nonetheless() -> None:
    """Server and schedule free up in turns, and younger ones are there for each of them every time."""
    budgets = Budgets(Budget(10, 1), {("backups", "s"): Budget(1)})
    victim = one("victim", "s", "x:1")
    running = [one("x-0", "t", "x:1"), one("y-0", "s", "y:1")]
    fresh = count(1)
    for ending in ("y", "x") * 3:
        running = [other for other in running if other.name[0] != ending]
        number = next(fresh)
        line = lined_up(
            victim, one(f"x-{number}", "t", "x:1", number), one(f"y-{number}", "s", "y:1", number)
        )
        started = may_start(running, line, budgets)
        if victim in started:
            return
        running += started
    raise AssertionError("it was passed over again and again")


def test_a_place_is_rewritten_once_an_hour_and_not_with_each_backup_that_starts() -> None:
    """A thousand that wait would otherwise be a thousand writes each time."""
    first = queue_status(Place(800, "why", NOW))
    assert first == {"position": 800, "message": "why", "updatedAt": "2024-01-15T14:30:25Z"}
    soon = NOW + REFRESH - timedelta(seconds=1)
    assert steady(Place(799, "other", soon), first) == Place(800, "why", NOW)
    later = Place(5, "other", NOW + REFRESH)
    assert steady(later, first) == later
    assert steady(later, {}) == later


PLACE = Place(812, "4 of 4 backups of database server pg:5432 are running", NOW)


def test_a_backup_that_has_to_wait_says_where_it_stands_and_why_and_starts_nothing() -> None:
    """It heals by itself: nobody is called for it."""
    plan = decide(backup_seen(place=PLACE), NOW)
    assert plan.actions == ()
    assert plan.status
    assert plan.status["state"] == "Queued"
    assert plan.status["queue"] == queue_status(PLACE)
    said = condition(plan.status, "Reconciling")
    assert (said["reason"], said["message"]) == (
        Reason.QUEUED,
        "number 812 in the queue at 14:30 UTC: 4 of 4 backups of database server pg:5432 are running",
    )
    assert plan.retry_in == REFRESH.total_seconds()
    place = steady(Place(3, "other", at(60)), plan.status["queue"])
    assert decide(backup_seen(status=plan.status, place=place), at(60)).status == plan.status


def test_a_queued_backup_forgets_its_place_when_it_starts() -> None:
    """Or when it can no longer start."""
    queued = {"state": "Queued", "queue": queue_status(PLACE)}
    for seen, state in (
        (backup_seen(status=queued), "Running"),
        (backup_seen(status=queued, store=None), "Pending"),
    ):
        plan = decide(seen, NOW)
        assert plan.status
        assert plan.status["state"] == state
        assert "queue" not in plan.status


def test_only_what_could_start_at_once_asks_for_a_place() -> None:
    """A backup without a store, with a Job, finished or being deleted takes nobody's turn."""
    assert wants_to_start(backup_seen())
    assert wants_to_start(backup_seen(status={"state": "Queued"}))
    unable = [
        backup_seen(store=None),
        backup_seen(tenant=tenant(keys=False)),
        backup_seen(jobs=(job(),)),
        backup_seen(status={"state": "Failed"}),
        backup_seen(backup=backup(deletionTimestamp="2024-01-15T14:30:21Z")),
    ]
    assert not any(wants_to_start(seen) for seen in unable)
    assert is_at_work(backup_seen(jobs=(job(),)))
    assert not is_at_work(backup_seen(status={"state": "Succeeded"}, jobs=(job(),)))


def test_a_host_without_a_dot_is_a_server_of_its_namespace() -> None:
    """Two namespaces may both call their database `pg`."""
    assert server_of("a", "pg", 5432) == "pg.a.svc:5432"
    assert server_of("a", "PG.databases.svc", 5432) == "pg.databases.svc:5432"


SERVERS = ("x:1", "y:1", "z:1")
SCHEDULES = ("", "s", "t")
LONGEST = 4  # steps a run takes at most
limits = st.one_of(st.none(), st.integers(1, 3))
budgets = st.builds(Budget, limits, limits)
all_budgets = st.builds(
    lambda operator, s, t: Budgets(operator, {("backups", "s"): s, ("backups", "t"): t}),
    st.builds(Budget, st.integers(1, 4), limits),
    budgets,
    budgets,
)
arrivals = st.lists(
    st.tuples(st.sampled_from(SCHEDULES), st.sampled_from(SERVERS), st.integers(1, LONGEST)), max_size=4
)


def shares(contender: Contender) -> set[tuple[str, str]]:
    """What a backup is counted under: schedule (empty: all) and server (empty: all)."""
    return {(scope, server) for scope in {"", contender.schedule} for server in {"", contender.server}}


def room(running: list[Contender], limits: Budgets) -> dict[tuple[str, str], int]:
    """How many more each budget allows; the slow and obvious way."""
    left = {}
    for scope in SCHEDULES:
        budget = limits.schedules.get(("backups", scope), Budget()) if scope else limits.operator
        for server in ("", *SERVERS):
            limit = budget.per_server if server else budget.total
            used = sum((scope, server) in shares(contender) for contender in running)
            left[scope, server] = 99 if limit is None else limit - used
    return left


@given(all_budgets, st.lists(arrivals, min_size=1, max_size=30))
def test_budgets_are_never_exceeded_and_nobody_is_overtaken_who_could_have_started(
    limits: Budgets, story: list[list[tuple[str, str, int]]]
) -> None:
    """And whoever is left waiting has a budget that is used up, or waits for the first of the line."""
    running: list[Contender] = []
    line: list[Contender] = []
    ends: Counter[str] = Counter()
    for step, arriving in enumerate(story):
        running = [contender for contender in running if ends[contender.uid] > step]
        for number, (schedule, server, duration) in enumerate(arriving):
            line.append(one(f"{step}-{number}", schedule, server, step))
            ends[line[-1].uid] = step + duration
        line.sort(key=turn)
        started = may_start(running, line, limits)
        assert sorted(started, key=turn) == list(started)
        head = next((contender for contender in line if contender not in started), None)
        for contender in line:
            before = [*running, *(other for other in started if turn(other) < turn(contender))]
            left = room(before, limits)
            full = {share for share in shares(contender) if left[share] <= 0}
            if contender in started:
                assert not full
            else:
                assert full or (head and head != contender and head.server == contender.server)
        running += started
        line = [contender for contender in line if contender not in started]
        assert min(room(running, limits).values()) >= 0


@given(all_budgets, arrivals, st.lists(arrivals, min_size=60, max_size=60))
def test_everybody_starts_whatever_arrives(
    limits: Budgets, first: list[tuple[str, str, int]], story: list[list[tuple[str, str, int]]]
) -> None:
    """Each of the first of the line within two runs of becoming its head, against endless younger ones."""
    line = [one(f"first-{n}", what, server) for n, (what, server, _) in enumerate(first)]
    waiting = {contender.uid for contender in line}
    ends = {contender.uid: duration for contender, (_, _, duration) in zip(line, first, strict=True)}
    running: list[Contender] = []
    for step, arriving in enumerate(story):
        running = [contender for contender in running if ends[contender.uid] > step]
        for number, (schedule, server, duration) in enumerate(arriving):
            # Manual ones too: so late that their head start no longer helps.
            late = step + HEAD_START.total_seconds() + 1
            line.append(one(f"{step}-{number}", schedule, server, late))
            ends[line[-1].uid] = duration
        line.sort(key=turn)
        started = may_start(running, line, limits)
        for contender in started:
            ends[contender.uid] += step
            waiting.discard(contender.uid)
        running += started
        line = [contender for contender in line if contender not in started]
    assert len(first) * (2 * LONGEST + 2) <= len(story)
    assert not waiting

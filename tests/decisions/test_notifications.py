"""Who is told what: everything at least once, nothing twice without a crash, however late it is seen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_backup.api import BackupNotifier
from tenant_backup.api.backup_notifier import TOLD_LIMIT
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.news import News, Objects, news
from tenant_backup.decisions.notifications import BATCH, GIVE_UP, SETTLE, decide
from tenant_backup.decisions.observed import Errand, NotifierSeen, Problem
from tenant_backup.decisions.plan import Announce, Deliver, Plan
from tenant_backup.decisions.summaries import of_backup, of_restore, of_store, of_tenant

from .objects import PLATFORM, at, condition, document

EVERYTHING = [
    "BackupFailed",
    "BackupSucceeded",
    "BackupMissed",
    "RestoreSucceeded",
    "RestoreFailed",
    "VerificationFailed",
    "StoreNearlyFull",
]
SECRET = {"name": "ops"}
WEBHOOK = {"urlSecretRef": SECRET, "signingSecretRef": SECRET}
HEARTBEAT = {"urlSecretRef": SECRET}
DOWN = Problem(Reason.DELIVERY_FAILED, "the connection was refused")
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def notifier(spec: dict[str, Any] | None = None, **metadata: Any) -> BackupNotifier:
    """BackupNotifier ops, made at 14:30:20, told everything by webhook."""
    known = {"events": EVERYTHING, "webhook": WEBHOOK} if spec is None else spec
    return BackupNotifier.model_validate(document("BackupNotifier", "ops", known, **metadata))


def backup(name: str, completed: datetime, state: str = "Failed", tenant: str = "acme", **status: Any) -> Any:
    """The summary of a backup that ended then."""
    found = document("TenantBackup", name, {"tenantRef": {"name": tenant}, "storeRef": {"name": "prod"}})
    conditions = [{"type": "Succeeded", "reason": "DumpFailed", "message": "no space left"}]
    ended = {"state": state, "completedAt": rfc3339(completed), "conditions": conditions}
    return of_backup(found | {"status": ended | status})


def with_condition(kind: str, name: str, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An object with one condition that is False since a second after NOW."""
    found = document(kind, name, spec)
    false = {"status": "False", "lastTransitionTime": rfc3339(at(1)), "message": "see there"}
    return found | {"status": {"conditions": [false | fields]}}


def tenant(name: str = "acme", **labels: str) -> Any:
    """The summary of a Tenant."""
    return of_tenant(document("Tenant", name, {}, labels=labels))


def seen(objects: Objects, status: dict[str, Any] | None = None, **fields: Any) -> NotifierSeen:
    """One look at the notifier; its Secrets have been read."""
    known: dict[str, Any] = {
        "notifier": notifier(),
        "status": status or {},
        "objects": objects,
        "errands": {"Webhook": Errand(1, at(0)), "Heartbeat": Errand(1, at(0))},
        "platform": PLATFORM,
    }
    return NotifierSeen(**(known | fields))


def told(plan: Plan) -> list[News]:
    """What a plan delivers."""
    return [one for action in plan.actions if isinstance(action, Deliver) for one in action.news]


def events(found: Iterable[News]) -> list[str]:
    """The events."""
    return [one.event for one in found]


# what is news


def test_what_ended_is_news_of_when_it_ended() -> None:
    """Failed and good backups, each with what is known of it."""
    asked = backup("b", at(2), "Succeeded", requestedBy="ann", bytes={"stored": 5}, startedAt=rfc3339(at(0)))
    first, second = news(Objects((backup("a", at(1)), asked)), at(0))
    assert (first.event, first.time, first.tenant) == ("BackupFailed", at(1), "acme")
    assert first.data["reason"] == "DumpFailed"
    assert first.message == "no space left"
    assert (second.event, second.message) == ("BackupSucceeded", "")
    assert second.data["requestedBy"] == "ann"
    assert (second.data["seconds"], second.data["bytes"]) == (2.0, {"stored": 5})


def test_a_backup_that_still_runs_or_ended_before_is_no_news() -> None:
    running = backup("a", at(5), "Running")
    assert news(Objects((backup("b", at(0)), replace(running, completed=None))), at(0)) == []


def test_a_verification_that_failed_is_news_of_when_it_ended() -> None:
    """Also one that could not be done; one that found it Healthy is none, nor the backup that is Corrupt."""
    done = {"completedAt": rfc3339(at(9)), "message": "packs/7f is damaged"}
    bad = backup("a", at(1), "Succeeded", health="Corrupt", verification=done)
    good = backup(
        "b", at(1), "Succeeded", health="Healthy", verification=done | {"healthyAt": rfc3339(at(9))}
    )
    found = news(Objects((bad, good)), at(0))
    assert [(one.name, one.event, one.time) for one in found] == [
        ("b", "BackupSucceeded", at(1)),
        ("a", "VerificationFailed", at(9)),
    ]
    assert found[1].message == "packs/7f is damaged"


def test_restores_missed_backups_and_full_stores_are_news() -> None:
    spec = {"source": {"backupRef": {"name": "b"}}, "target": {"tenantRef": {"name": "acme"}}}
    restored = document("TenantRestore", "r", spec | {"strategy": "Replace"})
    restored["status"] = {"state": "Undone", "completedAt": rfc3339(at(3))}
    missed = with_condition("Tenant", "acme", {}, type="ObjectivesMet", reason="BackupMissed")
    full = with_condition("BackupStore", "prod", {}, type="CapacityOk", reason="StoreNearlyFull")
    objects = Objects((), (of_restore(restored),), (of_tenant(missed),), (of_store(full),))
    found = {one.event: one for one in news(objects, at(0))}
    assert set(found) == {"RestoreSucceeded", "BackupMissed", "StoreNearlyFull"}
    assert found["BackupMissed"].data == {"reason": "BackupMissed", "message": "see there"}
    assert (found["StoreNearlyFull"].tenant, found["StoreNearlyFull"].name) == ("", "prod")


def test_an_id_is_a_function_of_object_event_and_time() -> None:
    """Whoever derives it when; another object of the same name has another."""
    first, again = (news(Objects((backup("a", at(1)),)), at(0))[0] for _ in range(2))
    assert first.id == again.id
    others = [
        replace(first, uid="uid-of-another"),
        replace(first, event="BackupSucceeded"),
        replace(first, time=at(2)),
    ]
    assert len({first.id, *(one.id for one in others)}) == 4


# who is told


def test_a_new_notifier_is_told_nothing_of_the_time_before_it() -> None:
    old, new = backup("old", at(-60)), backup("new", at(1))
    assert [one.name for one in told(decide(seen(Objects((old, new))), at(2)))] == ["new"]


def test_a_receiver_that_is_added_later_starts_then() -> None:
    spec = {"events": EVERYTHING, "webhook": WEBHOOK, "heartbeat": HEARTBEAT}
    first = decide(seen(Objects()), at(1)).status
    objects = Objects((backup("a", at(2), "Succeeded"),))
    plan = decide(seen(objects, dict(first or {}), notifier=notifier(spec)), at(9))
    assert {action.receiver: len(action.news) for action in plan.actions if isinstance(action, Deliver)} == {
        "Webhook": 1
    }


def test_only_the_events_that_are_named_are_told() -> None:
    objects = Objects((backup("a", at(1)), backup("b", at(2), "Succeeded")))
    only = notifier({"events": ["BackupFailed"], "webhook": WEBHOOK})
    assert events(told(decide(seen(objects, notifier=only), at(3)))) == ["BackupFailed"]


def test_who_asks_for_objectives_is_told_of_missed_backups() -> None:
    missed = of_tenant(with_condition("Tenant", "acme", {}, type="ObjectivesMet", reason="BackupMissed"))
    for asked in (["ObjectiveMissed"], ["BackupMissed"], ["ObjectiveMissed", "BackupMissed"]):
        only = notifier({"events": asked, "webhook": WEBHOOK})
        plan = decide(seen(Objects(tenants=(missed,)), notifier=only), at(3))
        assert events(told(plan)) == ["BackupMissed"]


def test_a_selector_chooses_tenants_by_label_and_leaves_stores_alone() -> None:
    full = of_store(with_condition("BackupStore", "prod", {}, type="CapacityOk", reason="StoreNearlyFull"))
    backups = (backup("a", at(1)), backup("b", at(1), tenant="beta"), backup("c", at(1), tenant="gone"))
    objects = Objects(backups, (), (tenant("acme", tier="gold"), tenant("beta", tier="tin")), (full,))
    gold = notifier(
        {"events": EVERYTHING, "webhook": WEBHOOK, "tenantSelector": {"matchLabels": {"tier": "gold"}}}
    )
    found = told(decide(seen(objects, notifier=gold), at(2)))
    assert sorted(one.name for one in found) == ["a", "prod"]


def test_a_heartbeat_is_pinged_for_successes_only() -> None:
    heart = notifier({"heartbeat": HEARTBEAT})
    objects = Objects((backup("a", at(1)), backup("b", at(2), "Succeeded")))
    assert [one.name for one in told(decide(seen(objects, notifier=heart), at(3)))] == ["b"]


# status


def test_secrets_are_read_before_a_notifier_is_ready() -> None:
    """Not in the night of the first failure."""
    plan = decide(seen(Objects(), errands={}), at(1))
    assert [action.news for action in plan.actions if isinstance(action, Deliver)] == [()]
    assert condition(plan.status, "Ready")["reason"] == "Pending"
    assert condition(decide(seen(Objects()), at(1)).status, "Ready")["status"] == "True"


def test_a_secret_that_may_not_be_read_stalls_it() -> None:
    problem = Problem(Reason.PERMISSION_DENIED, "run kubectl", needs_person=True)
    plan = decide(seen(Objects(), errands={"Webhook": Errand(1, at(0), problem=problem)}), at(1))
    assert condition(plan.status, "Stalled")["message"] == "Webhook: run kubectl"


def test_at_rest_nothing_is_written() -> None:
    """Nor while a delivery is under way, nor right after a restart."""
    status = decide(seen(Objects()), at(1)).status
    for errands in ({"Webhook": Errand(1, at(0))}, {"Webhook": Errand(1)}, {}):
        assert decide(seen(Objects(), dict(status or {}), errands=errands), at(2)).status == status


def test_what_was_delivered_is_recorded_before_more_is_told() -> None:
    """So that a crash repeats one batch, not two."""
    objects = Objects(tuple(backup(f"b{n}", at(1)) for n in range(BATCH["Webhook"] + 1)))
    first = told(decide(seen(objects), at(2)))
    assert len(first) == BATCH["Webhook"]
    errands = {"Webhook": Errand(1, at(3), tuple(one.id for one in first))}
    plan = decide(seen(objects, errands=errands), at(3))
    assert told(plan) == []
    assert told(decide(seen(objects, errands=errands), at(60))) == []
    status = dict(plan.status or {})
    assert (status["delivered"], status["lastDelivered"]) == (len(first), rfc3339(at(3)))
    gathering = decide(seen(objects, status, errands=errands), at(3))
    assert told(gathering) == []
    assert gathering.retry_in == pytest.approx(5.0)
    assert len(told(decide(seen(objects, status, errands=errands), at(8)))) == 1


def test_pauses_between_tries_grow() -> None:
    objects = Objects((backup("a", at(1)),))
    pauses = []
    for failures in (1, 2, 3, 30):
        errands = {"Webhook": Errand(1, at(5), problem=DOWN, failures=failures)}
        pauses.append(decide(seen(objects, errands=errands), at(5)).retry_in)
    assert pauses == [5.0, 10.0, 20.0, 600.0]


def test_a_changed_spec_is_tried_at_once() -> None:
    errands = {"Webhook": Errand(1, at(5), problem=DOWN, failures=30)}
    changed = notifier(generation=2)
    plan = decide(seen(Objects((backup("a", at(1)),)), errands=errands, notifier=changed), at(6))
    assert len(told(plan)) == 1


def test_what_nobody_took_for_a_day_is_given_up_and_said() -> None:
    """But only after a try: an operator that was down for two days tries first."""
    objects, later = Objects((backup("a", at(1)),)), at(1) + GIVE_UP
    assert len(told(decide(seen(objects), later))) == 1
    errands = {"Webhook": Errand(1, later, problem=DOWN, failures=9)}
    plan = decide(seen(objects, errands=errands), later)
    assert (plan.status or {})["failed"] == 1
    (event,) = [action for action in plan.actions if isinstance(action, Announce)]
    assert event.reason is Reason.DELIVERY_FAILED
    assert "BackupFailed of TenantBackup a" in event.message
    after = decide(seen(objects, dict(plan.status or {}), errands=errands), later + timedelta(hours=1))
    assert told(after) == []
    assert (after.status or {})["lastError"] == DOWN.message


def test_a_label_that_comes_late_brings_no_old_news() -> None:
    """While nothing is told the watermark follows, once an hour."""
    gold = notifier(
        {"events": EVERYTHING, "webhook": WEBHOOK, "tenantSelector": {"matchLabels": {"tier": "gold"}}}
    )
    old = backup("a", at(1))
    quiet = decide(seen(Objects((old,), (), (tenant(),)), notifier=gold), at(7200)).status
    plan = decide(
        seen(Objects((old,), (), (tenant(tier="gold"),)), dict(quiet or {}), notifier=gold), at(7201)
    )
    assert told(plan) == []


def test_a_thousand_that_ended_in_one_second_are_told_in_a_few_writes() -> None:
    """And the status never lists more than it has room for."""
    objects = Objects(tuple(backup(f"b{n}", at(1)) for n in range(1000)))
    world = World(objects)
    for seconds in range(0, 900, 1):
        world.turn(at(2 + seconds))
    assert set(world.heard.values()) == {1}
    assert len(world.heard) == 1000
    assert world.writes <= 20
    assert world.longest <= TOLD_LIMIT


# a world in which everything goes wrong


class World:
    """A receiver, the API server's copy of the status, and the memory of an operator that may die."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.status: dict[str, Any] = {}
        self.errand: Errand | None = None
        self.heard: Counter[str] = Counter()
        self.writes = self.longest = 0
        self.down = False

    def turn(self, now: datetime, *, dies: str = "") -> None:
        """One pass of the operator, which may die before its status is written, or after."""
        errands = {"Webhook": self.errand} if self.errand else {}
        plan = decide(seen(self.objects, dict(self.status), errands=errands), now)
        for action in plan.actions:
            if isinstance(action, Deliver):
                self._deliver(action.news, now)
        if dies == "before":
            self.errand = None
            return
        assert plan.status is not None
        self._obeys(dict(plan.status))
        self.writes += plan.status != self.status
        self.status = dict(plan.status)
        if dies:
            self.errand = None

    def _deliver(self, found: tuple[News, ...], now: datetime) -> None:
        if self.down and found:
            self.errand = Errand(1, now, problem=DOWN, failures=1)
            return
        self.heard.update(one.id for one in found)
        self.errand = Errand(1, now, tuple(one.id for one in found))

    def _obeys(self, status: dict[str, Any]) -> None:
        (entry,) = status["receivers"]
        self.longest = max(self.longest, len(entry.get("told", ())))
        if self.status:
            assert status["watermark"] >= self.status["watermark"]
            assert status["delivered"] >= self.status["delivered"]


@settings(max_examples=50, deadline=None)
@given(st.integers(min_value=0), st.booleans())
def test_everything_is_told_however_late_it_is_seen_and_whenever_we_die(seed: int, calm: bool) -> None:
    """Without a crash exactly once; with crashes only what one batch had is told again."""
    chance = random.Random(seed)
    horizon = 600
    backups = [backup(f"b{n}", at(chance.randint(1, horizon))) for n in range(chance.randint(1, 250))]
    # An object is seen later than the time it names: by the requests of one decision at most.
    latest = SETTLE.total_seconds() - 1
    seen_at = {one.uid: one.completed + timedelta(seconds=chance.uniform(0, latest)) for one in backups}
    world, now, deaths = World(Objects()), at(1), 0
    while now < at(horizon + 1200):
        world.down = now < at(horizon) and chance.random() < 0.3
        world.objects = Objects(tuple(one for one in backups if seen_at[one.uid] <= now))
        dies = "" if calm else chance.choice(["", "", "", "", "before", "after"])
        deaths += bool(dies)
        world.turn(now, dies=dies)
        now += timedelta(seconds=chance.choice([0.2, 1, 5, 30]))
    expected = {one.id for one in news(Objects(tuple(backups)), LONG_AGO)}
    assert set(world.heard) == expected
    again = sum(world.heard.values()) - len(expected)
    assert again == 0 if calm else again <= deaths * BATCH["Webhook"]
    assert world.status["failed"] == 0

"""Objectives: a miss is told once, in its moment or one pass after the operator started; then it heals."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import tenant as tenants
from tenant_backup.decisions.observed import TenantSeen
from tenant_backup.decisions.plan import Announce, Plan
from tenant_backup.decisions.summaries import BackupSummary, of_backup
from tests.decisions.objects import NOW, at, condition, document, kinds, summary, tenant, tenant_seen

HOUR = 3600.0
DAY = 24 * HOUR
READY = {"type": "Ready", "status": "True", "observedGeneration": 1, "reason": "Ready", "message": "good"}
STATUS: dict[str, Any] = {
    "keysReady": True,
    "observedGeneration": 1,
    "conditions": [READY | {"lastTransitionTime": "2024-01-15T14:30:22Z"}],
}


def wanting(point: str = "24h", **fields: Any) -> TenantSeen:
    """Tenant acme, five seconds old at NOW, with an objective."""
    found = tenant(more={"objectives": {"recoveryPoint": point}})
    return tenant_seen(found, **({"status": STATUS} | fields))


def made(name: str, began: float, took: float = 60.0, **fields: Any) -> BackupSummary:
    """A good backup that began so many seconds after NOW."""
    return summary(name, started=at(began), completed=at(began + took), **fields)


def misses(plan: Plan) -> list[str]:
    events = [action for action in plan.actions if isinstance(action, Announce)]
    assert all(event.type == "Warning" for event in events if event.reason is Reason.BACKUP_MISSED)
    return [event.message for event in events if event.reason is Reason.BACKUP_MISSED]


def met(plan: Plan) -> str:
    assert plan.status
    return str(condition(plan.status, "ObjectivesMet")["status"])


def after(seen: TenantSeen, plan: Plan, *backups: BackupSummary) -> TenantSeen:
    """The look that follows, when the plan was carried out."""
    assert plan.status
    return replace(seen, status=plan.status, backups=(*seen.backups, *backups))


def test_a_tenant_without_objective_has_no_such_condition() -> None:
    plan = tenants.decide(tenant_seen(status=STATUS), at(1000 * DAY))
    assert plan.status
    assert kinds(plan.status) == {"Ready"}
    assert "recoveryPoint" not in plan.status
    assert misses(plan) == []
    assert plan.retry_in is None


def test_a_tenant_younger_than_its_objective_has_missed_nothing_and_is_looked_at_when_it_will_have() -> None:
    plan = tenants.decide(wanting(), at(0))
    assert (met(plan), misses(plan)) == ("True", [])
    assert plan.retry_in == DAY - 5


def test_without_any_backup_the_miss_is_told_in_its_moment() -> None:
    seen = wanting()
    first = tenants.decide(seen, at(0))
    assert first.retry_in
    plan = tenants.decide(after(seen, first), at(first.retry_in))
    assert met(plan) == "False"
    (message,) = misses(plan)
    assert "2024-01-16T14:30:20Z: there is no good backup" in message
    assert plan.retry_in is None


def test_a_miss_is_told_once_and_the_condition_stays() -> None:
    seen = wanting()
    told = tenants.decide(seen, at(2 * DAY))
    again = tenants.decide(after(seen, told), at(3 * DAY))
    assert misses(again) == []
    assert again.status == told.status


def test_a_pass_that_died_before_the_status_tells_it_in_the_same_words() -> None:
    """So the Event has the same name and is not posted again."""
    assert misses(tenants.decide(wanting(), at(2 * DAY))) == misses(tenants.decide(wanting(), at(9 * DAY)))


def test_the_next_good_backup_heals_it_and_the_next_miss_is_told_again() -> None:
    seen = wanting()
    told = tenants.decide(seen, at(2 * DAY))
    healed_seen = after(seen, told, made("b", 2 * DAY + HOUR))
    healed = tenants.decide(healed_seen, at(2 * DAY + 2 * HOUR))
    assert (met(healed), misses(healed)) == ("True", [])
    assert healed.retry_in == DAY - HOUR
    assert len(misses(tenants.decide(after(healed_seen, healed), at(3 * DAY + HOUR)))) == 1


def test_the_age_of_a_backup_is_that_of_its_data() -> None:
    """It began at NOW and took five hours."""
    seen = wanting(backups=(made("b", 0, 5 * HOUR),))
    assert met(tenants.decide(seen, at(DAY - 1))) == "True"
    assert met(tenants.decide(seen, at(DAY))) == "False"


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "Failed"},
        {"state": "Expired"},
        {"health": "Corrupt"},
        {"removing": True},
        {"modules": ("hr",)},
        {"contents": "Database"},
        {"contents": "Files"},
    ],
)
def test_what_cannot_bring_the_whole_tenant_back_does_not_count(fields: dict[str, Any]) -> None:
    assert met(tenants.decide(wanting(backups=(made("b", DAY, **fields),)), at(DAY + HOUR))) == "False"


def test_an_imported_backup_has_the_modules_that_its_manifest_names() -> None:
    """Whoever wrote the object in Git did not say so."""
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, "imported": {"backupId": "acme_1"}}
    status = {"state": "Succeeded", "contents": {"tables": 1, "rows": 1, "modules": ["hr"]}}
    assert of_backup(document("TenantBackup", "b", spec) | {"status": status}).modules == ("hr",)


def test_backups_that_take_longer_than_the_objective_are_one_miss() -> None:
    """Each is too old when it is complete; the condition says so, the Event came with the first."""
    seen = wanting("1h")
    plan = tenants.decide(seen, at(2 * HOUR))
    for day in (1, 2, 3):
        seen = after(seen, plan, made(f"b{day}", day * DAY, 1.5 * HOUR))
        plan = tenants.decide(seen, at(day * DAY + 2 * HOUR))
        assert (met(plan), misses(plan)) == ("False", [])
    assert plan.status
    assert "b3" in condition(plan.status, "ObjectivesMet")["message"]
    assert "too old when it was complete" in condition(plan.status, "ObjectivesMet")["message"]


def test_a_backup_that_turns_out_to_be_corrupt_brings_the_miss_back() -> None:
    seen = wanting()
    told = tenants.decide(seen, at(2 * DAY))
    healing = after(seen, told, made("b", 2 * DAY))
    healed = tenants.decide(healing, at(2 * DAY + HOUR))
    assert met(healed) == "True"
    corrupt = replace(after(healing, healed), backups=(made("b", 2 * DAY, health="Corrupt"),))
    assert len(misses(tenants.decide(corrupt, at(2 * DAY + 2 * HOUR)))) == 1


def test_a_miss_that_was_healed_between_two_looks_is_told() -> None:
    """Nobody looked: the operator was down, and at its start a backup that ran late was recorded first."""
    seen = wanting()
    first = tenants.decide(seen, at(0))
    plan = tenants.decide(after(seen, first, made("b", 2 * DAY)), at(2 * DAY + HOUR))
    assert met(plan) == "True"
    (message,) = misses(plan)
    assert "was missed at 2024-01-16T14:30:20Z and is met again" in message
    assert misses(tenants.decide(after(seen, plan, made("b", 2 * DAY)), at(2 * DAY + 2 * HOUR))) == []


def test_a_backup_that_kept_the_promise_unseen_is_no_miss() -> None:
    """The operator died after it had recorded the first of two, and came back for the second."""
    seen = wanting()
    first = tenants.decide(seen, at(0))
    both = (made("a", 0.5 * DAY), made("b", 1.2 * DAY))
    plan = tenants.decide(after(seen, first, *both), at(1.4 * DAY))
    assert (met(plan), misses(plan)) == ("True", [])


def test_old_backups_that_retention_thinned_out_are_no_misses() -> None:
    """One a week is left of the daily ones; the gaps between them are not the tenant's."""
    old = [made(f"b{week}", -7 * DAY * week) for week in range(1, 5)]
    plan = tenants.decide(wanting(backups=(*old, made("new", 0))), at(HOUR))
    assert (met(plan), misses(plan)) == ("True", [])


def test_an_objective_that_is_taken_back_takes_its_condition_along() -> None:
    seen = wanting()
    told = tenants.decide(seen, at(2 * DAY))
    plan = tenants.decide(tenant_seen(status=told.status), at(3 * DAY))
    assert plan.status
    assert kinds(plan.status) == {"Ready"}
    assert "recoveryPoint" not in plan.status


@dataclass
class Year:
    """A year of one Tenant, hour by hour: backups now and then, an operator that is down now and then.

    What happens is recorded only by an operator that is up. `told` has each Event with its time.
    """

    seed: int
    told: list[tuple[datetime, str]] = field(default_factory=list)
    missed: list[datetime] = field(default_factory=list)
    due: list[datetime] = field(default_factory=list)  # when each miss could be told first

    def live(self) -> None:
        """Live through it, with a reference that looks each hour at what was recorded."""
        chance = random.Random(self.seed)
        seen, up, ring, until = wanting("26h"), True, 0.0, at(-5) + timedelta(hours=26)
        was_met, waiting, began = True, False, 0
        for hour in range(365 * 24):
            now = at(hour * HOUR)
            flips = chance.random() < (0.01 if up else 0.05)
            starts = flips and not up
            up ^= flips
            ended = None
            if chance.random() < 0.06:  # a Job begins, and ends two hours later
                began, waiting = hour, True
            if waiting and up and hour >= began + 2:
                waiting = False
                ended = made(f"b{hour}", began * HOUR, (hour - began) * HOUR)
            if was_met and now >= until:
                self.missed.append(until)
            if up and len(self.due) < len(self.missed):
                self.due.append(now)
            was_met = now < until
            looks = up and (starts or ended is not None or at(ring) <= now)
            if ended and ended.started:
                until = max(until, ended.started + timedelta(hours=26))
                was_met = now < until
                # In either order: whose pass comes first at a start is chance.
                if chance.random() < 0.5:
                    seen = self._look(seen, now)
                seen = replace(seen, backups=(*seen.backups[-9:], ended))
            if looks:
                seen, ring = self._look(seen, now), hour * HOUR + (self._delay or 10**9)

    def _look(self, seen: TenantSeen, now: datetime) -> TenantSeen:
        plan = tenants.decide(seen, now)
        self.told += [(now, message) for message in misses(plan)]
        self._delay = plan.retry_in
        return after(seen, plan)


@pytest.mark.parametrize("seed", range(10))
def test_in_a_year_of_an_operator_that_is_down_now_and_then_each_miss_is_told_once(seed: int) -> None:
    """In the first hour in which an operator is up, and none that was not."""
    year = Year(seed)
    year.live()
    assert len(year.missed) > 20
    assert [moment for moment, _ in year.told] == year.due
    for since, (_, message) in zip(year.missed, year.told, strict=False):
        assert f"{since:%Y-%m-%dT%H:%M:%SZ}" in message


def test_every_moment_of_the_condition_is_named_in_status() -> None:
    plan = tenants.decide(wanting(backups=(made("b", HOUR),)), at(2 * HOUR))
    assert plan.status
    assert plan.status["recoveryPoint"] == {"metUntil": "2024-01-16T15:30:25Z"}
    missed = tenants.decide(wanting(backups=(made("b", HOUR),)), NOW + timedelta(days=3))
    assert missed.status
    assert missed.status["recoveryPoint"]["missedAt"] == "2024-01-16T15:30:25Z"

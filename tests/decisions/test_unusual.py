"""Backups that are not as usual: said when they are, not when they are not, and nothing else comes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import backup as backups
from tenant_backup.decisions.plan import Announce, Plan
from tenant_backup.decisions.summaries import BackupSummary
from tenant_backup.decisions.unusual import LAST, LEAST, Figures, unusual
from tests.decisions.objects import FACTS, at, backup_seen, condition, job, kinds, succeeded, summary

MIB = 1 << 20
COUNTS = st.integers(0, 10**12)
FIGURES = st.builds(Figures, COUNTS, COUNTS, st.floats(0, 10**6))


def history(rows: Iterable[int], seconds: float = 60.0, **fields: Any) -> list[BackupSummary]:
    """Good backups with so many rows, of 100 bytes each, one a day, the oldest first."""
    return [
        summary(
            f"b{day}",
            rows=count,
            logical=100 * count,
            started=at(86400 * day),
            completed=at(86400 * day + seconds),
            **fields,
        )
        for day, count in enumerate(rows)
    ]


def found(count: int, seconds: float = 60.0) -> Figures:
    return Figures(count, 100 * count, seconds)


def reasons(figures: Figures, earlier: Iterable[BackupSummary], mode: str = "Incremental") -> list[Reason]:
    return [fact.reason for fact in unusual(figures, mode, earlier)]


@given(FIGURES, st.lists(COUNTS, max_size=LEAST - 1))
def test_the_first_few_are_never_unusual(figures: Figures, earlier: list[int]) -> None:
    assert unusual(figures, "Incremental", history(earlier)) == []


def test_two_backups_say_nothing_yet_and_three_do() -> None:
    assert reasons(found(1), history([1000] * 2)) == []
    assert reasons(found(1), history([1000] * 3)) == [Reason.SMALLER_THAN_USUAL]


@given(st.integers(0, 10**12), st.floats(0, 10**6), st.integers(0, 20))
def test_a_backup_like_the_ones_before_is_never_unusual(rows: int, seconds: float, days: int) -> None:
    assert unusual(found(rows, seconds), "Incremental", history([rows] * days, seconds)) == []


@given(st.integers(10, 10**9), st.lists(st.floats(0.9, 1.1), min_size=LEAST, max_size=30))
def test_it_is_always_told_when_half_of_the_rows_vanish(rows: int, swing: list[float]) -> None:
    """Of a database whose rows go up and down by a tenth."""
    earlier = history([round(rows * by) for by in swing])
    assert reasons(found(earlier[-1].rows // 2), earlier) == [Reason.SMALLER_THAN_USUAL]


@given(st.integers(100, 10**9), st.lists(st.floats(0.9, 1.1), min_size=LEAST, max_size=30))
def test_it_is_never_told_when_a_tenth_of_the_rows_vanishes(rows: int, swing: list[float]) -> None:
    earlier = history([round(rows * by) for by in swing])
    assert reasons(found(round(earlier[-1].rows * 0.9)), earlier) == []


def test_no_rows_at_all_are_the_most_unusual() -> None:
    assert reasons(found(0), history([1000] * 3)) == [Reason.SMALLER_THAN_USUAL]


def test_rows_that_lost_what_was_in_them_are_told_by_their_bytes() -> None:
    (fact,) = unusual(Figures(10**6, 10 * MIB, 60.0), "Incremental", history([10**6] * 3))
    assert fact.reason is Reason.SMALLER_THAN_USUAL
    assert "10.0Mi read, where the median of the last backups is 95.4Mi" in fact.message


def test_what_nobody_counted_is_not_called_small() -> None:
    assert reasons(Figures(None, None, 60.0), history([1000] * 3)) == []
    assert reasons(found(10), history([0] * 10)) == []


@pytest.mark.parametrize("fields", [{"state": "Failed"}, {"health": "Corrupt"}, {"removing": True}])
def test_only_good_backups_say_what_is_usual(fields: dict[str, Any]) -> None:
    assert reasons(found(1), history([1000] * 10, **fields)) == []


def test_the_new_size_is_the_usual_one_after_four_backups() -> None:
    sizes = [1000] * LAST
    for expected in (True, True, True, True, False):
        assert bool(reasons(found(100), history(sizes))) == expected
        sizes.append(100)


def test_a_slow_backup_is_one_that_took_twice_as_long_and_five_minutes_more() -> None:
    short, long = history([1000] * 3, 60.0), history([1000] * 3, 3600.0)
    assert reasons(found(1000, 360.0), short) == []
    assert reasons(found(1000, 361.0), short) == [Reason.SLOWER_THAN_USUAL]
    assert reasons(found(1000, 7200.0), long) == []
    assert reasons(found(1000, 7201.0), long) == [Reason.SLOWER_THAN_USUAL]


def test_how_long_it_took_is_compared_within_a_mode_and_size_is_not() -> None:
    earlier = history([1000] * 10)
    assert reasons(found(1000, 9000.0), earlier, "Full") == []
    assert reasons(found(100), earlier, "Full") == [Reason.SMALLER_THAN_USUAL]


def ended(*comparable: BackupSummary) -> Plan:
    """A backup of 12 rows that took ten minutes."""
    seen = backup_seen(jobs=(job(outcome=succeeded()),), comparable=comparable)
    return backups.decide(seen, at(600))


def warnings(plan: Plan) -> list[Reason]:
    return [one.reason for one in plan.actions if isinstance(one, Announce) and one.type == "Warning"]


def test_an_unusual_backup_is_told_and_its_health_is_what_was_read_back() -> None:
    plan = ended(*history([1000] * 3))
    assert warnings(plan) == [Reason.SMALLER_THAN_USUAL, Reason.SLOWER_THAN_USUAL]
    assert plan.status
    assert plan.status["health"] == FACTS["health"]
    assert plan.status["state"] == "Succeeded"
    unlike = condition(plan.status, "Unusual")
    assert (unlike["status"], unlike["reason"]) == ("True", Reason.SMALLER_THAN_USUAL)
    assert "12 rows, where the median of the last backups is 1000" in unlike["message"]
    assert "10m0s, where the median of the last backups is 1m0s" in unlike["message"]


def test_a_usual_backup_has_no_such_condition() -> None:
    plan = ended(*history([12] * 3, 600.0))
    assert plan.status
    assert kinds(plan.status) == {"Succeeded"}
    assert warnings(plan) == []

"""Which rows and columns are in a backup: tables and policies in, choices and sentences out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tenant_backup.contract.job import Column, Module
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import facts
from tenant_backup.engines.selection import Policy, choose, leaving_keys, unclaimed


@dataclass(frozen=True)
class Table:
    """A table of no engine."""

    oid: int
    full_name: str
    holds_rows: bool = True
    parents: tuple[int, ...] = ()
    columns: tuple[str, ...] = ("id", "secret")
    generated: tuple[str, ...] = ()
    primary_key: tuple[str, ...] = ("id",)
    required: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Key:
    """A foreign key of no engine."""

    name: str
    table: int
    references: int


TABLES = [
    Table(1, "s.a"),
    Table(2, "s.b"),
    Table(3, "s.top", holds_rows=False),
    Table(4, "s.part1", parents=(3,)),
    Table(5, "s.part2", parents=(3,)),
]
HR = Policy([Module("hr", ["s.a", "s.part1"]), Module("rest", ["s.a"])])


def test_a_choice_names_the_modules_that_claim_its_table() -> None:
    """So that the catalogue tells what each of them has."""
    assert [choice.modules for choice in choose(TABLES, HR)] == [("hr", "rest"), (), (), ("hr",), ()]


def test_tables_in_no_module_are_told_by_the_one_on_top() -> None:
    """A partitioned table counts once; what is left out on purpose and what nobody groups is not told."""
    left_out = Policy(HR.modules, exclude_tables=["s.b", "s.top"])
    of_files = Policy([Module("letters", [])])
    for policy, expected in [(HR, ["s.b", "s.top"]), (left_out, []), (Policy(), [])]:
        assert unclaimed(choose(TABLES, policy), policy) == expected
    assert unclaimed(choose(TABLES, of_files), of_files) == ["s.a", "s.b", "s.top"]


def test_foreign_keys_that_leave_a_selection_are_told_once() -> None:
    """Of everything, if it is loose in every backup; else of each module that has rows on one side only."""
    keys = [Key("k1", 1, 2), Key("k2", 2, 1), Key("k3", 4, 1), Key("k4", 1, 4), Key("k5", 1, 3)]
    policy = Policy(HR.modules, exclude_tables=["s.part2"])
    assert leaving_keys(choose(TABLES, policy), keys) == [
        "s.a.k5",
        "s.a.k1 (module hr)",
        "s.a.k1 (module rest)",
        "s.a.k4 (module rest)",
    ]


@pytest.mark.parametrize(
    ("required", "filled", "key", "rule", "advice"),
    [
        (True, False, True, Column("s.a", "secret", "Null"), "use onRestore: Value"),
        (True, True, True, Column("s.a", "secret", "Null"), "use onRestore: Default or Value"),
        (True, False, True, Column("s.a", "secret", "Default"), "use onRestore: Value"),
        (True, False, True, Column("s.a", "secret", "KeepLive"), "give one as else"),
        (False, False, False, Column("s.a", "secret", "KeepLive", "!"), "use Null, Default or Value"),
        (True, False, True, Column("s.a", "secret", "KeepLive", "!"), ""),
        (True, False, False, Column("s.a", "secret", "Value", "!"), ""),
        (True, True, True, Column("s.a", "secret", "KeepLive"), ""),
        (True, True, False, Column("s.a", "secret", "Default"), ""),
        (False, False, False, Column("s.a", "secret", "Null"), ""),
        (False, False, True, Column("s.a", "secret", "KeepLive"), ""),
    ],
)
def test_a_rule_by_which_rows_could_not_come_back_is_refused(
    required: bool, filled: bool, key: bool, rule: Column, advice: str
) -> None:
    """With the rule that is possible in the message."""
    table = Table(
        1,
        "s.a",
        primary_key=("id",) if key else (),
        required=frozenset({"secret"} if required else ()),
        filled=frozenset({"secret"} if filled else ()),
    )
    if not advice:
        assert choose([table], Policy(exclude_columns=[rule]))[0].excluded == ("secret",)
        return
    with pytest.raises(Failure) as caught:
        choose([table], Policy(exclude_columns=[rule]))
    assert (caught.value.reason, advice in caught.value.message) == (Reason.INVALID_SPEC, True)


def test_a_rule_of_a_parent_is_checked_for_every_table_below_it() -> None:
    """A child may demand more than its parent."""
    strict = Table(2, "s.child", parents=(1,), required=frozenset({"secret"}))
    with pytest.raises(Failure) as caught:
        choose([Table(1, "s.a"), strict], Policy(exclude_columns=[Column("s.a", "secret", "Null")]))
    assert "s.child" in caught.value.message


def test_what_a_look_says_fits_a_termination_message_whatever_names_there_are() -> None:
    """All are counted, and as many are named as fit."""
    names = [f"s.{'ü' * 60}{number}" for number in range(500)]
    found = facts.of_look("17.2", 1, 500, names, ["s.\udcff"])
    assert found["unclaimedTables"]["count"] == 500
    assert 5 < len(found["unclaimedTables"]["names"]) < 10
    assert found["leavingForeignKeys"] == {"count": 1, "names": ["s.?"]}

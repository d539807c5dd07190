"""Aspects: what is said of a lasting object beside its headline, each by a function of its own.

Objectives and limits have conditions, status fields and Events of their own, which are put together here
so that another one is another function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .conditions import Fact, condition_of
from .plan import Action

Status = Mapping[str, Any]


@dataclass(frozen=True)
class Aspect:
    """One thing that is said. `fields` are of the status; None removes one."""

    facts: tuple[Fact, ...] = ()
    fields: Status = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    retry_in: float | None = None  # seconds


def together(aspects: Iterable[Aspect]) -> Aspect:
    """Return all of them as one, to be looked at when the first asks for it."""
    found = tuple(aspects)
    times = [one.retry_in for one in found if one.retry_in is not None]
    return Aspect(
        facts=tuple(fact for one in found for fact in one.facts),
        fields={key: value for one in found for key, value in one.fields.items()},
        actions=tuple(action for one in found for action in one.actions),
        retry_in=min(times, default=None),
    )


def with_fields(status: Status, fields: Status) -> dict[str, Any]:
    """Return the status with these fields."""
    return {key: value for key, value in {**status, **fields}.items() if value is not None}


def begins(fact: Fact, before: Status) -> bool:
    """Whether the condition of that type has another status than the one in `before`, or was not there."""
    return condition_of(before, fact.type).get("status") != fact.status

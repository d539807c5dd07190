"""An API server that refuses, conflicts, forgets to answer or drops watches changes nothing in the end."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from aiohttp import web

from tests.operator.conftest import Space
from tests.operator.faulty_proxy import Fault, Plan, faulty
from tests.operator.test_crash_sweep import PURPOSES, end_state, life


def a_third_of_the_writes(fault: Fault) -> Plan:
    """Break them in an order that no sequence of ours can be in step with."""
    dice = random.Random(7)

    def plan(_number: int, request: web.Request) -> Fault:
        return fault if request.method != "GET" and dice.random() < 1 / 3 else ""

    return plan


def a_fifth_of_the_reads(fault: Fault) -> Plan:
    """Likewise."""
    dice = random.Random(7)

    def plan(_number: int, request: web.Request) -> Fault:
        reads = request.method == "GET" and "watch" not in request.query
        return fault if reads and dice.random() < 1 / 5 else ""

    return plan


def watches_are_cut(_number: int, request: web.Request) -> Fault:
    """No watch lives longer than a second."""
    return "cut" if "watch" in request.query else ""


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(a_third_of_the_writes("500"), id="a third of the writes is refused with 500"),
        pytest.param(a_third_of_the_writes("429"), id="a third of the writes is told to come later"),
        pytest.param(a_third_of_the_writes("409"), id="a third of the writes conflicts"),
        pytest.param(
            a_third_of_the_writes("lost answer"), id="a third of the writes is done and not answered"
        ),
        pytest.param(a_fifth_of_the_reads("500"), id="a fifth of the reads fails"),
        pytest.param(watches_are_cut, id="watches are cut each second"),
    ],
)
def test_a_bad_api_server_changes_nothing_in_the_end(new_space: Callable[[], Space], plan: Plan) -> None:
    """The same end state as with a good one, and nothing runs twice."""
    calm, rough = new_space(), new_space()
    life(calm, "never:0")
    with faulty(rough.api, plan) as proxy:
        _, ran = life(rough, "never:0")
    assert proxy.faults > 3
    assert ran == PURPOSES
    assert end_state(rough) == end_state(calm)

"""The work queue: one worker per key, duplicates merged, back-off, delays. No test waits for a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tenant_backup.controllers.dependents import Dependents
from tenant_backup.controllers.queue import WorkQueue
from tenant_backup.decisions.verdicts import Ref


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test."""
    asyncio.run(scenario())


def test_duplicates_are_merged() -> None:
    """Ten events about one object are one look at it."""

    async def scenario() -> None:
        seen: list[str] = []

        async def work(key: str) -> None:
            seen.append(key)

        queue = WorkQueue(work)
        for _ in range(10):
            queue.add("a")
        queue.add("b")
        queue.start()
        await queue.drained()
        assert sorted(seen) == ["a", "b"]
        await queue.close()

    run(scenario)


def test_one_key_is_never_worked_on_twice_at_once() -> None:
    """What comes meanwhile is worked on afterwards, once."""

    async def scenario() -> None:
        started, go_on = asyncio.Event(), asyncio.Event()
        count = active = most = 0

        async def work(_key: str) -> None:
            nonlocal count, active, most
            count, active = count + 1, active + 1
            most = max(most, active)
            started.set()
            await go_on.wait()
            active -= 1

        queue = WorkQueue(work)
        queue.start()
        queue.add("a")
        await started.wait()
        for _ in range(5):
            queue.add("a")
        go_on.set()
        await queue.drained()
        assert (count, most) == (2, 1)
        await queue.close()

    run(scenario)


def test_different_keys_are_worked_on_side_by_side() -> None:
    """One tenant's slowness never stops another's."""

    async def scenario() -> None:
        both = asyncio.Barrier(2)

        async def work(_key: str) -> None:
            await both.wait()

        queue = WorkQueue(work, workers=2)
        queue.start()
        queue.add("a")
        queue.add("b")
        await queue.drained()
        await queue.close()

    run(scenario)


def test_an_error_comes_back_with_growing_pauses_and_stops_nobody() -> None:
    """The pause doubles up to its longest, and starts anew after a success."""

    async def scenario() -> None:
        pauses: list[float] = []
        fails = [True, True, True, False, True]

        async def work(key: str) -> None:
            if key == "bad" and fails.pop(0):
                raise RuntimeError("no")

        class Recording(WorkQueue[str]):
            def after(self, key: str, delay: float) -> None:
                pauses.append(delay)
                self.add(key)  # at once: the test does not wait

        queue = Recording(work, first=1.0, longest=3.0)
        queue.start()
        queue.add("bad")
        queue.add("good")
        await queue.drained()
        assert pauses == [1.0, 2.0, 3.0]
        queue.add("bad")
        fails.append(False)
        await queue.drained()
        assert pauses == [1.0, 2.0, 3.0, 1.0]
        await queue.close()

    run(scenario)


@pytest.mark.parametrize(("first", "second"), [(5.0, 100.0), (100.0, 5.0)])
def test_the_earlier_of_two_wishes_wins(first: float, second: float) -> None:
    """And there is one timer per key."""

    async def scenario() -> None:
        async def work(_key: str) -> None:
            return None

        queue = WorkQueue(work)
        loop = asyncio.get_running_loop()
        queue.after("a", first)
        queue.after("a", second)
        (timer,) = queue._timers.values()
        assert timer.when() - loop.time() <= 5.0
        await queue.close()
        assert not queue._active

    run(scenario)


def test_work_can_ask_for_itself_again() -> None:
    """Its answer is a delay in seconds."""

    async def scenario() -> None:
        looks = 0
        three = asyncio.Event()

        async def work(_key: str) -> float | None:
            nonlocal looks
            looks += 1
            if looks == 3:
                three.set()
                return None
            return 0.0

        queue = WorkQueue(work)
        queue.start()
        queue.add("a")
        await three.wait()
        await queue.close()
        assert looks == 3

    run(scenario)


def test_closing_lets_running_work_end_and_starts_no_more() -> None:
    """A stop order never cuts a plan in half."""

    async def scenario() -> None:
        started, go_on = asyncio.Event(), asyncio.Event()
        done: list[str] = []

        async def work(key: str) -> None:
            started.set()
            await go_on.wait()
            done.append(key)

        queue = WorkQueue(work, workers=1)
        queue.start()
        queue.add("a")
        queue.add("b")
        await started.wait()
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        assert done == ["a"]

    run(scenario)


def test_who_waits_is_woken_by_what_it_waits_for() -> None:
    """And forgets what it waited for before."""
    dependents = Dependents()
    backup, tenant, store = (Ref(kind, "n", "x") for kind in ("TenantBackup", "Tenant", "BackupStore"))
    dependents.wait(backup, [tenant, store])
    assert dependents.of(tenant) == (backup,)
    dependents.wait(backup, [store])
    assert dependents.of(tenant) == ()
    assert dependents.of(store) == (backup,)
    dependents.wait(backup, [])
    assert dependents.of(store) == ()

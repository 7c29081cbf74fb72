"""Connections are shared among tenants."""

import asyncio
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.turns import Turns

pytestmark = pytest.mark.anyio

NOISY, QUIET, THIRD = UUID(int=1), UUID(int=2), UUID(int=3)


class _Work:
    """Pieces of work that end when they are told to."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.running: list[tuple[UUID, asyncio.Event]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, tenant_id: UUID, count: int = 1) -> None:
        async def work() -> None:
            async with self._turns.turn(tenant_id):
                done = asyncio.Event()
                mine = (tenant_id, done)
                self.running.append(mine)
                try:
                    await done.wait()
                finally:
                    self.running.remove(mine)

        self.tasks += [asyncio.create_task(work()) for _ in range(count)]
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self, tenant_id: UUID) -> None:
        at = next(at for at, (running, _) in enumerate(self.running) if running == tenant_id)
        self.running[at][1].set()
        await self.settle()

    def count(self, tenant_id: UUID) -> int:
        return sum(running == tenant_id for running, _ in self.running)


async def test_one_is_left_for_another() -> None:
    """However many one tenant wants."""
    work = _Work(Turns(3))
    await work.begin(NOISY, 100)
    assert work.count(NOISY) == 2
    await work.begin(QUIET)
    assert work.count(QUIET) == 1


async def test_who_waits_has_a_turn_by_tenant() -> None:
    """Not by who asked first, or most."""
    work = _Work(Turns(2))
    await work.begin(NOISY, 100)
    await work.begin(QUIET, 2)
    await work.begin(THIRD, 1)
    assert (work.count(NOISY), work.count(QUIET)) == (1, 1)
    await work.end(NOISY)
    assert work.count(NOISY) == 1  # it waited before the third came; nobody held a slot of its own then
    await work.end(NOISY)
    assert work.count(THIRD) == 1
    await work.end(THIRD)
    assert work.count(NOISY) == 1


async def test_a_single_slot_is_shared_too() -> None:
    """Where there is one, it goes round."""
    work = _Work(Turns(1))
    await work.begin(NOISY, 10)
    await work.begin(QUIET)
    await work.end(NOISY)
    assert (work.count(NOISY), work.count(QUIET)) in ((1, 0), (0, 1))
    if work.count(NOISY):
        await work.end(NOISY)
    assert work.count(QUIET) == 1


@given(
    slots=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["begin", "end", "cancel"]), st.integers(0, 2)), max_size=40),
)
def test_no_slot_is_lost(slots: int, steps: list[tuple[str, int]]) -> None:
    """Whoever begins, ends or is cancelled: never more than there are, and none stands free while somebody may."""

    async def run() -> None:
        work = _Work(Turns(slots))
        names = (NOISY, QUIET, THIRD)
        for step, number in steps:
            if step == "begin":
                await work.begin(names[number])
            elif step == "end" and work.count(names[number]):
                await work.end(names[number])
            elif step == "cancel" and work.tasks:
                work.tasks[number % len(work.tasks)].cancel()
                await work.settle()
            assert len(work.running) <= slots
        for task in work.tasks:
            task.cancel()
        await asyncio.gather(*work.tasks, return_exceptions=True)
        # All slots are free again.
        again = _Work(work._turns)
        for name in names:
            await again.begin(name, slots)
        assert len(again.running) == slots
        for task in again.tasks:
            task.cancel()
        await asyncio.gather(*again.tasks, return_exceptions=True)

    asyncio.run(run())

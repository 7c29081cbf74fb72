"""The time that all processes share: the database server's."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clock import Offset, ServerClock, utc_now
from infra.db import Database

pytestmark = pytest.mark.anyio

_APART = (timedelta(minutes=-5), timedelta(minutes=5))


async def test_machines_that_differ_by_minutes_agree(database: Database) -> None:
    """Once each has asked; until then each believes itself."""
    clocks = [ServerClock(database, machine=lambda off=off: utc_now() + off) for off in _APART]
    assert clocks[1]() - clocks[0]() > timedelta(minutes=9)
    for clock in clocks:
        await clock.measure()
    first, second = (clock() for clock in clocks)
    assert abs(second - first) < timedelta(seconds=5)
    assert abs(first - utc_now()) < timedelta(seconds=5)


async def test_a_process_begins_by_its_machine_where_the_server_is_away() -> None:
    """Nothing waits for the time."""
    then = datetime(2026, 1, 1, tzinfo=UTC)
    database = Database("postgresql://nobody:x@127.0.0.1:1/none", hot=0)
    clock = ServerClock(database, machine=lambda: then)
    await clock.start()
    assert clock() == then
    await clock.close()
    await database.close()


@given(
    ahead=st.floats(-1e9, 1e9),
    answers=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_surest_answer_is_believed(ahead: float, answers: list[tuple[float, float]]) -> None:
    """What is believed is wrong by half of the quickest answer's time at most, whenever the server read its clock."""
    offset = Offset()
    for began, (took, part) in enumerate(answers):
        told = began * 10 + took * part + ahead
        offset.learn(told, asked_s=began * 10, answered_s=began * 10 + took)
    assert offset.ahead_s == pytest.approx(ahead, abs=min(took for took, _ in answers) / 2 + 1e-5)


def test_another_server_is_believed_at_once() -> None:
    """As after a failover: its clock differs by more than any answer may be wrong."""
    offset = Offset()
    offset.learn(1000.0, asked_s=0, answered_s=0.001)
    offset.learn(1602.0, asked_s=2, answered_s=2.5)
    assert offset.ahead_s == pytest.approx(1600, abs=0.5)

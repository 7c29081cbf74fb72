"""What the log holds of an error, however it was raised."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from infra.errors import NotFound
from infra.traces import PlainError, format_trace

WHO = "customer" + "-" + str(7)
"""Not as it stands in these lines, which a traceback shows."""


def _trace(fail: Callable[[], object]) -> str:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is
        fail()
    return format_trace(caught.value)


def _plainly() -> None:
    raise ValueError(f"There is no user {WHO!r}.")


def _with_an_apostrophe() -> None:
    raise ValueError(f"The user's id {WHO!r} is not known.")


def _with_both_quotes() -> None:
    raise KeyError(f'{WHO}\'s "big" {WHO}')


def _over_two_lines() -> None:
    raise ValueError(f"bad title 'one\ntwo {WHO}' given")


def _by_a_note() -> None:
    error = ValueError("no")
    error.add_note(f"It was {WHO}.")
    raise error


def _by_us() -> None:
    raise NotFound(f"There is no user {WHO!r}.")


def _in_a_task_group() -> None:
    async def bad() -> None:
        _plainly()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bad())

    asyncio.run(main())


def _while_another_was_handled() -> None:
    try:
        _in_a_task_group()
    except BaseException:
        _with_both_quotes()


FAIL = [
    _plainly,
    _with_an_apostrophe,
    _with_both_quotes,
    _over_two_lines,
    _by_a_note,
    _by_us,
    _in_a_task_group,
    _while_another_was_handled,
]


@pytest.mark.parametrize("fail", FAIL)
def test_no_error_is_quoted(fail: Callable[[], object]) -> None:
    """Neither its message nor its notes, alone, in a group, or before another; its place is there."""
    trace = _trace(fail)
    assert WHO not in trace
    assert fail.__name__ in trace


def test_every_error_on_the_way_is_named() -> None:
    """Those of a group, and those that led to it."""
    trace = _trace(_while_another_was_handled)
    assert [name in trace for name in ("ValueError", "ExceptionGroup", "While that was handled:", "KeyError")] == [
        True
    ] * 4


def test_what_is_of_nobody_is_told() -> None:
    """Our codes, the system's words, PostgreSQL's states, and errors of ours that say so."""

    def full() -> None:
        raise OSError(28, "No space left on device", f"/data/{WHO}")

    def refused() -> None:
        raise asyncpg.UniqueViolationError(WHO)

    def told() -> None:
        raise PlainError("training ended with 9")

    assert _trace(_by_us).endswith("NotFound: not_found")
    assert _trace(full).endswith("OSError: [Errno 28] No space left on device")
    assert _trace(refused).endswith("UniqueViolationError: 23505")
    assert _trace(told).endswith("PlainError: training ended with 9")


def test_errors_that_contain_each_other_end() -> None:
    """As a chain that goes in a circle would not."""
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert format_trace(one).count("KeyError") == 1

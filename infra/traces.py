"""An error for the log: places and types, and no message.

What an error says may quote whatever somebody sent: an id, a title, a row. Which words are of a person no pattern can
tell. So only what cannot be of anybody is kept beside the types: our codes, PostgreSQL's states, the system's words for
its errors.
"""

import traceback
from collections.abc import Iterator
from typing import Final

from infra.errors import KindredError

_DEEPEST: Final = 20
"""Errors within errors that are told."""


class PlainError(Exception):
    """An error of ours whose message quotes nobody: it is logged as it is."""


def format_trace(error: BaseException) -> str:
    """As Python would print it, with the errors that led to it and those of a group, but without what they say."""
    return "\n".join(_lines(error, set()))


def _lines(error: BaseException, told: set[int]) -> Iterator[str]:
    told.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in told and len(told) < _DEEPEST:
        yield from _lines(before, told)
        yield "It led to:" if error.__cause__ else "While that was handled:"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
    for place in traceback.format_tb(error.__traceback__):
        yield from place.splitlines()
    yield _name(error)
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if id(each) not in told and len(told) < _DEEPEST:
                yield from (f"  | {line}" for line in _lines(each, told))


def _name(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, PlainError):
        return f"{name}: {error}"
    if isinstance(error, KindredError):
        return f"{name}: {error.code}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name}: [Errno {error.errno}] {error.strerror}"
    state = getattr(error, "sqlstate", None)
    return f"{name}: {state}" if isinstance(state, str) else name

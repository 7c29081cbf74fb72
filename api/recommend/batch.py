"""Several lists of one page, made side by side; distinct ones show no item, and no group, twice.

Each list is asked for with room for all that the lists before it may take, so that none waits for another; then the
items are given out in the order of the lists. Only where so many lists agree that one runs dry is it made again.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Final

import msgspec
from msgspec import structs

from api.auth import Caller
from api.recommend.answering import Answering, Made
from api.recommend.asked import Asked
from api.recommend.types import MAX_COUNT
from infra.errors import KindredError
from tenants.lifecycle import TenantRef

MAX_REQUESTS: Final = 20

_AT_ONCE: Final = 4
"""Lists of one page in the database at a time: a page must not take every connection of the process."""

Row = tuple[Asked, Made]


async def answer_page(
    answering: Answering, caller: Caller, tenant: TenantRef, bodies: Sequence[msgspec.Raw], *, distinct: bool
) -> list[bytes | Exception]:
    """One encoded answer, or the reason why there is none, for each body, in order."""
    started = perf_counter()
    turns = asyncio.Semaphore(_AT_ONCE)
    asked = await asyncio.gather(
        *(answering.read(caller, tenant, bytes(body)) for body in bodies), return_exceptions=True
    )
    room = 0
    rooms = []
    for each in asked:
        rooms.append(room if distinct else 0)
        room += 0 if isinstance(each, BaseException) else each.query.count

    async def make(each: Asked | BaseException, more: int) -> Row:
        if isinstance(each, BaseException):
            raise each
        query = structs.replace(each.query, count=min(MAX_COUNT, each.query.count + more))
        async with turns:
            return each, await answering.made(tenant, structs.replace(each, query=query) if more else each)

    rows = await asyncio.gather(*(make(*pair) for pair in zip(asked, rooms, strict=True)), return_exceptions=True)
    results: list[bytes | Exception] = []
    taken: set[int] = set()
    groups: set[str] = set()
    names: list[str] = []
    for row in rows:
        if isinstance(row, BaseException):
            if not isinstance(row, Exception):
                raise row
            results.append(row)
            continue
        each, made = row
        places = _free(made, taken, groups)[: each.query.count] if distinct else list(range(len(made.numbers)))
        if distinct and len(places) < each.query.count and len(made.numbers) == MAX_COUNT:
            try:
                made = await answering.made(tenant, _without(each, names))
            except KindredError as error:
                results.append(error)
                continue
            places = _free(made, taken, groups)[: each.query.count]
        taken.update(made.numbers[place] for place in places)
        groups.update(group for place in places if (group := made.groups[place]) is not None)
        names += [made.answer.items[place].id for place in places]
        shown_to = caller if caller.once is None else structs.replace(caller, once=f"{caller.once}{len(results):02x}")
        results.append(answering.give(shown_to, tenant, each, made, places, took_s=perf_counter() - started))
    return results


def _free(made: Made, taken: set[int], groups: set[str]) -> list[int]:
    """The places of a list that no list before it shows."""
    return [
        place
        for place, number in enumerate(made.numbers)
        if number not in taken and (made.groups[place] is None or made.groups[place] not in groups)
    ]


def _without(each: Asked, names: Sequence[str]) -> Asked:
    """The request, leaving out what is shown already; as many as a request may leave out."""
    exclude = structs.replace(each.query.exclude, ids=[*each.query.exclude.ids, *names][:1000])
    return structs.replace(each, query=structs.replace(each.query, exclude=exclude, count=MAX_COUNT))

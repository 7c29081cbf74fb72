"""standby: which kept list answers while the database cannot be reached.

The list of the very request, the shopper's own before everybody's, however old within limits; else one of the shop's
own (popular, trending, new) under the same filter and fields. Nobody's own list is shown to anybody else; an item whose
withdrawal this process has seen is in none of them. What only the database knows (what the shopper bought, a page's
rest, an order of given items) has no stand-in: the request is a 503.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct, structs

from api.recommend.asked import Asked, key_of, logged, own_key_of
from api.recommend.cache import AnswerCache, Entry
from api.recommend.profiles import Profile
from api.recommend.types import Answer, Query, RecommendedItem, Session
from infra.telemetry import Children, counter
from tenants.lifecycle import TenantRef

_INSTEAD: Final = ("popular", "trending", "new")
_COUNTS: Final = (10, 12, 20, 24, 50, 100)
"""Lengths that lists are usually asked for in; a longer one is cut."""

_CAUSE: Final = "The database cannot be reached just now; this list was kept from before."

_served: Final = Children(
    counter(
        "standby_answers_total",
        "Answers while the database was away: the own list, the kept one, another, none.",
        ["how"],
    )
)
_decode: Final = msgspec.json.Decoder(Answer).decode


class Standby(Struct, frozen=True, kw_only=True):
    """A kept list as it may be given now: the answer, and numbers and groups of its items."""

    answer: Answer
    numbers: tuple[int, ...]
    groups: tuple[str | None, ...]


def stand_in(
    cache: AnswerCache, tenant: TenantRef, asked: Asked, profile: Profile | None, now: datetime
) -> Standby | None:
    """The list to be given instead; None where there is none. `profile`: what is known of the shopper, if anything."""
    if asked.shopper is not None:
        own = cache.get_stale(own_key_of(tenant, asked, logged(asked.query)), now)
        if own is not None:
            _served("own").inc()
            return _given(own, asked.query.count, profile, other=False)
    for other, each in _candidates(asked) if _may_stand_in(asked, profile) else ():
        entry = cache.get_stale(key_of(tenant, each, logged(each.query)), now)
        if entry is not None:
            _served("other" if other else "kept").inc()
            return _given(entry, asked.query.count, profile, other=other)
    _served("none").inc()
    return None


def _may_stand_in(asked: Asked, profile: Profile | None) -> bool:
    query = asked.query
    if query.cursor is not None or (profile is not None and profile.apart):
        return False
    exclude = query.exclude
    return asked.shopper is None or not (exclude.seen or exclude.purchased or exclude.in_cart)


def _candidates(asked: Asked) -> Iterator[tuple[bool, Asked]]:
    """What was asked, as anybody's; then what may take its place, the nearest first. Whether it is another list."""
    seen_lately = bool(asked.query.session.recent_items) and asked.query.exclude.seen
    if seen_lately:
        return
    query = structs.replace(asked.query, user_id=None, visitor_id=None, session=Session())
    yield False, structs.replace(asked, query=query)
    if query.fallback == "none" or query.same or query.min_score:
        return
    plain = Query(
        count=query.count,
        filter=query.filter,
        exclude=query.exclude,
        max_per=query.max_per,
        include=query.include,
        fields=query.fields,
    )
    for count in (query.count, *(count for count in _COUNTS if count > query.count)):
        for strategy in _INSTEAD:
            yield True, Asked(query=structs.replace(plain, strategy=strategy, count=count))


def _given(entry: Entry, count: int, profile: Profile | None, *, other: bool) -> Standby:
    answer = _decode(entry.render("", 0.0))
    disliked = frozenset() if profile is None else profile.disliked
    places = [place for place, number in enumerate(entry.listed) if number not in disliked][:count]
    return Standby(
        answer=structs.replace(
            answer,
            items=[_item(answer.items[place], rank, other) for rank, place in enumerate(places, 1)],
            fallback_used=True,
            warnings=[*answer.warnings, _CAUSE],
        ),
        numbers=tuple(entry.listed[place] for place in places),
        groups=tuple(entry.groups[place] for place in places),
    )


def _item(item: RecommendedItem, rank: int, other: bool) -> RecommendedItem:
    return structs.replace(item, rank=rank, fallback=item.fallback or other)

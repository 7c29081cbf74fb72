"""What makes a shopper's list differ from everybody's, kept for half a second (L2).

A list that all shoppers share is right for a shopper who is no seller, is in no
segment and dislikes nothing on it. What a shopper does is to be seen within a
second in every process, so a profile is young or read again.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Final

from msgspec import Struct

from api.recommend.log import Shopper
from infra.changes import Change, ChangeFeed
from infra.db import Database, TenantId
from infra.telemetry import Children, counter
from tenants.sources.shopper import DISLIKED_DAYS

LIFE_S: Final = 0.5
MAX_PROFILES: Final = 20_000

_looked: Final = Children(
    counter("profile_lookups_total", "Look-ups of shoppers' profiles, and whether one was held.", ["hit"])
)

_LOAD: Final = f"""
select u.seller_id is not null or coalesce(array_length(u.segments, 1), 0) > 0 as apart,
    (select array_agg(distinct e.item_no) from events e where e.tenant_id = $2::uuid
        and e.shopper_no = i.shopper_no and e.type = 'dislike' and e.item_no is not null
        and e.ts > $5::timestamptz - interval '{DISLIKED_DAYS} days') as disliked
from (select coalesce(s.merged_into, s.shopper_no) as shopper_no from shopper_ids s
    where s.tenant_id = $2::uuid and s.kind = $3::int2 and s.external_id = $4::text) i
left join users u on u.tenant_id = $2::uuid and u.shopper_no = i.shopper_no
"""


class Profile(Struct, frozen=True):
    """`apart`: a seller, or in a segment, for whom lists are made anew. `disliked`: item numbers."""

    apart: bool = False
    disliked: frozenset[int] = frozenset()


class Profiles:
    """The profiles of the shoppers who were here just now."""

    def __init__(self, database: Database, feed: ChangeFeed, *, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = clock
        self._held: OrderedDict[tuple[TenantId, Shopper], tuple[Profile, float]] = OrderedDict()
        feed.subscribe(self._on_change, self._held.clear)

    async def get(self, tenant_id: TenantId, shopper: Shopper, now: datetime) -> Profile:
        """The profile; an empty one of a shopper who is not known yet."""
        key = (tenant_id, shopper)
        held = self._held.get(key)
        at = self._clock()
        if held is not None and at < held[1]:
            _looked("yes").inc()
            return held[0]
        _looked("no").inc()
        records = await self._database.fetch_scoped(tenant_id, _LOAD, *shopper, now)
        profile = Profile()
        if records:
            profile = Profile(records[0]["apart"], frozenset(records[0]["disliked"] or ()))
        # Young from when it was asked for, not from when it came.
        self._held[key] = profile, at + LIFE_S
        self._held.move_to_end(key)
        if len(self._held) > MAX_PROFILES:
            self._held.popitem(last=False)
        return profile

    def get_stale(self, tenant_id: TenantId, shopper: Shopper) -> Profile | None:
        """What was last known, for when the database cannot be asked."""
        held = self._held.get((tenant_id, shopper))
        return None if held is None else held[0]

    def _on_change(self, change: Change) -> None:
        if change.kind == "shopper":
            for key in [key for key in self._held if key[0] == change.tenant_id]:
                del self._held[key]

"""From the bytes of a request to the bytes of its answer: placement, caches, pipeline, log.

`pipeline.serve` says how a list is made; here stands when it need not be made again, and what is noted of it.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import Final

import msgspec
from msgspec import Struct, structs

from api.auth import Caller
from api.recommend.asked import Asked, key_of, level_of, logged, own_key_of, placed, read_asked, shopper_of, strategy_of
from api.recommend.cache import AnswerCache, Entry, Key, Level
from api.recommend.cards import Cards
from api.recommend.cursor import write_cursor
from api.recommend.log import AnswerLog, Shopper, Shown, shown
from api.recommend.pipeline import rerank, serve
from api.recommend.profiles import Profile, Profiles
from api.recommend.sampling import Sampling
from api.recommend.speaking import expect_any_placement, narrow, speak_for
from api.recommend.standby import stand_in
from api.recommend.types import Answer, Query, RerankQuery, Served, Session
from infra.clock import Clock
from infra.db import Database
from infra.ids import uuid7
from infra.outage import AWAY
from infra.secret import Secret
from tenants.answers import Kind
from tenants.catalog.validity import next_boundary
from tenants.lifecycle import TenantRef
from tenants.placements import Placements
from tenants.sources.shopper import Mark, ShopperKey, read_mark

_NOBODY: Final = Profile()

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Answer).decode


class Made(Struct, frozen=True, kw_only=True):
    """A list before it is given: the numbers and groups of its items in order, and what pages before it showed.

    `shared`: it was made for everybody. `standby`: it was kept from before, as the database is away.
    """

    answer: Answer
    numbers: tuple[int, ...]
    groups: tuple[str | None, ...]
    shown_before: tuple[int, ...]
    shared: bool = False
    standby: bool = False


class Answering:
    """Answers requests of one process; the only way to `serve`, so that every answer is in the log."""

    def __init__(
        self,
        database: Database,
        placements: Placements,
        log: AnswerLog,
        cache: AnswerCache,
        profiles: Profiles,
        *,
        secret: Secret,
        clock: Clock,
    ) -> None:
        self._database = database
        self._placements = placements
        self._log = log
        self._cache = cache
        self._profiles = profiles
        self._cards = Cards(database, cache)
        self._secret = secret
        self._clock = clock
        self._sampling = Sampling(database, log, secret=secret, clock=clock)
        self._making: dict[tuple[Key, int], asyncio.Future[Entry]] = {}

    async def warm(self, tenant: TenantRef, asked: Asked) -> bool:
        """Have the list that nobody in particular would get kept; False where no list of it may be. Raises what `serve`
        raises.
        """
        return await self._kept(tenant, asked, logged(asked.query)) is not None

    async def close(self) -> None:
        """Have every answer that was given in the log's hands."""
        await self._sampling.close()

    async def recommend(self, caller: Caller, tenant: TenantRef, body: bytes) -> bytes:
        """The answer of `POST /v1/recommend`, encoded. Raises what `read_asked` and `serve` raise."""
        started = perf_counter()
        return await self._answer(caller, tenant, await self.read(caller, tenant, body), started)

    async def recommend_query(self, caller: Caller, tenant: TenantRef, query: Query) -> bytes:
        """The same of a query made here, which names no placement."""
        started = perf_counter()
        asked = await placed(self._placements, tenant.tenant_id, query, allowed=caller.placements)
        return await self._answer(caller, tenant, _for_caller(caller, asked), started)

    async def rerank(self, caller: Caller, tenant: TenantRef, query: RerankQuery) -> bytes:
        """The answer of `POST /v1/rerank`, encoded. Raises what `rerank` and `speak_for` raise, PlacementRefused."""
        started = perf_counter()
        expect_any_placement(caller, "a rerank")
        query = speak_for(caller, query)
        served = await rerank(
            self._database, tenant, query, now=self._clock(), secret=self._secret, within=narrow(caller, None)
        )
        anonymous = structs.replace(query, user_id=None, visitor_id=None, session=Session())
        self.note(
            caller,
            "rerank",
            served,
            strategy="for_you",
            request=_encode(anonymous),
            shopper=shopper_of(query),
            took_s=perf_counter() - started,
        )
        return _encode(served.answer)

    async def make(self, tenant: TenantRef, asked: Asked) -> Served:
        """One list, made anew."""
        return await serve(
            self._database,
            tenant,
            asked.query,
            now=self._clock(),
            secret=self._secret,
            sources=asked.sources,
            cards=self._cards,
        )

    def note(
        self,
        caller: Caller,
        kind: Kind,
        served: Served,
        *,
        strategy: str,
        request: bytes,
        shopper: Shopper | None = None,
        took_s: float,
    ) -> None:
        """Put an answer of a search, or a reranking, into the log."""
        row = shown_of(kind, served, strategy=strategy, request=request)
        answer_id = served.answer.recommendation_id
        self._log.record(answer_id, row, key_id=caller.key_id, once=caller.once, shopper=shopper, took_s=took_s)

    async def read(self, caller: Caller, tenant: TenantRef, body: bytes) -> Asked:
        """What a body asks for. Raises what `read_asked`, `speak_for` and `narrow` raise."""
        asked = await read_asked(self._placements, tenant.tenant_id, body, allowed=caller.placements)
        return _for_caller(caller, asked)

    async def made(self, tenant: TenantRef, asked: Asked) -> Made:
        """A list, kept or made anew, that is not yet given to anybody. Raises what `serve` raises."""
        try:
            return await self._made(tenant, asked)
        except AWAY:
            instead = self._stand_in(tenant, asked)
            if instead is None:
                raise
            return instead

    async def _made(self, tenant: TenantRef, asked: Asked) -> Made:
        entry = await self._kept(tenant, asked, logged(asked.query))
        if entry is not None:
            answer = _decode(entry.render("", 0.0))
            return Made(
                answer=answer,
                numbers=entry.listed,
                groups=entry.groups,
                shown_before=(),
                shared=entry.level != "shoppers",
            )
        served = await self.make(tenant, asked)
        hits = [candidate.hit for candidate in served.slate.candidates]
        return Made(
            answer=served.answer,
            numbers=tuple(hit.item_no for hit in hits),
            groups=tuple(hit.group_id for hit in hits),
            shown_before=tuple(served.plan.shown),
        )

    def _stand_in(self, tenant: TenantRef, asked: Asked) -> Made | None:
        """The list to be given while the database is away, if there is one."""
        shopper = asked.shopper
        profile = None if shopper is None else self._profiles.get_stale(tenant.tenant_id, shopper)
        found = stand_in(self._cache, tenant, asked, profile, self._clock())
        if found is None:
            return None
        return Made(
            answer=found.answer,
            numbers=found.numbers,
            groups=found.groups,
            shown_before=(),
            shared=True,
            standby=True,
        )

    def give(
        self, caller: Caller, tenant: TenantRef, asked: Asked, made: Made, places: Sequence[int], *, took_s: float
    ) -> bytes:
        """Some places of a list as an answer of its own, encoded and in the log."""
        items = [made.answer.items[place] for place in places]
        numbers = [made.numbers[place] for place in places]
        answer_id = str(uuid7())
        cursor = None
        if len(items) == asked.query.count:
            cursor = write_cursor(
                self._secret.current, tenant.tenant_id, [*made.shown_before, *numbers], now=self._clock()
            )
        row = shown(
            tenant.tenant_id,
            kind="recommend",
            strategy=strategy_of(asked),
            gen=tenant.generation.gen,
            request=logged(asked.query),
            items=numbers,
            scores=[item.score for item in items],
            sources=[item.source for item in items],
            fallbacks=[item.fallback for item in items],
            placement=asked.query.placement,
        )
        self._sampling.record(
            answer_id,
            row,
            key_id=caller.key_id,
            once=caller.once,
            tenant=tenant,
            asked=asked,
            shared=made.shared,
            took_s=took_s,
        )
        ranked = [structs.replace(item, rank=rank) for rank, item in enumerate(items, 1)]
        return _encode(
            structs.replace(
                made.answer,
                recommendation_id=answer_id,
                items=ranked,
                cursor=cursor,
                fallback_used=made.standby
                or (made.answer.fallback_used and (not items or any(item.fallback for item in items))),
                took_ms=round(took_s * 1000, 2),
            )
        )

    async def _answer(self, caller: Caller, tenant: TenantRef, asked: Asked, started: float) -> bytes:
        try:
            return await self._answer_now(caller, tenant, asked, started)
        except AWAY:
            made = self._stand_in(tenant, asked)
            if made is None:
                raise
        places = range(len(made.numbers))
        return self.give(caller, tenant, asked, made, places, took_s=perf_counter() - started)

    async def _answer_now(self, caller: Caller, tenant: TenantRef, asked: Asked, started: float) -> bytes:
        request = logged(asked.query)
        entry = await self._kept(tenant, asked, request)
        if entry is None:
            served = await self.make(tenant, asked)
            self._sampling.record(
                served.answer.recommendation_id,
                shown_of(
                    "recommend",
                    served,
                    strategy=strategy_of(asked),
                    request=request,
                    placement=asked.query.placement,
                ),
                key_id=caller.key_id,
                once=caller.once,
                tenant=tenant,
                asked=asked,
                took_s=perf_counter() - started,
            )
            return _encode(served.answer)
        answer_id = str(uuid7())
        took_s = perf_counter() - started
        self._sampling.record(
            answer_id,
            entry.shown,
            key_id=caller.key_id,
            once=caller.once,
            tenant=tenant,
            asked=asked,
            shared=entry.level != "shoppers",
            took_s=took_s,
        )
        return entry.render(answer_id, took_s * 1000)

    async def _kept(self, tenant: TenantRef, asked: Asked, request: bytes) -> Entry | None:
        """The list that all shoppers share, or this one's own; None for one that is made for this request alone."""
        level = level_of(asked)
        if level is None:
            return None
        if level == "shoppers":
            return await self._own(tenant, asked, request)
        now = self._clock()
        profile = _NOBODY
        if asked.shopper is not None:
            profile = await self._profiles.get(tenant.tenant_id, asked.shopper, now)
        if profile.apart:
            return None
        key = key_of(tenant, asked, request)
        entry = self._cache.get(key, now, level=level)
        if entry is None:
            entry = await self._shared(key, tenant, asked, request, level, now)
        return entry if profile.disliked.isdisjoint(entry.listed) else None

    async def _own(self, tenant: TenantRef, asked: Asked, request: bytes) -> Entry:
        """This shopper's list, made anew unless the shopper's mark is still the one that it was made by."""
        assert asked.shopper is not None
        kind, name = asked.shopper
        shopper = ShopperKey(kind=1 if kind else 0, id=name)
        now = self._clock()
        version = self._cache.version(tenant.tenant_id)
        key = own_key_of(tenant, asked, request)

        async def read(mark: Mark) -> Mark:
            return await read_mark(self._database, tenant, shopper, now=now, reach=mark.reach)

        entry = await self._cache.get_marked(key, now, read)
        return entry or await self._keep(key, tenant, asked, request, "shoppers", now, version)

    async def _shared(
        self, key: Key, tenant: TenantRef, asked: Asked, request: bytes, level: Level, now: datetime
    ) -> Entry:
        """Make the list once for all who ask for it at the same version."""
        version = self._cache.version(tenant.tenant_id)
        making = self._making.get((key, version))
        if making is None:
            # A task of its own: whoever hangs up takes the list from nobody else.
            making = asyncio.ensure_future(self._keep(key, tenant, asked, request, level, now, version))
            self._making[key, version] = making
            making.add_done_callback(lambda _: self._making.pop((key, version), None))
        return await asyncio.shield(making)

    async def _keep(
        self, key: Key, tenant: TenantRef, asked: Asked, request: bytes, level: Level, now: datetime, version: int
    ) -> Entry:
        until = await self._horizon(tenant, now, version)
        if level != "shoppers":
            # Whoever is the first to ask, the list is everybody's.
            asked = structs.replace(asked, query=structs.replace(asked.query, user_id=None, visitor_id=None))
        served = await self.make(tenant, asked)
        row = shown_of(
            "recommend", served, strategy=strategy_of(asked), request=request, placement=asked.query.placement
        )
        hits = [candidate.hit for candidate in served.slate.candidates]
        entry = self._cache.entry(
            _encode(served.answer),
            row,
            level=level,
            listed=[hit.item_no for hit in hits],
            groups=[hit.group_id for hit in hits],
            seeds=served.slate.seeds,
            until=until,
            mark=served.slate.mark,
        )
        # A shopper's list without a mark is what stands for one that could not be made.
        if level != "shoppers" or served.slate.mark is not None:
            self._cache.put(key, entry, version=version)
        return entry

    async def _horizon(self, tenant: TenantRef, now: datetime, version: int) -> datetime | None:
        known = self._cache.horizon(tenant.tenant_id, now)
        if known is not None:
            return known[0]
        until = await next_boundary(self._database, tenant.tenant_id, now)
        self._cache.set_horizon(tenant.tenant_id, until, version=version)
        return until


def _for_caller(caller: Caller, asked: Asked) -> Asked:
    """What is asked, for whom and of what the caller may speak. Before any cache: the lists are known by it."""
    query = speak_for(caller, asked.query)
    if caller.visitor is not None and caller.visitor.filter is not None:
        query = structs.replace(query, filter=narrow(caller, query.filter))
    return asked if query is asked.query else structs.replace(asked, query=query)


def shown_of(kind: Kind, served: Served, *, strategy: str, request: bytes, placement: str | None = None) -> Shown:
    """What the log keeps of a list."""
    candidates = served.slate.candidates
    return shown(
        served.plan.tenant.tenant_id,
        kind=kind,
        strategy=strategy,
        gen=served.plan.tenant.generation.gen,
        request=request,
        items=[candidate.hit.item_no for candidate in candidates],
        scores=[candidate.hit.score for candidate in candidates],
        sources=[candidate.source for candidate in candidates],
        fallbacks=[candidate.fallback for candidate in candidates],
        placement=placement,
    )

"""What was answered: the log of answers, one of them shown again, and the sums over them.

The log is written by the ingest role, which may insert and nothing else, so one
statement holds rows of many tenants. Whoever reads it is under row-level security.
"""

from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args
from uuid import UUID

import msgspec
from msgspec import Struct

from infra.db import Database, TenantId, driver, fetch
from infra.errors import NotFound
from infra.ids import moment_of
from infra.partitions import ensure_partitions

Kind = Literal["recommend", "search", "rerank"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""As stored: 0, 1, 2."""

KEPT: Final = timedelta(days=30)
"""How long an answer can be shown again."""

SCORE_UNITS: Final = 10_000
"""Scores are stored in this part of 1."""


class RecommendationNotFound(NotFound):
    """No answer of this tenant within 30 days has that id; an answer can be shown a second after it was given."""

    code = "recommendation_not_found"
    title = "There is no such recommendation"


INSERT_ANSWERS: Final = """
insert into answers (answer_id, tenant_id, kind, placement, strategy, shopper_no, key_id, gen, variant, request,
    items, scores, sources, flags, candidates, took_us, once)
select a, t, k, p, st, sh, ke, g, v, q, i, sc, so, f, c, u, decode(o, 'hex')
from jsonb_to_recordset($1::text::jsonb) as r(
    a uuid, t uuid, k int2, p text, st text, sh int8, ke text, g int4, v text, q jsonb,
    i int4[], sc int2[], so text[], f int2[], c jsonb, u int4, o text)
on conflict do nothing
"""
"""Every column of the rows, as JSON. Only the ingest role runs it. A repeat changes nothing: whoever lost the
connection before the answer may send the rows again."""

FIND_SHOPPERS: Final = """
select a.kind, a.external_id, s.shopper_no from unnest($3::int2[], $4::text[]) a(kind, external_id)
cross join lateral (select coalesce(s.merged_into, s.shopper_no) as shopper_no from shopper_ids s
    where s.tenant_id = $2::uuid and s.kind = a.kind and s.external_id = a.external_id limit 1) s
"""
"""The numbers of shoppers by kind (0 visitor, 1 user) and id, in the form of `Database.fetch_scoped`."""


class ShownAgain(Struct, frozen=True, kw_only=True):
    """One place of a list that was answered; `id` is null for an item that is gone."""

    id: str | None
    rank: int
    score: float
    source: str
    fallback: bool


class StoredCandidate(Struct, frozen=True, omit_defaults=True):
    """One item that an answer was chosen from, as the log keeps it: `i` its number, `s` the score (in 1/10,000), `f` 1
    for the fallback's, `p` the share of each source in the score, `t` and `m` the cosines of texts and photos to the
    evidence, `b` the id of the item that is the evidence.
    """

    i: int
    s: int
    f: int = 0
    p: dict[str, float] = {}
    t: float | None = None
    m: float | None = None
    b: str | None = None


class PastCandidate(Struct, frozen=True, kw_only=True):
    """One item that an answer was chosen from; `rank` is its place in the answer, null for one that was not shown.

    `parts` are the shares of the sources in the score; `because` is the item that is the evidence, and the similarities
    are the cosines to it. `id` is null for an item that is gone.
    """

    id: str | None
    rank: int | None
    score: float
    fallback: bool
    parts: dict[str, float]
    because: str | None
    text_similarity: float | None
    image_similarity: float | None


class PastAnswer(Struct, frozen=True, kw_only=True):
    """An answer as it was given. `request` leaves out who asked and the session that was sent along.

    `candidates`: the best that it was chosen from, where the request said `explain`, and of one answer in a hundred.
    """

    recommendation_id: str
    kind: Kind
    at: datetime
    placement: str | None
    strategy: str
    variant: str | None
    generation: int
    key_id: str
    request: msgspec.Raw
    items: list[ShownAgain]
    candidates: list[PastCandidate] | None
    took_ms: float


_decode_candidates: Final = msgspec.json.Decoder(list[StoredCandidate]).decode

_GET: Final = """
select a.kind, a.placement, a.strategy, a.variant, a.gen, a.key_id, a.request::text as request, a.scores, a.sources,
    a.flags, a.candidates::text as candidates, a.took_us,
    (select array_agg(d.external_id order by n.at) from unnest(a.items) with ordinality n(item_no, at)
        left join item_ids d on d.tenant_id = $2::uuid and d.item_no = n.item_no) as ids, a.items as item_nos,
    (select array_agg(d.external_id order by c.at) from jsonb_array_elements(a.candidates) with ordinality c(doc, at)
        left join item_ids d on d.tenant_id = $2::uuid and d.item_no = (c.doc ->> 'i')::int4) as candidate_ids
from answers a where a.tenant_id = $2::uuid and a.answer_id = $3
"""


async def get_answer(database: Database, tenant_id: TenantId, answer_id: UUID, *, now: datetime) -> PastAnswer:
    """One answer of the last 30 days. Raises RecommendationNotFound."""
    at = moment_of(answer_id)
    records = [] if at is None or at < now - KEPT else await database.fetch_scoped(tenant_id, _GET, answer_id)
    if at is None or not records:
        raise RecommendationNotFound(
            "There is no such recommendation. Answers are kept for 30 days; a new one can be read after a second."
        )
    (record,) = records
    places = zip(record["ids"] or (), record["scores"], record["sources"], record["flags"], strict=True)
    return PastAnswer(
        recommendation_id=str(answer_id),
        kind=KINDS[record["kind"]],
        at=at,
        placement=record["placement"],
        strategy=record["strategy"],
        variant=record["variant"],
        generation=record["gen"],
        key_id=record["key_id"],
        request=msgspec.Raw(record["request"].encode()),
        items=[
            ShownAgain(id=name, rank=rank, score=score / SCORE_UNITS, source=source, fallback=bool(flag & 1))
            for rank, (name, score, source, flag) in enumerate(places, 1)
        ],
        candidates=_candidates(record),
        took_ms=record["took_us"] / 1000,
    )


def _candidates(record: Any) -> list[PastCandidate] | None:
    if record["candidates"] is None:
        return None
    ranks = {item_no: rank for rank, item_no in enumerate(record["item_nos"], 1)}
    stored = _decode_candidates(record["candidates"])
    return [
        PastCandidate(
            id=name,
            rank=ranks.get(each.i),
            score=each.s / SCORE_UNITS,
            fallback=bool(each.f),
            parts=each.p,
            because=each.b,
            text_similarity=each.t,
            image_similarity=each.m,
        )
        for name, each in zip(record["candidate_ids"] or (), stored, strict=True)
    ]


class Busy(Struct, frozen=True, kw_only=True):
    """A request that was answered often lately, as the log keeps it, and under which name of its strategy."""

    tenant_id: TenantId
    request: bytes
    strategy: str
    answers: int


LATELY: Final = timedelta(hours=6)
"""What was answered since then says what will be asked."""

# Of each tenant the latest hundred rows, by its key: however large the log, and without an index of its own.
_BUSY: Final = """
select t.tenant_id, b.request, b.strategy, b.n from tenants t
cross join lateral (
    select a.request::text as request, a.strategy, count(*) as n from (
        select a.request, a.strategy, a.kind from answers a where a.tenant_id = t.tenant_id and a.answer_id >= $1
        order by a.answer_id desc limit 100) a
    where a.kind = 0 group by a.request, a.strategy having count(*) > 1) b
where t.deleted_at is null order by b.n desc, t.tenant_id, b.request limit $2
"""


async def busy_requests(database: Database, *, now: datetime, limit: int) -> list[Busy]:
    """The requests of all tenants that came again and again within `LATELY`, the most frequent first."""
    async with database.system_session(reason="find busy lists") as conn:
        records = await fetch(conn, _BUSY, first_id(now - LATELY), limit)
    return [
        Busy(
            tenant_id=TenantId(record["tenant_id"]),
            request=record["request"].encode(),
            strategy=record["strategy"],
            answers=record["n"],
        )
        for record in records
    ]


async def make_partitions(database: Database, now: datetime) -> None:
    """Make sure that the log has a place for what is answered now. The daily upkeep does it too; here, so that a
    process that has just been started can log at once."""
    async with database.system_session(reason="make partitions of the answer log") as conn:
        await ensure_partitions(await driver(conn), now)


def first_id(moment: datetime) -> UUID:
    """The smallest id that an answer of that moment or later can have: a bound of the log in time."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)

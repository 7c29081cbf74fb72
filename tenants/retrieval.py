"""Items found for an answer: by likeness, by age, by words. One statement each, one round trip.

A statement is put together from constant fragments; every value is bound.
Order is total (score, then item number), so a list that is cut and filtered
afterwards is a prefix of the exact one: `Found.complete` says whether it was
cut before enough survived.
"""

from collections.abc import Sequence
from datetime import datetime
from math import sqrt
from typing import Any, Final

import numpy as np
from msgspec import Struct

from infra.db import Database
from tenants.filters import Compiler, Filter
from tenants.lifecycle import Generation, SpaceRef, TenantRef
from tenants.vectorform import halfvec_text

_TENANT: Final = "$2::uuid"

SCALAR_FIELDS: Final = frozenset({"group_id", "brand", "seller_id", "currency", "gtin", "language"})
"""Fields of `same` and `max_per` that are columns of the facets; besides categories, tags and attributes.x."""


class Hit(Struct, frozen=True):
    """One item found. `text` and `image` are its shares of `score` (0..1); None where a half played no part."""

    item_no: int
    id: str
    group_id: str | None
    score: float
    text: float | None
    image: float | None
    text_cosine: float | None
    image_cosine: float | None
    capped: tuple[str | None, ...]
    doc: str | None
    photos: str | None


class Found(Struct, frozen=True, kw_only=True):
    """`hits` in order. `known` are the seeds that exist; `complete`: there is no further hit beyond these."""

    hits: list[Hit]
    known: list[str]
    complete: bool


class Wanted(Struct, frozen=True, kw_only=True):
    """What any list must obey, whatever finds it."""

    now: datetime
    limit: int
    filter: Filter | None = None
    exclude_ids: Sequence[str] = ()
    exclude_nos: Sequence[int] = ()
    out_of_stock: bool = False
    max_per: Sequence[str] = ()
    with_doc: bool = False
    with_photos: bool = False


class Likeness(Struct, frozen=True, kw_only=True):
    """Like these items: `text_weight` and `image_weight` are the dial (not both 0)."""

    seeds: Sequence[str]
    text_weight: float
    image_weight: float
    same: Sequence[str] = ()
    min_score: float = 0.0


class _Statement:
    """Parameters and the fragments that all lists share."""

    def __init__(self, tenant: TenantRef, wanted: Wanted) -> None:
        self.tenant = tenant
        self.wanted = wanted
        self.args: list[Any] = [str(tenant.tenant_id), tenant.tenant_id]
        self.compiler = Compiler(self.args, tenant=_TENANT)
        self.now = self.bind(wanted.now, "timestamptz")

    def bind(self, value: object, kind: str) -> str:
        return self.compiler.bind(value, kind)

    def eligible(self) -> str:
        """The condition on `item_facets f` that every recommended item meets."""
        wanted = self.wanted
        parts = [f"f.tenant_id = {_TENANT}", "not f.hidden"]
        parts += [f"f.available_from <= {self.now}", f"f.expires_at > {self.now}"]
        if not wanted.out_of_stock:
            parts.append("f.availability < 3")
        if wanted.filter is not None:
            parts.append(self.compiler.sql(wanted.filter))
        if wanted.exclude_nos:
            parts.append(f"f.item_no <> all({self.bind(list(wanted.exclude_nos), 'int4[]')})")
        if wanted.exclude_ids:
            ids = self.bind(list(wanted.exclude_ids), "text[]")
            parts.append(
                f"f.item_no not in (select d.item_no from item_ids d "
                f"where d.tenant_id = {_TENANT} and d.external_id = any({ids}))"
            )
        return " and ".join(parts)

    def extras(self) -> tuple[str, str]:
        """The columns for `max_per`, the document and its uploaded photos, and the join they need."""
        fields = [self._capped(field) for field in self.wanted.max_per]
        capped = f"array[{', '.join(fields)}]::text[]" if fields else "null::text[]"
        doc = "i.doc::text" if self.wanted.with_doc else "null::text"
        needed = self.wanted.with_doc or any("i.doc" in field for field in fields)
        join = f" join items i on i.tenant_id = {_TENANT} and i.item_no = f.item_no" if needed else ""
        photos = "null::text"
        if self.wanted.with_photos:
            photos = (
                "(select jsonb_object_agg(p.position, encode(p.sha256, 'hex'))::text from item_photos p "
                f"where p.tenant_id = {_TENANT} and p.item_no = f.item_no)"
            )
        return f"{capped} as capped, {doc} as doc, {photos} as photos", join

    def _capped(self, field: str) -> str:
        if field in SCALAR_FIELDS:
            return f"f.{field}"
        if field.startswith("attributes."):
            return f"i.doc -> 'attributes' ->> {self.bind(field.removeprefix('attributes.'), 'text')}"
        return f"i.doc -> {self.bind(field, 'text')} ->> 0"

    def fused(self) -> str:
        """The rows of `fused_vectors v` of the serving layout; shard and layout are literals, for pruning."""
        return (
            f"v.shard = {int(self.tenant.shard)} and v.tenant_id = {_TENANT} "
            f"and v.layout_id = {int(self.tenant.generation.layout_id)}"
        )

    def one_per_group(self, order: str) -> str:
        group = "coalesce(f.group_id, f.item_no::text), f.group_id is null"
        return f"row_number() over (partition by {group} order by {order})"


def _same(statement: _Statement, fields: Sequence[str]) -> str:
    """Conditions that a field equals that of one of the seeds (`seed` is the statement's own)."""
    parts = []
    for field in fields:
        if field in SCALAR_FIELDS:
            parts.append(f"f.{field} in (select sf.{field} from seed_facets sf)")
            continue
        name = statement.bind(field, "text")
        # Of categories only the paths as given count, not their ancestors.
        given = " and a.value_num = 1 and b.value_num = 1" if field == "categories" else ""
        parts.append(
            f"f.item_no in (select a.item_no from item_attrs a join item_attrs b on b.tenant_id = {_TENANT} "
            f"and b.name = {name} and b.value_text is not distinct from a.value_text "
            f"and b.value_num is not distinct from a.value_num{given} "
            f"where a.tenant_id = {_TENANT} and a.name = {name} "
            f"and b.item_no in (select sf.item_no from seed_facets sf))"
        )
    return "".join(f" and {part}" for part in parts)


def _spread(space: SpaceRef) -> tuple[float, float]:
    return space.mean, max(space.dev, 1e-3)


async def find_similar(database: Database, tenant: TenantRef, wanted: Wanted, likeness: Likeness) -> Found:
    """Items like the seeds, the seeds and their groups left out.

    score = clip(z / z of an identical item), z = the weighted sum of the
    cosines, each centred and scaled by its space's random pairs, over the
    halves that both sides have, divided by the norm of their weights.
    """
    # A filter is applied before the cut; without one the cut is made first and wide, and checked afterwards.
    if wanted.filter is None and not likeness.same and not likeness.min_score:
        first = wanted.limit * 2 + len(wanted.exclude_nos) + len(wanted.exclude_ids) + 60
        found = await _similar(database, tenant, wanted, likeness, cut=first, filter_first=False)
        if found.complete or len(found.hits) >= wanted.limit:
            return found
    found = await _similar(database, tenant, wanted, likeness, cut=wanted.limit * 4 + 200, filter_first=True)
    if found.complete or len(found.hits) >= wanted.limit:
        return found
    return await _similar(database, tenant, wanted, likeness, cut=None, filter_first=True)


def _query_vectors(statement: _Statement, likeness: Likeness) -> str:
    """CTEs `seed_facets` and `q`: the mean of the seeds, scaled so that one inner product weighs both halves."""
    generation = statement.tenant.generation
    dim_text, dim_image = generation.text.dim, generation.image.dim
    ids = statement.bind(list(likeness.seeds), "text[]")
    weight_text = statement.bind(likeness.text_weight, "float8")
    weight_image = statement.bind(likeness.image_weight, "float8")
    text_mean, text_dev = _spread(generation.text)
    gram_mean, gram_dev = _spread(generation.ngrams)
    image_mean, image_dev = _spread(generation.image)
    return f"""
    known as materialized (
        select d.external_id, d.item_no from item_ids d
        join items i on i.tenant_id = {_TENANT} and i.item_no = d.item_no
        where d.tenant_id = {_TENANT} and d.external_id = any({ids})
    ), seed as materialized (
        select v.item_no, v.vec, v.text_space, v.image_space
        from known k join fused_vectors v on v.item_no = k.item_no and {statement.fused()}
    ), seed_facets as materialized (
        select sf.* from known k join item_facets sf on sf.tenant_id = {_TENANT} and sf.item_no = k.item_no
    ), space as materialized (
        select mode() within group (order by text_space) filter (where text_space > 0) as text_space from seed
    ), mean as materialized (
        select p.text_space,
            avg(subvector(s.vec, 1, {dim_text})) filter (where s.text_space = p.text_space) as text,
            avg(subvector(s.vec, {dim_text + 1}, {dim_image})) filter (where s.image_space > 0) as image
        from seed s cross join space p group by p.text_space
    ), weight as materialized (
        select m.*, case when m.text is null then 0 else {weight_text} end as wt,
            case when m.image is null then 0 else {weight_image} end as wi,
            case when m.text_space = {int(generation.ngrams.space_id)} then {gram_mean!r}::float8
                else {text_mean!r}::float8 end as text_mean,
            case when m.text_space = {int(generation.ngrams.space_id)} then {gram_dev!r}::float8
                else {text_dev!r}::float8 end as text_dev,
            {image_mean!r}::float8 as image_mean, {image_dev!r}::float8 as image_dev
        from mean m
    ), q as materialized (
        select w.text_space, w.text, w.image, w.wt, w.wi, w.text_mean, w.text_dev, w.image_mean, w.image_dev,
            (w.wt * (1 - w.text_mean) / w.text_dev + w.wi * (1 - w.image_mean) / w.image_dev)
                / sqrt(w.wt * w.wt + w.wi * w.wi) as best,
            h.text || h.image as fused,
            array_fill(0, array[{dim_text}])::halfvec || h.image as image_only,
            w.wt * w.text_mean / w.text_dev as text_bias, w.wi * w.image_mean / w.image_dev as image_bias
        from weight w cross join lateral (select
            coalesce(w.text, array_fill(0, array[{dim_text}])::halfvec)
                * array_fill(w.wt / w.text_dev, array[{dim_text}])::halfvec as text,
            coalesce(w.image, array_fill(0, array[{dim_image}])::halfvec)
                * array_fill(w.wi / w.image_dev, array[{dim_image}])::halfvec as image) h
        where w.wt > 0 or w.wi > 0
    )"""


# The score of a fused row `v` against `q` by one inner product; null where no half is shared. Every use stands in
# a sub-select with `offset 0`, so that it is computed once per row, not again for the test and the order.
_NEAR: Final = """
    (-(v.vec <#> case when v.text_space in (0, q.text_space) then q.fused else q.image_only end)
        - case when v.text_space = q.text_space then q.text_bias else 0 end
        - case when v.image_space > 0 then q.image_bias else 0 end)
    / nullif(sqrt(case when v.text_space = q.text_space then q.wt * q.wt else 0 end
        + case when v.image_space > 0 then q.wi * q.wi else 0 end), 0)"""


async def _similar(
    database: Database, tenant: TenantRef, wanted: Wanted, likeness: Likeness, *, cut: int | None, filter_first: bool
) -> Found:
    statement = _Statement(tenant, wanted)
    query = _query_vectors(statement, likeness)
    limit = "all" if cut is None else statement.bind(cut, "int8")
    eligible = (
        statement.eligible()
        + " and f.item_no not in (select k.item_no from known k)"
        + " and (f.group_id is null or f.group_id not in (select sf.group_id from seed_facets sf"
        + " where sf.group_id is not null))"
        + _same(statement, likeness.same)
    )
    if filter_first:
        near = f"""
        select v.item_no, {_NEAR} as z
        from q, item_facets f join fused_vectors v on v.item_no = f.item_no and {statement.fused()}
        where {eligible} offset 0"""
        eligible = f"f.tenant_id = {_TENANT}"
    else:
        near = f"select v.item_no, {_NEAR} as z from q, fused_vectors v where {statement.fused()} offset 0"
    columns, join = statement.extras()
    dim_text, dim_image = tenant.generation.text.dim, tenant.generation.image.dim
    minimum = statement.bind(likeness.min_score, "float8")
    wanted_rows = statement.bind(wanted.limit, "int8")
    inner = f"""
    with {query}, near as materialized (
        select n.item_no, n.z from ({near}) n where n.z is not null order by n.z desc, n.item_no limit {limit}
    ), exact as materialized (
        select n.item_no, c.t as text_cosine, c.i as image_cosine, p.t as text, p.i as image,
            greatest(0, least(1, coalesce(p.t, 0) + coalesce(p.i, 0))) as score,
            coalesce(p.t, 0) + coalesce(p.i, 0) as z
        from near n cross join q join fused_vectors v on v.item_no = n.item_no and {statement.fused()}
        cross join lateral (select
            case when q.wt > 0 and v.text_space = q.text_space
                then -(subvector(v.vec, 1, {dim_text}) <#> q.text) end as t,
            case when q.wi > 0 and v.image_space > 0
                then -(subvector(v.vec, {dim_text + 1}, {dim_image}) <#> q.image) end as i) c
        cross join lateral (select q.best * sqrt(case when c.t is null then 0 else q.wt * q.wt end
            + case when c.i is null then 0 else q.wi * q.wi end) as norm) o
        cross join lateral (select q.wt * (c.t - q.text_mean) / q.text_dev / o.norm as t,
            q.wi * (c.i - q.image_mean) / q.image_dev / o.norm as i) p
    ), hits as (
        select f.item_no, d.external_id, f.group_id, e.score, e.text, e.image, e.text_cosine, e.image_cosine, e.z,
            {statement.one_per_group("e.z desc, f.item_no")} as in_group, {columns}
        from exact e join item_facets f on f.item_no = e.item_no
        join item_ids d on d.tenant_id = {_TENANT} and d.item_no = f.item_no{join}
        where {eligible} and e.score >= {minimum}
    )
    select (select array_agg(k.external_id) from known k) as known, (select count(*) from near) as seen, h.*
    from (select 1) one left join lateral (
        select * from hits where in_group = 1 order by z desc, item_no limit {wanted_rows}) h on true"""
    records = await database.fetch_scoped(tenant.tenant_id, inner, *statement.args[2:])
    return _found(records, cut, wanted.limit)


def _found(records: Sequence[Any], cut: int | None, limit: int) -> Found:
    hits = [
        Hit(
            record["item_no"],
            record["external_id"],
            record["group_id"],
            record["score"],
            record["text"],
            record["image"],
            record["text_cosine"],
            record["image_cosine"],
            tuple(record["capped"] or ()),
            record["doc"],
            record["photos"],
        )
        for record in records
        if record["item_no"] is not None
    ]
    first = records[0]
    everything = cut is None or first["seen"] < cut
    return Found(hits=hits, known=first["known"] or [], complete=everything and len(hits) < limit)


async def find_newest(database: Database, tenant: TenantRef, wanted: Wanted) -> Found:
    """The newest items first; the newest of each group."""
    cut = wanted.limit * 2 + 100
    found = await _newest(database, tenant, wanted, cut)
    if found.complete or len(found.hits) >= wanted.limit:
        return found
    return await _newest(database, tenant, wanted, None)


async def _newest(database: Database, tenant: TenantRef, wanted: Wanted, cut: int | None) -> Found:
    statement = _Statement(tenant, wanted)
    limit = "all" if cut is None else statement.bind(cut, "int8")
    eligible = statement.eligible()
    columns, join = statement.extras()
    rows = statement.bind(wanted.limit, "int8")
    inner = f"""
    with near as materialized (
        select f.item_no, f.group_id, f.created_at from item_facets f where {eligible}
        order by f.created_at desc, f.item_no desc limit {limit}
    ), firsts as materialized (
        select n.* from (select f.*, {statement.one_per_group("f.created_at desc, f.item_no desc")} as in_group
            from near f) n
        where n.in_group = 1 order by n.created_at desc, n.item_no desc limit {rows}
    ), hits as (
        select f.item_no, d.external_id, f.group_id, n.created_at,
            1.0 / (1 + row_number() over (order by n.created_at desc, n.item_no desc) / 10.0)::float8 as score,
            null::float8 as text, null::float8 as image, null::float8 as text_cosine, null::float8 as image_cosine,
            {columns}
        from firsts n join item_facets f on f.tenant_id = {_TENANT} and f.item_no = n.item_no
        join item_ids d on d.tenant_id = {_TENANT} and d.item_no = f.item_no{join}
    )
    select null::text[] as known, (select count(*) from near) as seen, h.*
    from (select 1) one left join lateral (
        select * from hits order by created_at desc, item_no desc) h on true"""
    records = await database.fetch_scoped(tenant.tenant_id, inner, *statement.args[2:])
    return _found(records, cut, wanted.limit)


class Spoken(Struct, frozen=True, kw_only=True):
    """A search query, encoded as far as it could be. Vectors are float32[dim], L2-normalised."""

    tokens: Sequence[str]
    text: np.ndarray | None = None
    ngrams: np.ndarray | None = None
    image: np.ndarray | None = None
    words_weight: float = 1.0
    vectors_weight: float = 1.0


RRF_K: Final = 60
"""Cormack, Clarke and Buettcher (SIGIR 2009)."""


async def find_spoken(database: Database, tenant: TenantRef, wanted: Wanted, spoken: Spoken) -> Found:
    """Search: the lists by words and by vectors, joined by reciprocal rank fusion. `text` is the words' share."""
    cut = wanted.limit * 2 + 200
    found = await _spoken(database, tenant, wanted, spoken, cut)
    if found.complete or len(found.hits) >= wanted.limit:
        return found
    return await _spoken(database, tenant, wanted, spoken, None)


def _scaled(vector: np.ndarray | None, space: SpaceRef) -> np.ndarray:
    if vector is None:
        return np.zeros(space.dim, dtype=np.float32)
    return vector / np.float32(_spread(space)[1])


def _vector_order(statement: _Statement, spoken: Spoken) -> str | None:
    """The SQL of a row's z score against the query's vectors; None when there is none."""
    generation: Generation = statement.tenant.generation
    halves = [(generation.text, spoken.text), (generation.ngrams, spoken.ngrams)]
    if spoken.image is None and all(vector is None for _, vector in halves):
        return None
    image = _scaled(spoken.image, generation.image)
    image_mean, image_dev = _spread(generation.image)
    has_image = spoken.image is not None
    cases = []
    for space, vector in halves:
        if vector is None:
            continue
        query = statement.bind(halfvec_text(np.concatenate([_scaled(vector, space), image])), "text")
        mean, dev = _spread(space)
        image_bias = image_mean / image_dev * has_image
        bias = f"{mean / dev!r}::float8 + case when v.image_space > 0 then {image_bias!r}::float8 else 0 end"
        norm = f"case when v.image_space > 0 then {sqrt(1 + has_image)!r}::float8 else 1 end"
        cases.append(
            f"when v.text_space = {int(space.space_id)} then (-(v.vec <#> {query}::halfvec) - ({bias})) / {norm}"
        )
    if has_image:
        blank = np.zeros(generation.text.dim, dtype=np.float32)
        query = statement.bind(halfvec_text(np.concatenate([blank, image])), "text")
        cases.append(f"when v.image_space > 0 then -(v.vec <#> {query}::halfvec) - {image_mean / image_dev!r}::float8")
    return f"case {' '.join(cases)} end"


async def _spoken(database: Database, tenant: TenantRef, wanted: Wanted, spoken: Spoken, cut: int | None) -> Found:
    statement = _Statement(tenant, wanted)
    limit = "all" if cut is None else statement.bind(cut, "int8")
    eligible = statement.eligible()
    order = _vector_order(statement, spoken)
    tokens = statement.bind([f"'{token}'" for token in spoken.tokens], "text[]")
    any_token = statement.bind(" | ".join(f"'{token}'" for token in spoken.tokens), "text")
    words_weight = statement.bind(spoken.words_weight, "float8")
    vectors_weight = statement.bind(spoken.vectors_weight, "float8")
    columns, join = statement.extras()
    rows = statement.bind(wanted.limit, "int8")
    by_vector = (
        "select null::int4 as item_no, null::float8 as z where false"
        if order is None
        else f"select v.item_no, {order} as z from item_facets f "
        f"join fused_vectors v on v.item_no = f.item_no and {statement.fused()} where {eligible} offset 0"
    )
    inner = f"""
    with matching as materialized (
        select w.item_no, w.words from item_text w
        join item_facets f on f.item_no = w.item_no
        where w.shard = {int(tenant.shard)} and w.tenant_id = {_TENANT}
            and w.words @@ {any_token}::tsquery and {eligible}
    ), token as materialized (
        select t.token::tsquery as anywhere, (t.token || ':A')::tsquery as in_title,
            ln(1 + ((select count(*) from matching) - c.n + 0.5) / (c.n + 0.5)) + 0.01 as idf
        from unnest({tokens}) t(token)
        cross join lateral (select count(*) as n from matching m where m.words @@ t.token::tsquery) c
    ), by_words as materialized (
        select m.item_no, row_number() over (order by sum(
            case when m.words @@ t.in_title then 2 else 1 end * t.idf) desc, length(m.words), m.item_no) as place
        from matching m join token t on m.words @@ t.anywhere
        group by m.item_no, m.words order by place limit {limit}
    ), by_vector as materialized (
        select n.item_no, row_number() over (order by n.z desc, n.item_no) as place
        from ({by_vector}) n where n.z is not null order by place limit {limit}
    ), fused as (
        select coalesce(w.item_no, v.item_no) as item_no,
            {words_weight} / ({RRF_K} + w.place) as words, {vectors_weight} / ({RRF_K} + v.place) as vectors
        from by_words w full join by_vector v on v.item_no = w.item_no
    ), hits as (
        select f.item_no, d.external_id, f.group_id, o.score, u.words / o.best as text, u.vectors / o.best as image,
            null::float8 as text_cosine, null::float8 as image_cosine,
            {statement.one_per_group("o.score desc, f.item_no")} as in_group, {columns}
        from fused u join item_facets f on f.tenant_id = {_TENANT} and f.item_no = u.item_no
        join item_ids d on d.tenant_id = {_TENANT} and d.item_no = f.item_no{join}
        cross join lateral (select b.best, (coalesce(u.words, 0) + coalesce(u.vectors, 0)) / b.best as score
            from (select ({words_weight} + {vectors_weight}) / ({RRF_K} + 1) as best) b) o
    )
    select null::text[] as known, greatest((select count(*) from by_words), (select count(*) from by_vector)) as seen,
        h.* from (select 1) one left join lateral (
        select * from hits where in_group = 1 order by score desc, item_no limit {rows}) h on true"""
    records = await database.fetch_scoped(tenant.tenant_id, inner, *statement.args[2:])
    return _found(records, cut, wanted.limit)

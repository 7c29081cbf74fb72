"""Search: the lists by words and by vectors, joined."""

from collections.abc import Sequence
from math import sqrt
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from infra.db import Database
from tenants.catalog.words import TITLE_MARK
from tenants.lifecycle import Generation, SpaceRef, TenantRef
from tenants.retrieval.nearest import FILTERED_CUT, FIRST_CUT, HalfQuery, each, nearest, passes_few, rounded
from tenants.retrieval.wanted import TENANT, Found, Statement, Wanted, found_of, one_per_group, spread
from tenants.vectors.form import halfvec_text


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
    exact: list[tuple[bool, int | None]] = [(False, rounded(wanted.limit * 2 + 200)), (False, None)]
    for by_index, cut in [*await _by_index(database, tenant, wanted, spoken), *exact]:
        found = await _spoken(database, tenant, wanted, spoken, cut, by_index=by_index)
        if found.complete or len(found.hits) >= wanted.limit:
            break
    return found


async def _by_index(
    database: Database, tenant: TenantRef, wanted: Wanted, spoken: Spoken
) -> list[tuple[bool, int | None]]:
    """The attempts that take the vectors' list from the index of the tenant's own shard."""
    if tenant.shard == 0 or not _halves(Statement(tenant, wanted), spoken):
        return []
    if wanted.filter is None:
        return [(True, rounded(max(FIRST_CUT, wanted.limit * 2 + 200)))]
    statement = Statement(tenant, wanted)
    if await passes_few(database, statement, statement.eligible()):
        return []
    return [(True, rounded(max(FILTERED_CUT, wanted.limit * 2)))]


def _halves(statement: Statement, spoken: Spoken) -> list[HalfQuery]:
    """What of the query there is a vector of, by space."""
    generation = statement.tenant.generation
    given: list[tuple[Literal["text", "image"], SpaceRef, np.ndarray | None]] = [
        ("text", generation.text, spoken.text),
        ("image", generation.image, spoken.image),
    ]
    if generation.ngrams.space_id != generation.text.space_id:
        given.append(("text", generation.ngrams, spoken.ngrams))
    return [
        HalfQuery(kind=kind, space=space, vector=_bound(statement, vector))
        for kind, space, vector in given
        if vector is not None and space.space_id
    ]


def _scaled(vector: np.ndarray | None, space: SpaceRef) -> np.ndarray:
    if vector is None:
        return np.zeros(space.dim, dtype=np.float32)
    return vector / np.float32(spread(space)[1])


def _bound(statement: Statement, vector: np.ndarray) -> str:
    """The SQL of a vector that is read once: a generic plan parses a bare parameter again for each row."""
    return f"(select {statement.bind(halfvec_text(vector), 'text')}::halfvec)"


def _vector_order(statement: Statement, spoken: Spoken) -> str | None:
    """The SQL of a row's z score against the query's vectors; None when there is none.

    Calibrations are bound, so that tenants of one layout share their statements.
    """
    generation: Generation = statement.tenant.generation
    halves = [(generation.text, spoken.text), (generation.ngrams, spoken.ngrams)]
    if spoken.image is None and all(vector is None for _, vector in halves):
        return None
    image = _scaled(spoken.image, generation.image)
    image_mean, image_dev = spread(generation.image)
    has_image = spoken.image is not None
    cases = []
    for space, vector in halves:
        if vector is None:
            continue
        query = _bound(statement, np.concatenate([_scaled(vector, space), image]))
        mean, dev = spread(space)
        image_bias = image_mean / image_dev * has_image
        bias = (
            f"{statement.bind(mean / dev, 'float8')} "
            f"+ case when v.image_space > 0 then {statement.bind(image_bias, 'float8')} else 0 end"
        )
        norm = f"case when v.image_space > 0 then {sqrt(1 + has_image)!r}::float8 else 1 end"
        cases.append(f"when v.text_space = {int(space.space_id)} then (-(v.vec <#> {query}) - ({bias})) / {norm}")
    if has_image:
        blank = np.zeros(generation.text.dim, dtype=np.float32)
        query = _bound(statement, np.concatenate([blank, image]))
        bias = statement.bind(image_mean / image_dev, "float8")
        cases.append(f"when v.image_space > 0 then -(v.vec <#> {query}) - {bias}")
    return f"case {' '.join(cases)} end"


class _Words:
    """SQL of the words' list: a token counts by its rarity among the items found, twice in the title.

    A column for each token, so that no item's words are kept or looked at again: sorted and grouped with their
    words, 20,000 items with a common token took 390 ms instead of 100.
    """

    def __init__(self, statement: Statement, tokens: Sequence[str]) -> None:
        def has(*alternatives: str) -> str:
            # A sub-select, so that the text is parsed once, not for each row.
            return f"w.words @@ (select {statement.bind(' | '.join(alternatives), 'text')}::tsquery)"

        quote = "'"
        places = range(len(tokens))
        self.has_any = has(*(f"'{token}'" for token in tokens))
        self.found = ", ".join(
            f"case when {has(f'{quote}{TITLE_MARK}{token}{quote}')} then 2 "
            f"when {has(f'{quote}{token}{quote}')} then 1 else 0 end as h{place}"
            for place, token in enumerate(tokens)
        )
        self.counts = ", ".join(f"count(*) filter (where h{place} > 0) as c{place}" for place in places)
        self.idf = ", ".join(
            f"ln(1 + (c.n - c.c{place} + 0.5) / (c.c{place} + 0.5))::float8 + 0.01 as i{place}" for place in places
        )
        self.score = " + ".join(f"m.h{place} * idf.i{place}" for place in places)
        if not tokens:
            self.found, self.counts, self.idf, self.score = "0 as h", "0 as c", "0 as i", "0"


async def _spoken(
    database: Database, tenant: TenantRef, wanted: Wanted, spoken: Spoken, cut: int | None, *, by_index: bool
) -> Found:
    statement = Statement(tenant, wanted)
    # Written out: of a bound limit the planner expects a tenth of all rows to be left.
    limit = "all" if cut is None else str(int(cut))
    eligible = statement.eligible()
    order = _vector_order(statement, spoken)
    words = _Words(statement, spoken.tokens)
    words_weight = statement.bind(spoken.words_weight, "float8")
    vectors_weight = statement.bind(spoken.vectors_weight, "float8")
    columns, join = statement.extras()
    rows = statement.bind(wanted.limit, "int8")
    first = ""
    if order is None:
        by_vector = "select null::int4 as item_no, null::float8 as z where false"
    elif by_index:
        assert cut is not None
        passing = None if wanted.filter is None else eligible
        walk, near = nearest(statement, _halves(statement, spoken), score=order, cut=cut, passing=passing)
        first = f"{walk}, "
        by_vector = near
        if passing is None:
            by_vector = (
                f"select n.item_no, n.z from ({near}) n join item_facets f on f.item_no = n.item_no where {eligible}"
            )
    else:
        by_vector = (
            f"select v.item_no, {order} as z from item_facets f "
            f"join fused_vectors v on v.item_no = f.item_no and {statement.fused()} where {eligible} offset 0"
        )
    inner = f"""
    with {first}matching as materialized (
        select w.item_no, length(w.words) as size, {words.found} from item_text w
        join item_facets f on f.item_no = w.item_no
        where w.shard = {int(tenant.shard)} and w.tenant_id = {TENANT}
            and {words.has_any} and {eligible}
    ), idf as materialized (
        select {words.idf} from (select count(*) as n, {words.counts} from matching) c
    ), by_words as materialized (
        select b.item_no, row_number() over (order by b.score desc, b.size, b.item_no) as place
        from (select m.item_no, m.size, {words.score} as score from matching m cross join idf
            order by score desc, m.size, m.item_no limit {limit}) b
    ), by_vector as materialized (
        select b.item_no, row_number() over (order by b.z desc, b.item_no) as place
        from (select n.item_no, n.z from ({by_vector}) n where n.z is not null
            order by n.z desc, n.item_no limit {limit}) b
    ), fused as materialized (
        select coalesce(w.item_no, v.item_no) as item_no,
            {words_weight} / ({RRF_K} + w.place) as words, {vectors_weight} / ({RRF_K} + v.place) as vectors
        from by_words w full join by_vector v on v.item_no = w.item_no
    ), hits as (
        select f.item_no, f.group_id, o.score, u.words / o.best as text, u.vectors / o.best as image,
            null::float8 as text_cosine, null::float8 as image_cosine,
            {one_per_group("o.score desc, f.item_no")} as in_group, {columns}
        from fused u {each("item_facets", f"f.item_no = u.item_no and f.tenant_id = {TENANT}", alias="f")}
        {join}
        cross join lateral (select b.best, (coalesce(u.words, 0) + coalesce(u.vectors, 0)) / b.best as score
            from (select ({words_weight} + {vectors_weight}) / ({RRF_K} + 1) as best) b) o
    )
    select null::text[] as known, null::int4[] as known_nos,
        greatest((select count(*) from by_words), (select count(*) from by_vector)) as seen,
        h.*, d.external_id from (select 1) one left join lateral (
        select * from hits where in_group = 1 order by score desc, item_no limit {rows}) h on true
    left join lateral (select d.external_id from item_ids d where d.tenant_id = {TENANT} and d.item_no = h.item_no
        offset 0) d on true"""
    records = await database.fetch_scoped(tenant.tenant_id, inner, *statement.args[2:])
    found = found_of(records, cut, wanted.limit)
    return msgspec.structs.replace(found, complete=False) if by_index else found

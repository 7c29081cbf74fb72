"""The likest rows of a tenant with its own shard, found by index.

Each half of a fused row has a graph of its own, one for each space (tenants/vectors/shards.py): whatever the weights
of the two halves, the candidates are those near in either. A graph over whole rows is built for one weight and misses
nearly everything at another: recall@50 0.73 against 0.99 at 200,000 items, by text alone
(docs/decisions/0005-large-tenants.md).
"""

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from infra.db import Database
from tenants.lifecycle import SpaceRef
from tenants.retrieval.wanted import TENANT, Statement
from tenants.vectors.form import half_expression

FIRST_CUT: Final = 300
"""Candidates of each half. With 200 the worst of 100 lists of equal weights lost 40 % at 50,000 items; 400 take a
third longer."""

FILTERED_CUT: Final = 100
"""Candidates of each half that pass a filter, where there is one; at least twice the list's length. Of 200,000 items
100 found .992 to 1.000 of lists of 50 (12 seeds a shape), 200 found 1.000 and walked twice as far."""

_WALK: Final = 20
"""For each of them so many are looked at: of 200,000 items a filter that is not `FEW` passes one of 20 at least."""

WIDE_CUT: Final = 3_000
"""Candidates of each half, where many of them will not do for another reason; the graph is walked on until then."""

FEW: Final = 10_000
"""A filter that passes no more items than this is answered exactly, without the graph."""

_EF_MAX: Final = 400
"""Beyond this the graph is walked on in portions rather than with a longer list."""


def rounded(cut: int) -> int:
    """The cut is part of the statement's text, for the planner's sake; few texts are prepared, not one per limit."""
    return -(-cut // 100) * 100


class HalfQuery(Struct, frozen=True, kw_only=True):
    """One half of a query in one space: `vector` and `when` (whether it plays a part) are SQL."""

    kind: Literal["text", "image"]
    space: SpaceRef
    vector: str
    when: str = "true"


def nearest(
    statement: Statement,
    halves: Sequence[HalfQuery],
    *,
    score: str,
    cut: int,
    query: str | None = None,
    passing: str | None = None,
) -> tuple[str, str]:
    """Two pieces of SQL: a CTE that has to precede, and the rows (item_no, z) near in any half.

    `score` is z in terms of `fused_vectors v` and of the CTE `query`, where there is one. `cut` is of each half.
    With `passing`, a condition on `item_facets f`, the graph is walked until `cut` rows meet it: how far depends on
    the filter, and what it leaves out is neither scored nor looked at again. A fixed cut before the filter of 2,000
    took 170 ms at 200,000 items where a tenth passes, and as long where half of them does.
    """
    walked = cut * _WALK if passing else cut
    walk = "relaxed_order" if walked > _EF_MAX else "off"
    settings = (
        f"walk as materialized (select set_config('hnsw.ef_search', '{min(walked, _EF_MAX)}', true) as ef, "
        f"set_config('hnsw.iterative_scan', '{walk}', true) as scan)"
    )
    outer = f"{query} cross join lateral " if query else ""
    # Asked of each row as it comes: the join is by the key, and the walk ends with the limit.
    facets = each("item_facets", f"f.item_no = v.item_no and f.tenant_id = {TENANT}", alias="f")
    test = f"{facets} where {passing} limit {int(cut)}" if passing else ""
    text_dim = statement.tenant.generation.text.dim
    branches = []
    for half in halves:
        near = half_expression(half.kind, text_dim, half.space.dim, "v.")
        # Without a variable of the row, so both conditions are asked before the index is opened.
        gate = f"{half.when} and (select w.scan from walk w where w.ef is not null) is not null"
        branches.append(
            f"(select v.item_no, {score} as z from {outer}("
            f"select v.item_no, v.vec, v.text_space, v.image_space from fused_vectors v where {statement.fused()} "
            f"and v.{half.kind}_space = {int(half.space.space_id)} and {gate} "
            f"order by {near} <#> ({half.vector})::halfvec({half.space.dim}) limit {int(walked)}) v {test})"
        )
    # The same row has the same z from either half.
    return settings, f"select distinct b.item_no, b.z from ({' union all '.join(branches)}) b"


async def passes_few(database: Database, statement: Statement, condition: str, ctes: str | None = None) -> bool:
    """Whether no more than `FEW` rows of `item_facets f` meet the condition, which may read the `ctes`."""
    before = f"with {ctes} " if ctes else ""
    inner = f"{before}select count(*) as n from (select 1 from item_facets f where {condition} limit {FEW + 1}) few"
    (record,) = await database.fetch_scoped(statement.tenant.tenant_id, inner, *statement.args[2:])
    few: bool = record["n"] <= FEW
    return few


def each(table: str, condition: str, *, alias: str) -> str:
    """SQL that joins the one row of a table that meets the condition, by its key.

    As a join the planner, which does not know how few candidates there are, may read the whole table instead.
    `condition` may name columns only: under row-level security an expression keeps the key from being used.
    """
    return f"cross join lateral (select {alias}.* from {table} {alias} where {condition} offset 0) {alias}"

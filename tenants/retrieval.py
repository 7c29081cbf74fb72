"""Items found for an answer: by likeness, by age, by words. One statement each, one round trip.

Order is total (score, then item number), so a list that is cut and filtered
afterwards is a prefix of the exact one: `Found.complete` says whether it was
cut before enough survived. Of a tenant with its own shard (tenants/shards.py)
the likest are found by index and then scored exactly.
"""

from infra.db import Database
from tenants.lifecycle import TenantRef
from tenants.likeness import Likeness, find_similar
from tenants.nearest import each, rounded
from tenants.speech import RRF_K, Spoken, find_spoken
from tenants.wanted import SCALAR_FIELDS, TENANT, Found, Hit, Statement, Wanted, found_of, one_per_group

__all__ = [
    "RRF_K",
    "SCALAR_FIELDS",
    "Found",
    "Hit",
    "Likeness",
    "Spoken",
    "Wanted",
    "find_newest",
    "find_similar",
    "find_spoken",
]


async def find_newest(database: Database, tenant: TenantRef, wanted: Wanted) -> Found:
    """The newest items first; the newest of each group."""
    cut = rounded(wanted.limit * 2 + 100)
    found = await _newest(database, tenant, wanted, cut)
    if found.complete or len(found.hits) >= wanted.limit:
        return found
    return await _newest(database, tenant, wanted, None)


async def _newest(database: Database, tenant: TenantRef, wanted: Wanted, cut: int | None) -> Found:
    statement = Statement(tenant, wanted)
    # Written out: of a bound limit the planner expects a tenth of all rows to be left.
    limit = "all" if cut is None else str(int(cut))
    eligible = statement.eligible()
    columns, join = statement.extras()
    rows = statement.bind(wanted.limit, "int8")
    inner = f"""
    with near as materialized (
        select f.item_no, f.group_id, f.created_at from item_facets f where {eligible}
        order by f.created_at desc, f.item_no desc limit {limit}
    ), firsts as materialized (
        select n.* from (select f.*, {one_per_group("f.created_at desc, f.item_no desc")} as in_group
            from near f) n
        where n.in_group = 1 order by n.created_at desc, n.item_no desc limit {rows}
    ), hits as (
        select f.item_no, f.group_id, n.created_at,
            1.0 / (1 + row_number() over (order by n.created_at desc, n.item_no desc) / 10.0)::float8 as score,
            null::float8 as text, null::float8 as image, null::float8 as text_cosine, null::float8 as image_cosine,
            {columns}
        from firsts n {each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = n.item_no", alias="f")}{join}
    )
    select null::text[] as known, null::int4[] as known_nos, (select count(*) from near) as seen, h.*, d.external_id
    from (select 1) one left join lateral (
        select * from hits order by created_at desc, item_no desc) h on true
    left join lateral (select d.external_id from item_ids d where d.tenant_id = {TENANT} and d.item_no = h.item_no
        offset 0) d on true"""
    records = await database.fetch_scoped(tenant.tenant_id, inner, *statement.args[2:])
    return found_of(records, cut, wanted.limit)

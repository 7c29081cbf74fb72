"""The newest items: one statement, one round trip."""

from infra.db import Database
from tenants.lifecycle import TenantRef
from tenants.retrieval.nearest import each, rounded
from tenants.retrieval.wanted import TENANT, Found, Statement, Wanted, found_of, one_per_group


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

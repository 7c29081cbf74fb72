"""Calibration: how alike two random items of a shop are in a space, so that weights mean the same in every space."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from tenants.vectors.generations import Calibration, Layout

FIRST_MEASURED: Final = 100
"""Items from which a shop's own figures are better than those that come with the pack."""

SAMPLE: Final = 2000
_OFFSETS: Final = 2
_FEWEST_PAIRS: Final = 200


def milestone(items: int) -> int:
    """The largest of 100, 200, 400, … that is not above `items`; 0 below 100."""
    if items < FIRST_MEASURED:
        return 0
    reached = FIRST_MEASURED
    while reached * 2 <= items:
        reached *= 2
    return reached


# Each sampled row is paired with the next two in an order that has nothing to do with the items: 4,000 pairs
# estimate a mean within 0.004. The order is a hash, so that measuring again gives the same figures.
_MEASURE = """
with sample as materialized (
    select row_number() over (order by hashint4(v.item_no), v.item_no) as at, v.vec, v.text_space, v.image_space
    from fused_vectors v where v.shard = {shard} and v.tenant_id = $1 and v.layout_id = $2
    order by 1 limit $3
), pair as materialized (
    select a.text_space as text_a, b.text_space as text_b, a.image_space as image_a, b.image_space as image_b,
        a.vec as a, b.vec as b
    from sample a cross join generate_series(1, $4) step
    join sample b on b.at = (a.at + step - 1) % (select count(*) from sample) + 1 and b.at <> a.at
)
select text_a as space_id, count(*) as pairs, avg(cosine) as mean, coalesce(stddev_pop(cosine), 0) as dev
from (select text_a, -(subvector(a, 1, $5) <#> subvector(b, 1, $5)) as cosine
    from pair where text_a = text_b and text_a > 0 offset 0) t group by text_a
union all
select image_a, count(*), avg(cosine), coalesce(stddev_pop(cosine), 0)
from (select image_a, -(subvector(a, $5 + 1, $6) <#> subvector(b, $5 + 1, $6)) as cosine
    from pair where image_a = image_b and image_a > 0 offset 0) i group by image_a
"""


async def measure(conn: AsyncConnection, tenant_id: TenantId, layout: Layout, *, shard: int) -> Calibration:
    """Mean and deviation of random pairs of the tenant's own items, of each space with enough of them."""
    records = await (await driver(conn)).fetch(
        _MEASURE.format(shard=int(shard)),
        tenant_id,
        layout.layout_id,
        SAMPLE,
        _OFFSETS,
        layout.text_dim,
        layout.image_dim,
    )
    return {
        record["space_id"]: (round(record["mean"], 4), max(round(record["dev"], 4), 0.01))
        for record in records
        if record["pairs"] >= _FEWEST_PAIRS
    }

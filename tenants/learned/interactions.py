"""A tenant's catalogue, its vectors and what its shoppers did, in the form that an evaluation reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from tenants.lifecycle import TenantRef

_BATCH: Final = 1000


class ItemVectors(Struct, frozen=True, kw_only=True, eq=False):
    """The vectors that a tenant's items are served by, of the items `ids`: `text` and `image` float32[n, d], rows of
    length 1, or 0 where an item has none; `text_weight` 0..1 of text against photos; `spaces` their names.

    Texts that are encoded as character n-grams are in columns of their own, so that they compare only with their like.
    """

    ids: list[str]
    text: NDArray[np.float32]
    image: NDArray[np.float32]
    text_weight: float
    spaces: dict[str, str]


_EVENTS: Final = """
select e.shopper_no as shopper, d.external_id as item, w.weight as rating, e.ts as timestamp,
    coalesce(e.order_id, e.session_id, e.shopper_no || ' ' || (e.ts at time zone 'UTC')::date) as basket
from events e
join unnest($2::text[], $3::float8[]) w(type, weight) on w.type = e.type
join item_ids d on d.tenant_id = $1 and d.item_no = e.item_no
where e.tenant_id = $1 and e.shopper_no is not null and e.flags & 1 = 0 order by e.ts
"""


async def copy_interactions(
    conn: AsyncConnection, tenant_id: TenantId, weights: Mapping[str, float], path: Path
) -> None:
    """Write the events of people that speak for an item, oldest first, as CSV with a header; shoppers by number alone.

    `weights` are those of the tenant's event types; types of 0 and less are left out.
    """
    liked = {kind: weight for kind, weight in weights.items() if weight > 0}
    raw = await driver(conn)
    await raw.copy_from_query(
        _EVENTS, tenant_id, list(liked), list(liked.values()), output=str(path), format="csv", header=True
    )


async def copy_items(conn: AsyncConnection, tenant_id: TenantId, path: Path) -> None:
    """Write the catalogue's documents, one per line."""
    raw = await driver(conn)
    with path.open("w", encoding="utf-8") as file:
        async for record in raw.cursor(
            "select doc::text as doc from items where tenant_id = $1 order by item_no", tenant_id, prefetch=_BATCH
        ):
            file.write(record["doc"] + "\n")


async def load_vectors(conn: AsyncConnection, tenant: TenantRef) -> ItemVectors:
    """Read what is encoded of the tenant's serving generation."""
    generation = tenant.generation
    raw = await driver(conn)
    ids: list[str] = []
    rows: list[tuple[int, int, bytes]] = []
    statement = (
        "select d.external_id as id, v.text_space, v.image_space, halfvec_send(v.vec) as vec from fused_vectors v "
        "join item_ids d on d.tenant_id = $1 and d.item_no = v.item_no "
        f"where v.shard = {int(tenant.shard)} and v.tenant_id = $1 and v.layout_id = {int(generation.layout_id)} "
        "order by v.item_no"
    )
    async for record in raw.cursor(statement, tenant.tenant_id, prefetch=_BATCH):
        ids.append(record["id"])
        rows.append((record["text_space"], record["image_space"], record["vec"]))
    dim = generation.text.dim
    text = np.zeros((len(rows), 2 * dim), np.float32)
    image = np.zeros((len(rows), generation.image.dim), np.float32)
    for at, (text_space, image_space, vector) in enumerate(rows):
        # halfvec_send: two int16 (dimensions, unused), then the float16s, all big-endian.
        values = np.frombuffer(vector, dtype=">f2", offset=4)
        if text_space > 0:
            first = 0 if text_space == generation.text.space_id else dim
            text[at, first : first + dim] = values[:dim]
        if image_space > 0:
            image[at] = values[dim:]
    spaces = {"text": generation.text.name, "image": generation.image.name}
    text_weight = generation.text_weight / ((generation.text_weight + generation.image_weight) or 1.0)
    return ItemVectors(ids=ids, text=_unit(text), image=_unit(image), text_weight=text_weight, spaces=spaces)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)

"""Vector spaces and layouts: rows that all tenants share, so that a new encoder needs no DDL.

Every function takes the connection of a `system_session`.
"""

from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver

NGRAMS: Final = "char-ngrams-"
"""The n-gram space that stands in for a text space of `dim` is named by this and `dim`."""

UNSET: Final = "unset-"
"""Names of the spaces that tenants made before any worker ran begin with this."""

_TEXT_DIM, _IMAGE_DIM = 384, 256

DEFAULT_CALIBRATION: Final[dict[str, tuple[float, float]]] = {
    "text": (0.15, 0.12),
    "ngrams": (0.05, 0.07),
    "image": (0.45, 0.15),
}
"""Mean and deviation of the cosine of random pairs, until they are measured on the tenant's own items."""


async def ensure_space(conn: AsyncConnection, name: str, kind: Literal["text", "image"], dim: int) -> int:
    """The number of the space with that name, made where there is none."""
    raw = await driver(conn)
    await raw.execute(
        "insert into spaces (name, kind, dim) values ($1, $2, $3) on conflict do nothing", name, kind, dim
    )
    space_id: int = await raw.fetchval("select space_id from spaces where name = $1", name)
    return space_id


async def ensure_layout(conn: AsyncConnection, text_space: int, image_space: int) -> int:
    """The number of the layout text ‖ image, made where there is none."""
    raw = await driver(conn)
    await raw.execute(
        "insert into layouts (text_space, image_space) values ($1, $2) on conflict do nothing", text_space, image_space
    )
    layout_id: int = await raw.fetchval(
        "select layout_id from layouts where text_space = $1 and image_space = $2", text_space, image_space
    )
    return layout_id


async def newest_layout(conn: AsyncConnection) -> int:
    """The layout that a new tenant begins with: the newest.

    Where no worker has named its encoders yet, a layout of two placeholder spaces; the worker then moves the
    tenant to a generation of its own, as with any change of encoder.
    """
    raw = await driver(conn)
    layout_id: int | None = await raw.fetchval("select max(layout_id) from layouts")
    if layout_id is not None:
        return layout_id
    await ensure_space(conn, f"{NGRAMS}{_TEXT_DIM}", "text", _TEXT_DIM)
    return await ensure_layout(
        conn,
        await ensure_space(conn, f"{UNSET}text", "text", _TEXT_DIM),
        await ensure_space(conn, f"{UNSET}image", "image", _IMAGE_DIM),
    )

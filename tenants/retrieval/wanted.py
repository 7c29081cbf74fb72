"""What every list obeys and gives, and the fragments of SQL that all lists share.

A statement is put together from constant fragments; every value is bound.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from tenants.catalog.filters import Compiler, Filter
from tenants.lifecycle import SpaceRef, TenantRef

TENANT: Final = "$2::uuid"

SCALAR_FIELDS: Final = frozenset({"group_id", "brand", "seller_id", "currency", "gtin", "language"})
"""Fields of `same` and `max_per` that are columns of the facets; besides categories, tags and attributes.x."""


class Hit(Struct, frozen=True):
    """One item found. `text` and `image` are its shares of `score` (0..1); None where a half played no part.

    Of a blended list: `parts` are the shares of its sources, the largest first, `because` the id of the item that is
    the evidence, `fallback` whether only the fallback named it, `vector` its fused vector as float16, big-endian.
    """

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
    parts: tuple[tuple[str, float], ...] = ()
    because: str | None = None
    fallback: bool = False
    vector: bytes | None = None


class Found(Struct, frozen=True, kw_only=True):
    """`hits` in order. `known` are the seeds that exist, with their numbers.

    `complete`: there is no further hit beyond these.
    """

    hits: list[Hit]
    known: Mapping[str, int]
    complete: bool


class Wanted(Struct, frozen=True, kw_only=True):
    """What any list must obey, whatever finds it.

    `exclude_ids` leave out these items alone; `exclude_nos` (shown before) and `apart_from` (the seeds) leave out
    the groups of theirs too: another variant of what was shown is no news.
    """

    now: datetime
    limit: int
    filter: Filter | None = None
    exclude_ids: Sequence[str] = ()
    exclude_nos: Sequence[int] = ()
    apart_from: Sequence[str] = ()
    out_of_stock: bool = False
    max_per: Sequence[str] = ()
    with_doc: bool = False
    with_photos: bool = False


class Statement:
    """Parameters and the fragments that all lists share."""

    def __init__(self, tenant: TenantRef, wanted: Wanted) -> None:
        self.tenant = tenant
        self.wanted = wanted
        self.args: list[Any] = [str(tenant.tenant_id), tenant.tenant_id]
        self.compiler = Compiler(self.args, tenant=TENANT)
        self.now = self.bind(wanted.now, "timestamptz")

    def bind(self, value: object, kind: str) -> str:
        return self.compiler.bind(value, kind)

    def eligible(self) -> str:
        """The condition on `item_facets f` that every recommended item meets."""
        wanted = self.wanted
        parts = [f"f.tenant_id = {TENANT}", "not f.hidden"]
        parts += [f"f.available_from <= {self.now}", f"f.expires_at > {self.now}"]
        if not wanted.out_of_stock:
            parts.append("f.availability < 3")
        if wanted.filter is not None:
            parts.append(self.compiler.sql(wanted.filter))
        if wanted.exclude_nos:
            numbers = self.bind(list(wanted.exclude_nos), "int4[]")
            parts.append(f"f.item_no <> all({numbers})")
            parts.append(_outside_groups(f"s.item_no = any({numbers})"))
        if wanted.exclude_ids:
            parts.append(f"f.item_no not in ({self._numbers(wanted.exclude_ids)})")
        if wanted.apart_from:
            seeds = self._numbers(wanted.apart_from)
            parts += [f"f.item_no not in ({seeds})", _outside_groups(f"s.item_no in ({seeds})")]
        return " and ".join(parts)

    def _numbers(self, external_ids: Sequence[str]) -> str:
        ids = self.bind(list(external_ids), "text[]")
        return f"select d.item_no from item_ids d where d.tenant_id = {TENANT} and d.external_id = any({ids})"

    def extras(self) -> tuple[str, str]:
        """The columns for `max_per`, the document and its uploaded photos, and the join they need."""
        fields = [self._capped(field) for field in self.wanted.max_per]
        capped = f"array[{', '.join(fields)}]::text[]" if fields else "null::text[]"
        doc = "i.doc::text" if self.wanted.with_doc else "null::text"
        needed = self.wanted.with_doc or any("i.doc" in field for field in fields)
        join = f" join items i on i.tenant_id = {TENANT} and i.item_no = f.item_no" if needed else ""
        photos = "null::text"
        if self.wanted.with_photos:
            photos = (
                "(select jsonb_object_agg(p.position, encode(p.sha256, 'hex'))::text from item_photos p "
                f"where p.tenant_id = {TENANT} and p.item_no = f.item_no)"
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
            f"v.shard = {int(self.tenant.shard)} and v.tenant_id = {TENANT} "
            f"and v.layout_id = {int(self.tenant.generation.layout_id)}"
        )


def one_per_group(order: str) -> str:
    """SQL: the place of `f` among the items of its group; an item without a group is the first of its own."""
    group = "coalesce(f.group_id, f.item_no::text), f.group_id is null"
    return f"row_number() over (partition by {group} order by {order})"


def _outside_groups(members: str) -> str:
    """The condition that `f` is in no group that has one of `members` of `item_facets s`."""
    return (
        f"(f.group_id is null or f.group_id not in (select s.group_id from item_facets s "
        f"where s.tenant_id = {TENANT} and {members} and s.group_id is not null))"
    )


def spread(space: SpaceRef) -> tuple[float, float]:
    return space.mean, max(space.dev, 1e-3)


def known_of(record: Any) -> dict[str, int]:
    """The seeds that exist, out of the first row of a list."""
    return dict(zip(record["known"] or (), record["known_nos"] or (), strict=True))


def found_of(records: Sequence[Any], cut: int | None, limit: int) -> Found:
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
    return Found(hits=hits, known=known_of(first), complete=everything and len(hits) < limit)

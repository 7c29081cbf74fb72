"""/v1/items: the catalogue."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.params import FromPath
from msgspec import UNSET, Meta, Struct, UnsetType

from api.contract import contract
from api.deps import caller_of, plan_of, services_of, tenant_of
from api.limits.cost import Cost
from api.wire import JSON, NDJSON, AnyRequest, answer, decode_id, expect_media_type, no_content, read_json, read_query
from api.work import intent_of, writing
from billing.quotas import make_room, may_refuse
from infra.decode import InvalidFields, MalformedJson, convert, faults, plain_json, summary
from infra.errors import FieldError, Invalid, TooLarge
from tenants.catalog import store as catalog
from tenants.catalog.filters import Filter, parse_filter
from tenants.catalog.item import Id, Item, ItemNotFound
from tenants.catalog.photos import Photo
from tenants.catalog.store import Encoding, Outcome, StoredItem

MAX_ROWS: Final = 10_000
"""Items in one bulk call, and ids in one delete call."""

_EXAMPLE: Final = {
    "id": "SKU-1",
    "group_id": "lamp-aurora",
    "title": "Aurora desk lamp, brass",
    "description": "A warm reading light with a heavy foot and an arm of brushed brass.",
    "url": "https://shop.example/lamps/aurora",
    "images": ["https://shop.example/photos/aurora.jpg"],
    "categories": ["Home > Lamps > Desk lamps"],
    "brand": "Lumen & Co",
    "price": 7900,
    "sale_price": 6900,
    "currency": "EUR",
    "availability": "in_stock",
    "language": "en",
    "tags": ["reading"],
    "attributes": {"colour": "brass", "height_cm": 42, "dimmable": True},
}
_CURSOR: Final = b"i1:"
_NOTED: Final = 2_000
"""Bytes of a filter that is noted in the audit log as it is."""
_DATA: Final = "Items are what the shop sells and change by the thousand; the log is of what is decided about them."
_encode = msgspec.json.Encoder().encode
_rows_of = msgspec.json.Decoder(list[msgspec.Raw]).decode
_item_of = msgspec.json.Decoder(Item).decode


class BadListCursor(Invalid):
    """The cursor is not one that a list of this API gave."""

    code = "bad_list_cursor"
    title = "The cursor cannot be used"


class EncodingState(Struct, frozen=True, kw_only=True):
    """Where the two encodings of an item stand; `reason` says what is wrong, in words for a shop owner."""

    text: catalog.State
    image: catalog.State
    reason: str | None


class ShownPhoto(Struct, frozen=True, kw_only=True):
    """An uploaded photo of an item."""

    position: int
    content_type: str
    size: int
    sha256: str
    url: str


class _Around(Struct, frozen=True, kw_only=True):
    """What an item's answer has besides its document."""

    encoding: EncodingState
    photos: list[ShownPhoto]
    created_at: datetime
    updated_at: datetime


class ShownItem(Item, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """An item with its uploaded photos and where its encoding stands."""

    encoding: EncodingState
    photos: list[ShownPhoto]
    created_at: datetime
    updated_at: datetime


class ItemPage(Struct, frozen=True, kw_only=True):
    """Some items, and how to get the next; `next_cursor` is null at the end."""

    items: list[ShownItem]
    next_cursor: str | None


class Stored(Struct, frozen=True, kw_only=True):
    """What a write of one item did."""

    id: str
    status: Literal["created", "updated", "unchanged"]


class RowError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a row was rejected; `errors` names every bad field."""

    code: str
    message: str
    errors: list[FieldError] = []


class RowResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one row; `duplicate`: a later row of the call has the same id and won."""

    index: int
    id: str | None
    status: Literal["created", "updated", "unchanged", "duplicate", "rejected"]
    error: RowError | None = None


class BulkResult(Struct, frozen=True, kw_only=True):
    """The sums and, row by row, what became of a bulk call."""

    accepted: int
    duplicate: int
    rejected: int
    results: list[RowResult]


class ListQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /v1/items`."""

    cursor: Annotated[str, Meta(max_length=100, description="`next_cursor` of the page before.")] | None = None
    filter: Annotated[str, Meta(max_length=20_000, description="A filter tree, as JSON.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="Items on a page.")] = 100


class DeleteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which items to delete: `ids` or `filter`, not both."""

    ids: Annotated[list[Id], Meta(min_length=1, max_length=MAX_ROWS)] | UnsetType = UNSET
    filter: dict[str, Any] | UnsetType = UNSET


class DeleteResult(Struct, frozen=True, kw_only=True):
    """How many items were deleted (or would be), and which ids there were none of."""

    deleted: int
    unknown_ids: list[str]
    dry_run: bool


@put(
    "/v1/items/{item_id:str}",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Catalogue",
        summary="Store an item",
        body=Item,
        body_optional=("id",),
        body_example=_EXAMPLE,
        answer=Stored,
        answer_example=Stored(id="SKU-1", status="updated"),
        unaudited=_DATA,
        also={201: "The item is new."},
    ),
)
async def put_item(request: AnyRequest, item_id: FromPath[str]) -> Response[bytes]:
    """Stores the item whole: fields that are left out are emptied, uploaded photos stay.

    The item can be recommended at once; its vectors follow within seconds. `id` may be left out of the body.
    """
    external_id = decode_id(item_id)
    plain = await read_json(request, dict[str, Any])
    if plain.setdefault("id", external_id) != external_id:
        fault = FieldError(pointer="/id", code="id_mismatch", message="The body has another id than the address.")
        raise InvalidFields("Leave `id` out of the body, or give the id of the address.", errors=[fault])
    item = convert(plain, Item)
    tenant = await tenant_of(request)
    plan = await plan_of(request)
    async with writing(request) as work:
        await make_room(work.conn, plan, work.tenant_id, "items", [item.id], now=work.now)
        return work.answered(_stored(await catalog.put_item(work.conn, tenant, item, now=work.now)))


@patch(
    "/v1/items/{item_id:str}",
    opt=contract(
        scope="catalog:write",
        tag="Catalogue",
        summary="Change some fields of an item",
        body=dict[str, Any],
        body_example={"price": 6900, "sale_price": None, "attributes": {"colour": "steel"}},
        answer=Stored,
        answer_example=Stored(id="SKU-1", status="updated"),
        unaudited=_DATA,
    ),
)
async def patch_item(request: AnyRequest, item_id: FromPath[str]) -> Response[bytes]:
    """JSON merge patch (RFC 7396): null empties a field, objects merge, everything else replaces."""
    external_id = decode_id(item_id)
    expect_media_type(request, JSON, "application/merge-patch+json")
    changes = convert(plain_json(await request.body()), dict[str, Any])
    tenant = await tenant_of(request)
    async with writing(request) as work:
        outcome = await catalog.patch_item(work.conn, tenant, external_id, changes, now=work.now)
        return work.answered(_stored(outcome))


@get(
    "/v1/items/{item_id:str}",
    opt=contract(scope="catalog:read", tag="Catalogue", summary="Show an item", answer=ShownItem),
)
async def get_item(request: AnyRequest, item_id: FromPath[str]) -> Response[bytes]:
    """The item as it is stored, with `encoding`: where its vectors stand, and why they failed where they did."""
    external_id = decode_id(item_id)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        stored = await catalog.get_item(conn, tenant_id, external_id)
    return Response(_shown(stored), media_type=JSON)


@delete(
    "/v1/items/{item_id:str}",
    status_code=204,
    opt=contract(scope="catalog:write", tag="Catalogue", summary="Delete an item", unaudited=_DATA, status=204),
)
async def delete_item(request: AnyRequest, item_id: FromPath[str]) -> Response[None]:
    """Deletes the item, its photos and its vectors; it is in no answer from now on."""
    external_id = decode_id(item_id)
    async with writing(request) as work:
        numbers = await catalog.item_numbers(work.conn, work.tenant_id, [external_id])
        if not await catalog.delete_items(work.conn, work.tenant_id, list(numbers.values())):
            raise ItemNotFound(f"There is no item {external_id!r}.")
        return work.answered(no_content())


@post(
    "/v1/items/bulk",
    status_code=200,
    opt=contract(
        cost=Cost(body_bytes=100_000),
        scope="catalog:write",
        tag="Catalogue",
        summary="Store many items",
        body=list[Item],
        body_example=[_EXAMPLE, {"id": "SKU-2", "title": "Aurora floor lamp", "price": 15900}],
        body_types={NDJSON: '{"id": "SKU-1", "title": "Aurora desk lamp"}\n{"id": "SKU-2"}\n'},
        unaudited=_DATA,
        answer=BulkResult,
        answer_example=BulkResult(
            accepted=2,
            duplicate=0,
            rejected=0,
            results=[
                RowResult(index=0, id="SKU-1", status="updated"),
                RowResult(index=1, id="SKU-2", status="created"),
            ],
        ),
    ),
)
async def bulk_items(request: AnyRequest) -> Response[bytes]:
    """Stores up to 10,000 items (10 MB) of a JSON array, or of NDJSON, as PUT does each.

    A bad row is rejected with every bad field named and loses none of the good ones. A call over its limits is
    refused whole. One of more than 1,000 rows that fails in between (500, 503) may have stored some of them: send it
    again, what is stored costs next to nothing. With an Idempotency-Key, or in a plan that refuses items beyond its
    quota, it is all or nothing, in one transaction.
    """
    ndjson = expect_media_type(request, JSON, NDJSON) == NDJSON
    # Not request.body(), which would keep 10 MB until the answer is sent; here they go once the items are read.
    items, results = _read_rows(_rows(b"".join([piece async for piece in request.stream()]), ndjson))
    tenant = await tenant_of(request)
    services = services_of(request)
    plan = await plan_of(request)
    ids = [item.id for item in items] if "items" in plan.quotas else []
    if intent_of(request).plain and not may_refuse(plan, "items"):
        outcomes: list[Outcome] = []
        if ids:
            async with services.database.tenant_session(tenant.tenant_id) as conn:
                await make_room(conn, plan, tenant.tenant_id, "items", ids, now=services.clock())
        if items:
            outcomes = await catalog.upsert_many(services.database, tenant, items, now=services.clock())
        return answer(_bulk_result(results, items, outcomes))
    async with writing(request) as work:
        await make_room(work.conn, plan, work.tenant_id, "items", ids, now=work.now)
        outcomes = await catalog.upsert_items(work.conn, tenant, items, now=work.now)
        return work.answered(answer(_bulk_result(results, items, outcomes)))


@get(
    "/v1/items",
    opt=contract(scope="catalog:read", tag="Catalogue", summary="List items", query=ListQuery, answer=ItemPage),
)
async def list_items(request: AnyRequest) -> Response[bytes]:
    """All items, or those that match `filter`, in the order in which they were first stored."""
    query = read_query(request, ListQuery)
    filter_ = None if query.filter is None else _parse_text_filter(query.filter)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        page = await catalog.list_items(
            conn, tenant_id, filter_=filter_, after_no=_read_cursor(query.cursor), limit=query.limit
        )
    shown = b",".join(_shown(stored) for stored in page.items)
    cursor = None if page.last_no is None else _write_cursor(page.last_no)
    return Response(b'{"items":[%b],"next_cursor":%b}' % (shown, _encode(cursor)), media_type=JSON)


@post(
    "/v1/items/delete",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Catalogue",
        summary="Delete many items",
        audit="items.delete",
        body=DeleteRequest,
        body_example={"filter": {"eq": ["seller_id", "gone-shop"]}},
        answer=DeleteResult,
        answer_example=DeleteResult(deleted=12, unknown_ids=[], dry_run=False),
    ),
)
async def delete_items(request: AnyRequest) -> Response[bytes]:
    """Deletes the items with these `ids`, or all that match `filter`; with `?dry_run=true` only counts them."""
    wanted = await read_json(request, DeleteRequest)
    if (wanted.ids is UNSET) == (wanted.filter is UNSET):
        fault = FieldError(pointer="", code="one_of", message="Give `ids` or `filter`, and not both.")
        raise InvalidFields("Say which items to delete: `ids` or `filter`.", errors=[fault])
    filter_ = None if wanted.filter is UNSET else parse_filter(wanted.filter)
    unknown: list[str] = []
    async with writing(request) as work:
        if filter_ is not None:
            numbers = await catalog.find_items(work.conn, work.tenant_id, filter_)
        else:
            assert wanted.ids is not UNSET
            known = await catalog.item_numbers(work.conn, work.tenant_id, wanted.ids)
            numbers = list(known.values())
            unknown = [external_id for external_id in dict.fromkeys(wanted.ids) if external_id not in known]
        deleted = await catalog.delete_items(work.conn, work.tenant_id, numbers)
        said: dict[str, Any] = (
            {} if wanted.filter is UNSET or len(_encode(wanted.filter)) > _NOTED else {"filter": wanted.filter}
        )
        await work.note(by="ids" if filter_ is None else "filter", deleted=deleted, **said)
        return work.answered(answer(DeleteResult(deleted=deleted, unknown_ids=unknown, dry_run=work.dry_run)))


def _stored(outcome: Outcome) -> Response[bytes]:
    assert outcome.id is not None
    assert outcome.status != "rejected"
    return answer(Stored(id=outcome.id, status=outcome.status), status=201 if outcome.status == "created" else 200)


def _shown(stored: StoredItem) -> bytes:
    """The document, spliced with what surrounds it; it is stored as JSON and never decoded on this way."""
    external_id = msgspec.json.decode(stored.item, type=_OnlyId).id
    around = _Around(
        encoding=EncodingState(text=stored.text.state, image=stored.image.state, reason=_reason(stored)),
        photos=[_photo(photo, external_id) for photo in stored.photos],
        created_at=stored.created_at,
        updated_at=stored.updated_at,
    )
    return bytes(stored.item)[:-1] + b"," + _encode(around)[1:]


class _OnlyId(Struct):
    id: str


def _photo(photo: Photo, external_id: str) -> ShownPhoto:
    return ShownPhoto(
        position=photo.position,
        content_type=photo.content_type,
        size=photo.size,
        sha256=photo.sha256,
        url=f"/v1/items/{quote(external_id, safe='')}/images/{photo.position}",
    )


def _reason(stored: StoredItem) -> str | None:
    def told(what: str, encoding: Encoding) -> list[str]:
        return [f"{what}: {encoding.reason}"] if encoding.reason else []

    return "; ".join([*told("text", stored.text), *told("image", stored.image)]) or None


def _rows(body: bytes, ndjson: bool) -> Sequence[bytes | msgspec.Raw]:
    """The rows of a bulk body, not decoded yet. Raises TooLarge, MalformedJson, InvalidFields."""
    rows: Sequence[bytes | msgspec.Raw]
    if ndjson:
        rows = [line for line in body.split(b"\n") if line.strip()]
    else:
        try:
            rows = _rows_of(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            plain_json(body)  # what is no JSON at all is told so
            fault = FieldError(pointer="", code="wrong_type", message="Expected an array of items.")
            raise InvalidFields("Send an array of items, or NDJSON with its Content-Type.", errors=[fault]) from error
    if len(rows) > MAX_ROWS:
        raise TooLarge(f"The call has {len(rows):,} items; {MAX_ROWS:,} are allowed. Nothing of it was stored.")
    return rows


def _read_rows(rows: Sequence[bytes | msgspec.Raw]) -> tuple[list[Item], list[RowResult | None]]:
    """The good items, in order, and one result per row: None where the item is good."""
    items: list[Item] = []
    results: list[RowResult | None] = []
    for index, row in enumerate(rows):
        try:
            items.append(_item_of(row))
            results.append(None)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            results.append(_rejected(index, row))
    return items, results


def _rejected(index: int, row: bytes | msgspec.Raw) -> RowResult:
    try:
        plain = plain_json(row)
    except MalformedJson as error:
        return RowResult(index=index, id=None, status="rejected", error=RowError(code=error.code, message=error.detail))
    external_id = plain.get("id") if isinstance(plain, dict) else None
    found = faults(plain, Item)
    return RowResult(
        index=index,
        id=external_id if isinstance(external_id, str) else None,
        status="rejected",
        error=RowError(code=InvalidFields.code, message=summary(found), errors=found),
    )


def _bulk_result(results: list[RowResult | None], items: list[Item], outcomes: list[Outcome]) -> BulkResult:
    last = {item.id: at for at, item in enumerate(items)}
    made: list[RowResult] = []
    counts = {"duplicate": 0, "rejected": 0}
    at = -1
    for index, result in enumerate(results):
        if result is None:
            at += 1
            result = _row_result(index, outcomes[at], superseded=last[items[at].id] != at)  # noqa: PLW2901
        made.append(result)
        if result.status in counts:
            counts[result.status] += 1
    return BulkResult(accepted=len(made) - sum(counts.values()), results=made, **counts)


def _row_result(index: int, outcome: Outcome, *, superseded: bool) -> RowResult:
    if outcome.error is not None:
        error = RowError(code=outcome.error.code, message=outcome.error.message)
        return RowResult(index=index, id=outcome.id, status="rejected", error=error)
    return RowResult(index=index, id=outcome.id, status="duplicate" if superseded else outcome.status)


def _parse_text_filter(raw: str) -> Filter:
    return parse_filter(plain_json(raw.encode(errors="surrogatepass")))


def _write_cursor(last_no: int) -> str:
    return urlsafe_b64encode(_CURSOR + str(last_no).encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> int:
    """The number to go on after. Raises BadListCursor."""
    if cursor is None:
        return 0
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        number = int(raw.removeprefix(_CURSOR)) if raw.startswith(_CURSOR) else -1
    except ValueError:
        number = -1
    if not 0 <= number < 2**31:
        raise BadListCursor("Send back the `next_cursor` of the page before, or none to begin again.")
    return number


ROUTES: Final = (put_item, patch_item, get_item, delete_item, bulk_items, list_items, delete_items)

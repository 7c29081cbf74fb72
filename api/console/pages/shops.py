"""/console: a person's shops, their keys, and the way from a feed to the first recommendation."""

from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.console.page import go, knock, needs_session, page_get, page_post, read_form, read_upload, show, show_again
from api.console.usage import usage_of
from api.deps import services_of
from api.problems import BadRequest
from api.wire import AnyRequest
from api.work import noted
from billing.organisations import make_room_for_shop
from infra.db import TenantId
from infra.errors import KindredError, NotFound
from infra.ids import uuid7
from tenants.accounts.members import lock_roles, role_in
from tenants.accounts.organisations import (
    Membership,
    OwnShop,
    RoleTooLow,
    ShopInfo,
    list_memberships,
    list_shops,
)
from tenants.accounts.roles import MANAGES_KEYS, MANAGES_SHOPS, ROLE_SCOPES, Role
from tenants.accounts.sessions import Session
from tenants.accounts.signup import Currency, FirstKeys, ShopName, make_shop
from tenants.audit.log import Actor
from tenants.catalog.currency import exponent_of
from tenants.catalog.imports import BlobSource, start_import, upload_key
from tenants.catalog.store import count_states, list_items
from tenants.deletion import delete_tenant
from tenants.jobs import get_job, iter_faults
from tenants.keys import KeyRequest, Kind, Scope, create_key, list_keys, revoke_key
from tenants.lifecycle import tidy_name

FEED_BYTES: Final = 10_000_000
"""Of a feed that is pasted or uploaded on the page; larger ones go by curl."""

_FAULTS: Final = 5
_SHOWN: Final = 6

EXAMPLE_FEED: Final = """id,title,brand,category,price,description
lamp-1,Brass desk lamp,Lumo,Home > Lamps,49.00,A warm reading light with a heavy brass foot
lamp-2,Steel desk lamp with dimmer,Lumo,Home > Lamps,59.00,"Cool steel, three levels of light"
lamp-3,Paper floor lamp,Onda,Home > Lamps,89.00,A tall soft light of folded paper
mug-1,Stoneware mug,Terra,Kitchen > Mugs,12.00,"Hand thrown, holds a third of a litre"
mug-2,Espresso cup of stoneware,Terra,Kitchen > Mugs,9.00,Small and thick so that coffee stays warm
bag-1,Canvas backpack,Trail,Bags > Backpacks,79.00,Waxed canvas with a padded back
bag-2,Leather messenger bag,Trail,Bags > Messenger,149.00,Vegetable-tanned leather that ages well
shoe-1,Trail running shoes,Fleet,Shoes > Running,119.00,Grip for wet stone and light for long days
"""


class ShopForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shop to be made. Money in its feeds is of `currency` where they say nothing else."""

    name: ShopName
    currency: Currency = "EUR"
    org_id: UUID


class KeyForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made."""

    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
    kind: Kind


class RevokeForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be revoked."""

    key_id: Annotated[str, Meta(min_length=1, max_length=20, pattern=r"^[0-9A-Za-z]+$(?!\n)")]


class DeleteForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of the shop, typed by who deletes it."""

    typed_name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]


class Card(Struct, frozen=True, kw_only=True):
    """A product on the page of the first recommendation. `score` is None for the one it is about."""

    id: str
    title: str
    price: str
    photo: str | None
    score: float | None = None


class OwnOrganisation(Struct, frozen=True, kw_only=True):
    """An organisation with its shops, as the list shows it."""

    membership: Membership
    shops: list[ShopInfo]
    may_add: bool


async def _shop(request: AnyRequest, tenant_id: str) -> tuple[Session, OwnShop]:
    """The shop of the address, which is one of the person's. Raises SignInNeeded, ShopNotFound."""
    session = needs_session(request)
    return session, await services_of(request).sessions.own_shop(session.person_id, tenant_id)


def _person(session: Session) -> Actor:
    """Whose session it is, as the audit log names them."""
    return Actor(kind="person", id=str(session.person_id))


def _need(role: Role, allowed: frozenset[Role], what: str) -> None:
    if role not in allowed:
        raise RoleTooLow(f"As {role} you may not {what}; ask one of {', '.join(sorted(allowed))}.")


def _need_scope(role: Role, scope: Scope, what: str) -> None:
    """A page shows and does what the API would for the same person."""
    if scope not in ROLE_SCOPES[role]:
        raise RoleTooLow(f"As {role} you may not {what}; ask somebody who may.")


async def _organisations(request: AnyRequest, person_id: UUID) -> list[OwnOrganisation]:
    database = services_of(request).database
    async with database.person_session(person_id) as conn:
        memberships = await list_memberships(conn, person_id)
    found = []
    for membership in memberships:
        async with database.person_session(person_id, org_id=membership.org_id) as conn:
            shops = await list_shops(conn)
        found.append(OwnOrganisation(membership=membership, shops=shops, may_add=membership.role in MANAGES_SHOPS))
    return found


@page_get("/console")
async def shops_page(request: AnyRequest) -> Response[Any]:
    """Your shops."""
    session = needs_session(request)
    done = request.query_params.get("done", "")
    return show(request, "shops.html", done=done, organisations=await _organisations(request, session.person_id))


@page_post("/console/shops")
async def create_shop(request: AnyRequest) -> Response[Any]:
    """Make a shop, and show its keys for the only time."""
    session = needs_session(request)
    services = services_of(request)
    organisations = await _organisations(request, session.person_id)
    try:
        form = await read_form(request, ShopForm)
    except KindredError as error:
        return show_again(request, "shops.html", error, done="", organisations=organisations)
    if all(each.membership.org_id != form.org_id for each in organisations):
        raise NotFound("You belong to no such organisation; “Your shops” lists those you belong to.")
    tenant_id = TenantId(uuid7())
    try:
        async with services.database.person_session(session.person_id, org_id=form.org_id, tenant_id=tenant_id) as conn:
            role = role_in(await lock_roles(conn, form.org_id), session.person_id)
            _need(role, MANAGES_SHOPS, "make shops")
            await make_room_for_shop(conn, services.settings.entitlements, form.org_id, now=services.clock())
            made = await make_shop(
                conn,
                form.org_id,
                tenant_id,
                tidy_name(form.name),
                currency=form.currency,
                secret=services.secret.current,
                cell=services.settings.cell,
                now=services.clock(),
                actor=_person(session),
                knock=knock(request),
            )
    except KindredError as error:
        return show_again(request, "shops.html", error, done="", organisations=organisations)
    return show_keys(request, made, first=False)


def show_keys(request: AnyRequest, made: FirstKeys, *, first: bool) -> Response[str]:
    """The keys of a new shop with what to do with them; nobody sees them again."""
    origin = services_of(request).settings.public_origin
    return show(request, "keys.html", shop=made, first=first, origin=origin)


@page_get("/console/shops/{tenant_id:str}")
async def shop_page(request: AnyRequest, tenant_id: FromPath[str]) -> Response[Any]:
    """A shop: what it has, and what to do next."""
    _, shop = await _shop(request, tenant_id)
    return await _show_shop(request, shop)


async def _show_shop(
    request: AnyRequest, shop: OwnShop, *, error: KindredError | None = None, new_key: str | None = None
) -> Response[str]:
    services = services_of(request)
    async with services.database.tenant_session(shop.tenant_id) as conn:
        counts = await count_states(conn, shop.tenant_id)
        keys = await list_keys(conn, shop.tenant_id) if shop.role in MANAGES_KEYS else []
    async with services.database.person_session(org_id=shop.org_id) as conn:
        siblings = await list_shops(conn)
    values: dict[str, Any] = {
        "shop": shop,
        "siblings": siblings,
        "usage": await usage_of(services, shop.tenant_id) if "billing:read" in ROLE_SCOPES[shop.role] else None,
        "items": sum(counts["text"].values()),
        "pending": counts["text"]["pending"] + counts["image"]["pending"],
        "keys": [key for key in keys if key.revoked_at is None],
        "may_read": "catalog:read" in ROLE_SCOPES[shop.role],
        "may_write": "catalog:write" in ROLE_SCOPES[shop.role],
        "may_delete": shop.role in MANAGES_SHOPS,
        "grace_days": services.settings.tenant_grace_days,
        "may_manage_keys": shop.role in MANAGES_KEYS,
        "new_key": new_key,
        "origin": services.settings.public_origin,
    }
    if error is not None:
        return show_again(request, "shop.html", error, **values)
    return show(request, "shop.html", **values)


@page_post("/console/shops/{tenant_id:str}/keys")
async def make_key(request: AnyRequest, tenant_id: FromPath[str]) -> Response[Any]:
    """Make a key, and show it for the only time."""
    session, shop = await _shop(request, tenant_id)
    services = services_of(request)
    try:
        form = await read_form(request, KeyForm)
        _need(shop.role, MANAGES_KEYS, "make keys")
        async with services.database.tenant_session(shop.tenant_id) as conn:
            made = await create_key(
                conn,
                shop.tenant_id,
                KeyRequest(kind=form.kind, name=form.name),
                secret=services.secret.current,
                cell=services.settings.cell,
                now=services.clock(),
            )
            told = made.info
            await noted(
                request,
                conn,
                shop.tenant_id,
                _person(session),
                "key.create",
                told.key_id,
                kind=told.kind,
                name=told.name,
                scopes=told.scopes,
            )
    except KindredError as error:
        return await _show_shop(request, shop, error=error)
    return await _show_shop(request, shop, new_key=made.key)


@page_post("/console/shops/{tenant_id:str}/keys/revoke")
async def end_key(request: AnyRequest, tenant_id: FromPath[str]) -> Response[Any]:
    """Revoke a key: it stops here at once, and within a second everywhere."""
    session, shop = await _shop(request, tenant_id)
    form = await read_form(request, RevokeForm)
    _need(shop.role, MANAGES_KEYS, "revoke keys")
    services = services_of(request)
    async with services.database.tenant_session(shop.tenant_id) as conn:
        await revoke_key(conn, shop.tenant_id, form.key_id, now=services.clock())
        await noted(request, conn, shop.tenant_id, _person(session), "key.revoke", form.key_id)
    return go(request, f"/console/shops/{shop.tenant_id}")


@page_post("/console/shops/{tenant_id:str}/feed", max_body=FEED_BYTES + 100_000)
async def take_feed(request: AnyRequest, tenant_id: FromPath[str]) -> Response[Any]:
    """Import what was pasted or uploaded, as the API would."""
    session, shop = await _shop(request, tenant_id)
    fields, file = await read_upload(request)
    _need_scope(shop.role, "catalog:write", "change the catalogue")
    services = services_of(request)
    if "example" in fields:
        content, name = EXAMPLE_FEED.encode(), "example.csv"
    elif file is not None:
        content, name = await file.read(), file.filename
    else:
        content, name = fields.get("feed", "").encode(), ""
    if not content.strip():
        empty = BadRequest("Paste your feed, or choose its file; or take the example products to look around.")
        return await _show_shop(request, shop, error=empty)
    source = BlobSource(key=upload_key(shop.tenant_id, str(uuid7())))
    await services.blobs.put(source.key, content)
    async with services.database.tenant_session(shop.tenant_id) as conn:
        job_id = await start_import(conn, shop.tenant_id, source, file_name=_file_name(name))
        await noted(request, conn, shop.tenant_id, _person(session), "import.start", str(job_id))
    return go(request, f"/console/shops/{shop.tenant_id}/imports/{job_id}")


@page_post("/console/shops/{tenant_id:str}/delete")
async def delete_shop(request: AnyRequest, tenant_id: FromPath[str]) -> Response[Any]:
    """Shut the shop off as `DELETE /v1/tenant` does, by its name; its data stays for the days of grace."""
    session, shop = await _shop(request, tenant_id)
    services = services_of(request)
    grace = timedelta(days=services.settings.tenant_grace_days)
    try:
        form = await read_form(request, DeleteForm)
        _need(shop.role, MANAGES_SHOPS, "delete shops")
        async with services.database.tenant_session(shop.tenant_id) as conn:
            gone = await delete_tenant(conn, shop.tenant_id, now=services.clock(), grace=grace, typed=form.typed_name)
            until = gone.erase_after.isoformat()
            await noted(
                request,
                conn,
                shop.tenant_id,
                _person(session),
                "tenant.delete",
                str(shop.tenant_id),
                erase_after=until,
            )
    except KindredError as error:
        return await _show_shop(request, shop, error=error)
    return go(request, "/console?done=deleted")


def _file_name(given: str) -> str | None:
    """The last part of a file's name, where it is one."""
    name = given.replace("\\", "/").rpartition("/")[2][:255]
    return name if name and name.isprintable() else None


@page_get("/console/shops/{tenant_id:str}/imports/{job_id:uuid}")
async def import_page(request: AnyRequest, tenant_id: FromPath[str], job_id: FromPath[UUID]) -> Response[Any]:
    """How far an import is; the page loads itself again until it has ended."""
    _, shop = await _shop(request, tenant_id)
    _need_scope(shop.role, "catalog:read", "see the catalogue")
    async with services_of(request).database.tenant_session(shop.tenant_id) as conn:
        job = await get_job(conn, shop.tenant_id, job_id)
        faults = []
        if job.errors_url is not None:
            async for fault in iter_faults(conn, shop.tenant_id, job_id, chunk=_FAULTS):
                faults.append(fault)
                if len(faults) == _FAULTS:
                    break
    running = job.status in ("queued", "running")
    if job.status == "done" and job.done and not faults:
        return go(request, f"/console/shops/{shop.tenant_id}/first")
    return show(request, "import.html", shop=shop, job=job, faults=faults, running=running)


@page_get("/console/shops/{tenant_id:str}/first")
async def first_page(request: AnyRequest, tenant_id: FromPath[str]) -> Response[Any]:
    """A recommendation of own products, and the call that makes it."""
    session, shop = await _shop(request, tenant_id)
    _need_scope(shop.role, "catalog:read", "see the catalogue")
    services = services_of(request)
    async with services.database.tenant_session(shop.tenant_id) as conn:
        page = await list_items(conn, shop.tenant_id, filter_=None, after_no=0, limit=_SHOWN)
        counts = await count_states(conn, shop.tenant_id)
    some = [_card(msgspec.json.decode(stored.item), shop.currency) for stored in page.items]
    wanted = request.query_params.get("item", "")[:128]
    seed = next((card for card in some if card.id == wanted), some[0] if some else None)
    similar: list[Card] = []
    if seed is not None and "recommend" in ROLE_SCOPES[shop.role]:
        body = msgspec.json.encode(
            {
                "strategy": "similar",
                "item_ids": [seed.id],
                "count": _SHOWN,
                "fields": ["title", "price", "currency", "images"],
            }
        )
        caller = services.sessions.caller_in(session, shop)
        tenant = await services.directory.get(shop.tenant_id)
        told = msgspec.json.decode(await services.answering.recommend(caller, tenant, body))
        similar = [
            _card({"id": each["id"], **each.get("fields", {})}, shop.currency, score=each["score"])
            for each in told["items"]
        ]
    return show(
        request,
        "first.html",
        shop=shop,
        seed=seed,
        others=[card for card in some if card is not seed],
        similar=similar,
        pending=counts["text"]["pending"] + counts["image"]["pending"],
        origin=services.settings.public_origin,
    )


def _card(item: dict[str, Any], currency: str, *, score: float | None = None) -> Card:
    price = item.get("sale_price") or item.get("price")
    money = ""
    if price is not None:
        code = item.get("currency") or currency
        decimals = exponent_of(code)
        money = f"{price / 10**decimals:,.{decimals}f} {code}"
    images = item.get("images") or []
    return Card(
        id=item["id"],
        title=item.get("title") or item["id"],
        price=money,
        photo=images[0] if images else None,
        score=score,
    )


ROUTES: Final = (
    shops_page,
    create_shop,
    shop_page,
    make_key,
    end_key,
    delete_shop,
    take_feed,
    import_page,
    first_page,
)

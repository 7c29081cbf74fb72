"""/v1/users: what a shop says of its users, visitors who sign in, and people erased."""

from typing import Any, Final

from litestar import Response, delete, get, post, put
from litestar.params import FromPath
from msgspec import Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, decode_id, no_content, read_json
from api.work import intent_of, writing
from infra.decode import InvalidFields, convert
from infra.errors import FieldError
from tenants.audience import users as audience
from tenants.audience.shoppers import USER, VISITOR
from tenants.audience.tombstones import put_tombstones
from tenants.audience.users import KnownUser, User, subject_hash
from tenants.catalog.item import Id
from tenants.portability.exports import export_prefix

_EXAMPLE: Final = {"id": "customer-7", "segments": ["vip"], "attributes": {"country": "DE", "age": 34}}


class StoredUser(Struct, frozen=True, kw_only=True):
    """What a write of a user did."""

    id: str
    status: str


class Merge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The visitor who turned out to be the user."""

    visitor_id: Id


class MergeResult(Struct, frozen=True, kw_only=True):
    """How many lines of events are the user's now; `merged` is false where they were before."""

    merged: bool
    events: int


@put(
    "/v1/users/{user_id:str}",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Users",
        summary="Describe a user",
        body=User,
        body_optional=("id",),
        body_example=_EXAMPLE,
        answer=StoredUser,
        answer_example=StoredUser(id="customer-7", status="updated"),
        unaudited="Users are the shop's data, as items are.",
        also={201: "The user had not been described before."},
    ),
)
async def put_user(request: AnyRequest, user_id: FromPath[str]) -> Response[bytes]:
    """Stores the user whole; `id` may be left out of the body. No user needs to be described to have events."""
    external_id = decode_id(user_id)
    plain = await read_json(request, dict[str, Any])
    if plain.setdefault("id", external_id) != external_id:
        fault = FieldError(pointer="/id", code="id_mismatch", message="The body has another id than the address.")
        raise InvalidFields("Leave `id` out of the body, or give the id of the address.", errors=[fault])
    user = convert(plain, User)
    async with writing(request) as work:
        new = await audience.store_user(work.conn, work.tenant_id, user, now=work.now)
        stored = StoredUser(id=external_id, status="created" if new else "updated")
        return work.answered(answer(stored, status=201 if new else 200))


@get(
    "/v1/users/{user_id:str}",
    opt=contract(scope="catalog:read", tag="Users", summary="Show a user", answer=KnownUser),
)
async def get_user(request: AnyRequest, user_id: FromPath[str]) -> Response[bytes]:
    """The user as it was described, or bare where only events name it."""
    external_id = decode_id(user_id)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        return answer(await audience.get_user(conn, tenant_id, external_id))


@delete(
    "/v1/users/{user_id:str}",
    status_code=204,
    opt=contract(scope="catalog:write", tag="Users", summary="Erase a person", audit="user.erase", status=204),
)
async def erase_user(request: AnyRequest, user_id: FromPath[str]) -> Response[None]:
    """Erases the person everywhere, at once and for good: description, events, merged visitors, exports, caches.

    Answers that were given stay as sums, with nobody in them; what is trained from now on knows nothing of the person.
    """
    external_id = decode_id(user_id)
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    now = services.clock()
    async with services.database.tenant_session(tenant_id) as conn:
        subjects = await audience.find_subjects(conn, tenant_id, external_id, secret=services.secret.current)
    if not intent_of(request).dry_run:
        # Before the erasure: were it not remembered, a backup would bring the person back and nobody would know.
        await put_tombstones(services.blobs, tenant_id, subjects, now, secret=services.secret.current)
    async with writing(request) as work:
        erased = await audience.erase_user(work.conn, tenant_id, external_id, now=now, secret=services.secret.current)
        if not work.dry_run:
            # A visitor who was merged in between.
            late = set(erased.subjects) - set(subjects)
            await put_tombstones(services.blobs, tenant_id, late, now, secret=services.secret.current)
        await work.note(subject_hash(services.secret.current, tenant_id, USER, external_id).hex(), events=erased.events)
        answered = work.answered(no_content())
    if not intent_of(request).dry_run:
        # After the commit: an export that is being made is looked at anew before it is given out
        # (workers/jobs/export.py).
        await services.blobs.delete_prefix(export_prefix(tenant_id))
    return answered


@post(
    "/v1/users/{user_id:str}/merge",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Users",
        summary="Merge a visitor into a user",
        body=Merge,
        body_example={"visitor_id": "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61"},
        answer=MergeResult,
        answer_example=MergeResult(merged=True, events=14),
        audit="user.merge",
    ),
)
async def merge_user(request: AnyRequest, user_id: FromPath[str]) -> Response[bytes]:
    """To be called when a visitor signs in: what the visitor did, and does from now on, the user has done.

    It may be repeated. A visitor who is another user already is a 409: give every browser a new visitor id when its
    user signs out.
    """
    external_id = decode_id(user_id)
    merge = await read_json(request, Merge)
    secret = services_of(request).secret
    async with writing(request) as work:
        merged = await audience.merge_visitor(work.conn, work.tenant_id, external_id, merge.visitor_id, now=work.now)
        await work.note(
            subject_hash(secret.current, work.tenant_id, USER, external_id).hex(),
            visitor=subject_hash(secret.current, work.tenant_id, VISITOR, merge.visitor_id).hex(),
            merged=merged.visitor_no is not None,
        )
        return work.answered(answer(MergeResult(merged=merged.visitor_no is not None, events=merged.events)))


ROUTES: Final = (put_user, get_user, erase_user, merge_user)

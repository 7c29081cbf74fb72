"""/v1/keys: a tenant's API keys."""

from typing import Final

from litestar import Response, delete, get, patch, post
from litestar.params import FromPath
from msgspec import UNSET, Struct, structs

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, no_content, read_json
from api.work import writing
from tenants import keys
from tenants.keys import KeyInfo, KeyPatch, KeyRequest, KeyRotation, NewKey


class KeyList(Struct, frozen=True, kw_only=True):
    """All keys of a tenant, revoked ones included, the newest first."""

    keys: list[KeyInfo]


@get("/v1/keys", opt=contract(scope="admin", tag="Keys", summary="List API keys", answer=KeyList))
async def list_keys(request: AnyRequest) -> Response[bytes]:
    """All keys with what they may do; the keys themselves were shown once, when they were made."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await keys.list_keys(conn, tenant_id)
    return answer(KeyList(keys=found))


@post(
    "/v1/keys",
    status_code=201,
    opt=contract(
        scope="admin",
        tag="Keys",
        summary="Make an API key",
        body=KeyRequest,
        body_example={
            "kind": "publishable",
            "name": "storefront",
            "allowed_origins": ["https://shop.example"],
        },
        answer=NewKey,
        audit="key.create",
        status=201,
    ),
)
async def create_key(request: AnyRequest) -> Response[bytes]:
    """The answer holds the key itself, for the only time. Two live keys may have one name, for rotation."""
    wanted = await read_json(request, KeyRequest)
    services = services_of(request)
    async with writing(request) as work:
        made = await keys.create_key(
            work.conn,
            work.tenant_id,
            wanted,
            secret=services.secret.current,
            cell=services.settings.cell,
            now=work.now,
        )
        await work.note(made.info.key_id, kind=made.info.kind, name=made.info.name, scopes=made.info.scopes)
        return work.answered(answer(_shown(made, dry_run=work.dry_run), status=201))


def _shown(made: NewKey, *, dry_run: bool) -> NewKey:
    """The key as it is answered: nobody is to keep one that works nowhere."""
    return structs.replace(made, key="(none: dry run)") if dry_run else made


@patch(
    "/v1/keys/{key_id:str}",
    opt=contract(
        scope="admin",
        tag="Keys",
        summary="Change an API key",
        body=KeyPatch,
        body_example={"allowed_origins": ["https://shop.example", "https://m.shop.example"], "rate_per_min": 6000},
        answer=KeyInfo,
        audit="key.change",
    ),
)
async def patch_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """What is sent replaces what was there, null takes a bound away; effective at once here and within a second
    everywhere. The kind stays."""
    wanted = await read_json(request, KeyPatch)
    async with writing(request) as work:
        info = await keys.patch_key(work.conn, work.tenant_id, key_id, wanted, now=work.now)
        await work.note(
            key_id, changed=[name for name in wanted.__struct_fields__ if getattr(wanted, name) is not UNSET]
        )
        return work.answered(answer(info))


@post(
    "/v1/keys/{key_id:str}/rotate",
    status_code=201,
    opt=contract(
        scope="admin",
        tag="Keys",
        summary="Replace an API key",
        body=KeyRotation,
        body_example={"overlap_s": 86400},
        answer=NewKey,
        status=201,
        audit="key.rotate",
    ),
)
async def rotate_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Makes a key of the same name that may do the same, shown here for the only time; the old one works on for
    `overlap_s` seconds, so that servers can be given the new one in turn."""
    wanted = await read_json(request, KeyRotation)
    services = services_of(request)
    async with writing(request) as work:
        made = await keys.rotate_key(
            work.conn,
            work.tenant_id,
            key_id,
            wanted,
            secret=services.secret.current,
            cell=services.settings.cell,
            now=work.now,
        )
        await work.note(key_id, new=made.info.key_id, overlap_s=wanted.overlap_s)
        return work.answered(answer(_shown(made, dry_run=work.dry_run), status=201))


@delete(
    "/v1/keys/{key_id:str}",
    status_code=204,
    opt=contract(scope="admin", tag="Keys", summary="Revoke an API key", audit="key.revoke", status=204),
)
async def revoke_key(request: AnyRequest, key_id: FromPath[str]) -> Response[None]:
    """The key stops at once here and within a second everywhere; a key may revoke itself."""
    async with writing(request) as work:
        await keys.revoke_key(work.conn, work.tenant_id, key_id, now=work.now)
        await work.note(key_id)
        return work.answered(no_content())


ROUTES: Final = (create_key, list_keys, patch_key, rotate_key, revoke_key)

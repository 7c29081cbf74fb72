"""/v1/keys: a tenant's API keys."""

from typing import Final

from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Struct, structs

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, no_content, read_json
from api.work import writing
from tenants import keys
from tenants.keys import KeyInfo, KeyRequest, NewKey


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
            work.conn, work.tenant_id, wanted, secret=services.secret, cell=services.settings.cell, now=work.now
        )
        await work.note(made.info.key_id, kind=made.info.kind, name=made.info.name, scopes=made.info.scopes)
        if work.dry_run:  # nobody is to keep a key that works nowhere
            made = structs.replace(made, key="(none: dry run)")
        return work.answered(answer(made, status=201, headers={"cache-control": "no-store"}))


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


ROUTES: Final = (create_key, list_keys, revoke_key)

"""/v1/visitor-secrets: what a shop's server signs visitor tokens with (docs/visitor-tokens.md)."""

from typing import Final

from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Struct, structs

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, no_content
from api.work import writing
from tenants import visitor_secrets
from tenants.visitor_secrets import NewVisitorSecret, VisitorSecretInfo

_TAG: Final = "Keys"


class VisitorSecretList(Struct, frozen=True, kw_only=True):
    """The live signing secrets, the newest first; two at most."""

    visitor_secrets: list[VisitorSecretInfo]


@get(
    "/v1/visitor-secrets",
    opt=contract(scope="admin", tag=_TAG, summary="List visitor secrets", answer=VisitorSecretList),
)
async def list_visitor_secrets(request: AnyRequest) -> Response[bytes]:
    """Their names; the secrets themselves were shown once, when they were made."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await visitor_secrets.list_visitor_secrets(conn, tenant_id)
    return answer(VisitorSecretList(visitor_secrets=found))


@post(
    "/v1/visitor-secrets",
    status_code=201,
    opt=contract(
        scope="admin",
        tag=_TAG,
        summary="Make a visitor secret",
        answer=NewVisitorSecret,
        status=201,
        audit="visitor_secret.create",
    ),
)
async def create_visitor_secret(request: AnyRequest) -> Response[bytes]:
    """The secret that your server signs visitor tokens with, shown for the only time. Two live at once: make the
    second, let your servers sign with it, and delete the first when its last token has expired."""
    async with writing(request) as work:
        made = await visitor_secrets.create_visitor_secret(
            work.conn, work.tenant_id, secret=services_of(request).secret.current, now=work.now
        )
        await work.note(made.kid)
        if work.dry_run:  # nobody is to sign with what nobody believes
            made = structs.replace(made, secret="(none: dry run)")  # noqa: S106 - it is none
        return work.answered(answer(made, status=201))


@delete(
    "/v1/visitor-secrets/{kid:str}",
    status_code=204,
    opt=contract(scope="admin", tag=_TAG, summary="Delete a visitor secret", status=204, audit="visitor_secret.revoke"),
)
async def revoke_visitor_secret(request: AnyRequest, kid: FromPath[str]) -> Response[None]:
    """Every token of it is refused, at once here and within a second everywhere."""
    async with writing(request) as work:
        await visitor_secrets.revoke_visitor_secret(work.conn, work.tenant_id, kid, now=work.now)
        await work.note(kid)
        return work.answered(no_content())


ROUTES: Final = (create_visitor_secret, list_visitor_secrets, revoke_visitor_secret)

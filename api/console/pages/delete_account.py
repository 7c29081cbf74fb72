"""/console/account/delete: a person's account, deleted by themselves."""

from typing import Any, Final

from litestar import Response
from msgspec import Struct

from api.console.page import knock, needs_session, page_get, page_post, read_form, show, show_again
from api.deps import services_of
from api.wire import AnyRequest
from infra.errors import KindredError
from tenants.accounts.email import EmailText
from tenants.accounts.passwords import Password
from tenants.accounts.proof import Proof


class DeleteForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The address of the account, typed, and the password where there is one."""

    email: EmailText
    delete_password: Password | None = None
    proof: Proof | None = None


@page_get("/console/account/delete")
async def delete_page(request: AnyRequest) -> Response[Any]:
    """What goes, what stays, and what has to be done before."""
    session = needs_session(request)
    return show(request, "account_delete.html", prospect=await services_of(request).account_deletion.look(session))


@page_post("/console/account/delete")
async def delete_account(request: AnyRequest) -> Response[Any]:
    """Delete the account; every session ends, this one too."""
    session = needs_session(request)
    services = services_of(request)
    try:
        form = await read_form(request, DeleteForm)
        await services.account_deletion.delete(session, form.email, form.delete_password, knock(request, form.proof))
    except KindredError as error:
        prospect = await services.account_deletion.look(session)
        return show_again(request, "account_delete.html", error, prospect=prospect)
    request.scope["state"]["session"] = None
    request.scope["state"]["cookies"] = [services.sessions.no_cookie()]
    return show(request, "account_deleted.html")


ROUTES: Final = (delete_page, delete_account)

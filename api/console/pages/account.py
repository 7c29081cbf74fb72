"""/console/account: a person's password, address and sessions."""

from typing import Any, Final
from uuid import UUID

from litestar import Response
from msgspec import Struct

from api.console.page import find_session, go, knock, needs_session, page_get, page_post, read_form, show, show_again
from api.console.pages.signup import TokenText, show_sent
from api.deps import services_of
from api.wire import AnyRequest
from infra.errors import KindredError
from tenants.accounts.address_changes import end_asked
from tenants.accounts.email import EmailText
from tenants.accounts.passwords import Password
from tenants.accounts.proof import Proof
from tenants.accounts.sessions import Session, end_session, end_sessions, list_sessions


class PasswordForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new password, and the old one."""

    old_password: Password
    new_password: Password
    proof: Proof | None = None


class EmailForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new address, and the password."""

    email: EmailText
    email_password: Password
    proof: Proof | None = None


class SessionForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The session to end; all others where none is named."""

    session_id: UUID | None = None


class ConfirmForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the button sends that the mail to a new address, or to the old one, led to."""

    token: TokenText


async def _values(request: AnyRequest, session: Session) -> dict[str, Any]:
    services = services_of(request)
    second_step = await services.second_steps.state_of(session.person_id)
    async with services.database.person_session(session.person_id) as conn:
        sessions = await list_sessions(conn, session.person_id, now=services.clock())
    return {"sessions": sessions, "second_step": second_step}


@page_get("/console/account")
async def account_page(request: AnyRequest) -> Response[Any]:
    """The account."""
    session = needs_session(request)
    done = request.query_params.get("done", "")
    return show(request, "account.html", done=done, **await _values(request, session))


@page_post("/console/account/password")
async def change_password(request: AnyRequest) -> Response[Any]:
    """Change the password; every other session ends."""
    session = needs_session(request)
    try:
        form = await read_form(request, PasswordForm)
        await services_of(request).doors.change_password(
            session.person_id,
            form.old_password,
            form.new_password,
            knock(request, form.proof),
            session_id=session.session_id,
        )
    except KindredError as error:
        values = await _values(request, session)
        return show_again(request, "account.html", error, done="", **values)
    return go(request, "/console/account?done=password")


@page_post("/console/account/email")
async def change_email(request: AnyRequest) -> Response[Any]:
    """Mail a link to the new address."""
    session = needs_session(request)
    try:
        form = await read_form(request, EmailForm)
        await services_of(request).doors.change_email(
            session.person_id, form.email_password, form.email, knock(request, form.proof)
        )
    except KindredError as error:
        values = await _values(request, session)
        return show_again(request, "account.html", error, done="", **values)
    return show_sent(request, form.email, "email_change")


@page_get("/email")
async def email_page(request: AnyRequest) -> Response[Any]:
    """What the mail to a new address opens."""
    return show(request, "email.html", token=request.query_params.get("token", ""))


@page_post("/email")
async def confirm_email(request: AnyRequest) -> Response[Any]:
    """Make it the account's address; whoever opens the link has proved it is theirs."""
    form = await read_form(request, ConfirmForm)
    await services_of(request).doors.confirm_email(form.token, knock(request))
    signed_in = find_session(request) is not None
    return go(request, "/console/account?done=email" if signed_in else "/signin")


@page_get("/email/back")
async def back_page(request: AnyRequest) -> Response[Any]:
    """What the mail to an old address opens."""
    token = request.query_params.get("token", "")
    return show(request, "take_back.html", token=token, email=await services_of(request).doors.look_at_former(token))


@page_post("/email/back")
async def take_back(request: AnyRequest) -> Response[Any]:
    """Make the old address the account's again; a new password is chosen by a mail to it."""
    form = await read_form(request, ConfirmForm)
    services = services_of(request)
    person_id, email = await services.doors.take_back(form.token, knock(request))
    session = find_session(request)
    if session is not None and session.person_id == person_id:
        request.scope["state"]["session"] = None
        request.scope["state"]["cookies"] = [services.sessions.no_cookie()]
    return show_sent(request, email, "take_back")


@page_post("/console/account/sessions")
async def end(request: AnyRequest) -> Response[Any]:
    """End a session, or all others."""
    session = needs_session(request)
    form = await read_form(request, SessionForm)
    async with services_of(request).database.person_session(session.person_id) as conn:
        if form.session_id is None:
            await end_sessions(conn, session.person_id, but=session.session_id)
            await end_asked(conn, session.person_id)
        else:
            await end_session(conn, session.person_id, form.session_id)
    return go(request, "/console/account?done=sessions")


ROUTES: Final = (account_page, change_password, change_email, email_page, confirm_email, back_page, take_back, end)

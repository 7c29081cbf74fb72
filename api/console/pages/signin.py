"""/signin, /forgot, /reset, /signout: the doors of who has an account."""

from typing import Annotated, Any, Final

from litestar import Response
from msgspec import Meta, Struct

from api.console.page import find_session, go, knock, page_get, page_post, read_form, show, show_again, sign_in
from api.console.pages.signup import TokenText, show_sent
from api.deps import services_of
from api.wire import AnyRequest
from infra.errors import KindredError
from tenants.accounts.email import EmailText
from tenants.accounts.passwords import Password
from tenants.accounts.proof import Proof

# Of our own pages alone: else a link to sign in could lead anywhere.
NextPath = Annotated[str, Meta(max_length=200, pattern=r"^/console(/[A-Za-z0-9_-]+)*$(?!\n)")]


class SignInForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page to sign in sends."""

    email: EmailText
    password: Password
    next: NextPath = "/console"
    proof: Proof | None = None


class MailForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent to get a link by mail. The page to sign in sends its password along, which is not looked at."""

    email: EmailText
    password: str | None = None
    next: str | None = None
    proof: Proof | None = None


class LinkForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a button sends that a mail's link led to."""

    token: TokenText


class ResetForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page to choose a new password sends."""

    token: TokenText
    password: Password


@page_get("/signin")
async def signin_page(request: AnyRequest) -> Response[Any]:
    """The form to sign in; who is signed in goes on."""
    if find_session(request) is not None:
        return go(request, "/console")
    return show(request, "signin.html", typed={"next": request.query_params.get("next", "/console")})


@page_post("/signin")
async def sign_in_by_password(request: AnyRequest) -> Response[Any]:
    """Sign in; where it fails, nothing says whether the address or the password was wrong."""
    try:
        form = await read_form(request, SignInForm)
        signed_in = await services_of(request).doors.sign_in(form.email, form.password, knock(request, form.proof))
        return go(request, await sign_in(request, signed_in, then=form.next))
    except KindredError as error:
        return show_again(request, "signin.html", error)


@page_post("/signin/mail")
async def mail_magic_link(request: AnyRequest) -> Response[Any]:
    """Mail a link to sign in without a password, if there is an account."""
    try:
        form = await read_form(request, MailForm)
        await services_of(request).doors.mail_link(form.email, knock(request, form.proof), to_reset=False)
    except KindredError as error:
        return show_again(request, "signin.html", error)
    return show_sent(request, form.email, "magic_link")


@page_get("/signin/link")
async def magic_link_page(request: AnyRequest) -> Response[Any]:
    """What the mail's link opens: a button, since programs open the links of mails too."""
    token = request.query_params.get("token", "")
    await services_of(request).doors.check_link(token, to_reset=False)
    return show(request, "link.html", token=token)


@page_post("/signin/link")
async def sign_in_by_link(request: AnyRequest) -> Response[Any]:
    """Sign in by the link of a mail."""
    form = await read_form(request, LinkForm)
    signed_in = await services_of(request).doors.open_magic_link(form.token, knock(request))
    return go(request, await sign_in(request, signed_in))


@page_get("/forgot")
async def forgot_page(request: AnyRequest) -> Response[Any]:
    """The form to ask for a link that chooses a new password."""
    return show(request, "forgot.html")


@page_post("/forgot")
async def mail_reset(request: AnyRequest) -> Response[Any]:
    """Mail the link, if there is an account."""
    try:
        form = await read_form(request, MailForm)
        await services_of(request).doors.mail_link(form.email, knock(request, form.proof), to_reset=True)
    except KindredError as error:
        return show_again(request, "forgot.html", error)
    return show_sent(request, form.email, "reset")


@page_get("/reset")
async def reset_page(request: AnyRequest) -> Response[Any]:
    """What the mail's link opens."""
    token = request.query_params.get("token", "")
    await services_of(request).doors.check_link(token, to_reset=True)
    return show(request, "reset.html", token=token)


@page_post("/reset")
async def reset_password(request: AnyRequest) -> Response[Any]:
    """Choose the password; every session ends, and this browser gets a new one."""
    form = await read_form(request, ResetForm)
    try:
        signed_in = await services_of(request).doors.reset_password(form.token, form.password, knock(request))
    except KindredError as error:
        if not error.errors:
            raise
        return show_again(request, "reset.html", error, token=form.token)
    return go(request, await sign_in(request, signed_in))


class NoFields(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A form that is one button."""


@page_post("/signout")
async def sign_out(request: AnyRequest) -> Response[Any]:
    """End the session here and everywhere it is known."""
    await read_form(request, NoFields)
    services = services_of(request)
    session = find_session(request)
    if session is not None:
        await services.doors.end(session)
    request.scope["state"]["cookies"] = [services.sessions.no_cookie()]
    return go(request, "/signin")


ROUTES: Final = (
    signin_page,
    sign_in_by_password,
    mail_magic_link,
    magic_link_page,
    sign_in_by_link,
    forgot_page,
    mail_reset,
    reset_page,
    reset_password,
    sign_out,
)

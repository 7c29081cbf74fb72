"""/signup and /verify: from an address to an account with a shop."""

from typing import Annotated, Any, Final

from litestar import Response
from msgspec import Meta, Struct

from api.console.page import (
    find_session,
    form_nonce,
    go,
    knock,
    page_get,
    page_post,
    read_form,
    show,
    show_again,
    sign_in,
)
from api.console.pages.shops import show_keys
from api.deps import services_of
from api.wire import AnyRequest
from infra.errors import KindredError
from tenants.accounts.doors import PasswordNeeded, SignupClosed
from tenants.accounts.email import EmailText
from tenants.accounts.passwords import Password
from tenants.accounts.proof import Proof
from tenants.accounts.signup import Currency, ShopName

TokenText = Annotated[str, Meta(min_length=1, max_length=100)]


class SignupForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page to sign up sends."""

    email: EmailText
    password: Password
    shop_name: ShopName | None = None
    currency: Currency = "USD"
    proof: Proof | None = None


class VerifyForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page to confirm an address sends."""

    token: TokenText
    password: Password | None = None


@page_get("/signup")
async def signup_page(request: AnyRequest) -> Response[Any]:
    """The form to sign up; who is signed in goes to their shops."""
    if find_session(request) is not None:
        return go(request, "/console")
    try:
        services_of(request).doors.check_open()
    except SignupClosed as error:
        return show(request, "signup_closed.html", error=error)
    form_nonce(request)
    return show(request, "signup.html")


@page_post("/signup")
async def sign_up(request: AnyRequest) -> Response[Any]:
    """Ask for an account. The same page whether there is one with that address or not."""
    services = services_of(request)
    try:
        form = await read_form(request, SignupForm)
        await services.doors.sign_up(
            form.email,
            form.password,
            form.shop_name,
            knock(request, form.proof),
            currency=form.currency,
            browser=form_nonce(request),
        )
    except SignupClosed as error:
        return show(request, "signup_closed.html", error=error)
    except KindredError as error:
        return show_again(request, "signup.html", error)
    return show_sent(request, form.email, "verify")


def show_sent(request: AnyRequest, email: str, kind: str) -> Response[str]:
    """“Check your mail”, and what to do where none comes."""
    return show(
        request, "sent.html", email=email.strip(), kind=kind, to_files=services_of(request).settings.smtp_url is None
    )


@page_get("/verify")
async def verify_page(request: AnyRequest) -> Response[Any]:
    """What the mail's link opens. It is confirmed by a button: programs open the links of mails too."""
    token = request.query_params.get("token", "")
    asked = await services_of(request).doors.look_at_signup(token, browser=form_nonce(request))
    return show(request, "verify.html", token=token, asked=asked)


@page_post("/verify")
async def verify(request: AnyRequest) -> Response[Any]:
    """Make the account, sign in, and show the keys of the first shop for the only time."""
    form = await read_form(request, VerifyForm)
    doors = services_of(request).doors
    browser = form_nonce(request)
    try:
        welcome = await doors.verify(form.token, knock(request), password=form.password, browser=browser)
    except PasswordNeeded as error:
        asked = await doors.look_at_signup(form.token, browser=browser)
        return show_again(request, "verify.html", error, token=form.token, asked=asked)
    except KindredError as error:
        if not error.errors:
            raise
        asked = await doors.look_at_signup(form.token, browser=browser)
        return show_again(request, "verify.html", error, token=form.token, asked=asked)
    await sign_in(request, welcome.signed_in)
    return show_keys(request, welcome.shop, first=True)


ROUTES: Final = (signup_page, sign_up, verify_page, verify)

"""/signin/code, /console/account/second-step: the second step, when signing in and when setting it up."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

import segno
from litestar import Response
from markupsafe import Markup
from msgspec import Struct

from api.console.carried import Halfway
from api.console.page import (
    carried,
    drop,
    go,
    knock,
    needs_session,
    open_session,
    page_get,
    page_post,
    read_form,
    show,
    show_again,
)
from api.deps import services_of
from api.wire import AnyRequest
from infra.errors import KindredError
from tenants.accounts.passwords import Password
from tenants.accounts.people import SignInFailed
from tenants.accounts.proof import Proof
from tenants.accounts.second_step import Enrolment, SecondStepIsOff, SecondStepIsOn
from tenants.accounts.sessions import Session
from tenants.accounts.totp import CodeText


class CodeForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A code of the app, or a recovery code."""

    code: CodeText
    proof: Proof | None = None


class StartForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The password, before anything of the second step is shown."""

    step_password: Password
    proof: Proof | None = None


def _halfway(request: AnyRequest) -> Halfway | None:
    return carried(request, services_of(request).sessions.cookies.halfway, Halfway)


@page_get("/signin/code")
async def code_page(request: AnyRequest) -> Response[Any]:
    """The form for the code; who has not come by the first step begins there."""
    return go(request, "/signin") if _halfway(request) is None else show(request, "code.html")


@page_post("/signin/code")
async def sign_in_by_code(request: AnyRequest) -> Response[Any]:
    """Take the second step, and open the session."""
    halfway = _halfway(request)
    services = services_of(request)
    try:
        form = await read_form(request, CodeForm)
        if halfway is None:
            return go(request, "/signin")
        await services.second_steps.check(halfway.signed_in.person_id, form.code, knock(request, form.proof))
    except SecondStepIsOff:
        return go(request, "/signin")  # turned off in another browser, since the first step was taken
    except KindredError as error:
        return show_again(request, "code.html", error)
    try:
        await open_session(request, halfway.signed_in)
    except SignInFailed as error:
        drop(request, services.sessions.cookies.halfway)
        return show_again(request, "signin.html", error)
    drop(request, services.sessions.cookies.halfway)
    return go(request, halfway.then)


@page_post("/console/account/second-step")
async def start(request: AnyRequest) -> Response[Any]:
    """Check the password once more, and make a secret."""
    session = needs_session(request)
    services = services_of(request)
    try:
        form = await read_form(request, StartForm)
        await services.doors.confirm_password(session.person_id, form.step_password, knock(request, form.proof))
        enrolment = await services.second_steps.start(session)
    except KindredError as error:
        return show_again(request, "second_step_start.html", error)
    return show(request, "second_step.html", **_told(enrolment))


@page_get("/console/account/second-step")
async def start_page(request: AnyRequest) -> Response[Any]:
    """The password first: what the app is told is shown to nobody else."""
    session = needs_session(request)
    state = await services_of(request).second_steps.state_of(session.person_id)
    if state.since is None:
        return show(request, "second_step_start.html")
    return show(request, "second_step_on.html", second_step=state)


@page_post("/console/account/second-step/confirm")
async def confirm(request: AnyRequest) -> Response[Any]:
    """Turn it on by the first code of the app, and show the recovery codes for the only time."""
    session = needs_session(request)
    try:
        form = await read_form(request, CodeForm)
        codes = await services_of(request).second_steps.confirm(session, form.code, knock(request, form.proof))
    except SecondStepIsOn:  # there is no form to show again
        raise
    except SecondStepIsOff as error:
        return show_again(request, "second_step_start.html", error)
    except KindredError as error:
        # What the app was told was for who gave the password, and then: it is not shown again.
        return show_again(request, "second_step.html", error, qr=None)
    return _show_codes(request, codes)


@page_post("/console/account/second-step/codes")
async def renew_codes(request: AnyRequest) -> Response[Any]:
    """Ten new recovery codes in place of those before."""
    session = needs_session(request)
    try:
        form = await read_form(request, CodeForm)
        codes = await services_of(request).second_steps.renew_codes(
            session.person_id, form.code, knock(request, form.proof)
        )
    except KindredError as error:
        return await _show_on(request, session, error)
    return _show_codes(request, codes)


@page_post("/console/account/second-step/off")
async def turn_off(request: AnyRequest) -> Response[Any]:
    """Turn it off, by a code."""
    session = needs_session(request)
    try:
        form = await read_form(request, CodeForm)
        await services_of(request).second_steps.turn_off(session.person_id, form.code, knock(request, form.proof))
    except KindredError as error:
        return await _show_on(request, session, error)
    return go(request, "/console/account?done=second_step_off")


async def _show_on(request: AnyRequest, session: Session, error: KindredError) -> Response[str]:
    state = await services_of(request).second_steps.state_of(session.person_id)
    if state.since is None:
        raise error
    return show_again(request, "second_step_on.html", error, second_step=state)


def _show_codes(request: AnyRequest, codes: Sequence[str]) -> Response[str]:
    return show(request, "recovery_codes.html", codes=codes)


def _told(enrolment: Enrolment) -> dict[str, Any]:
    """What the template shows of it: the secret in groups of four, and the QR code as a picture within the page."""
    drawn = BytesIO()
    segno.make(enrolment.uri, error="m").save(
        drawn, kind="svg", xmldecl=False, svgns=True, border=4, omitsize=True, dark="#000", light="#fff"
    )
    secret = enrolment.secret
    return {
        "qr": Markup(drawn.getvalue().decode()),  # noqa: S704 - of numbers that segno wrote
        "groups": [secret[at : at + 4] for at in range(0, len(secret), 4)],
        "uri": enrolment.uri,
    }


ROUTES: Final = (code_page, sign_in_by_code, start_page, start, confirm, renew_codes, turn_off)

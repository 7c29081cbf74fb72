"""What every page of the console does alike: rendering, forms and who sent them, errors told to people."""

from collections.abc import Callable
from functools import cache
from secrets import token_urlsafe
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Response, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie, UploadFile
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler
from litestar.response import Redirect
from msgspec import Struct

from api.auth import PUBLIC
from api.console.carried import CARRIED_S, Carried, Halfway, open_carried, seal_carried
from api.console.files import CONSOLE, HEADERS
from api.deps import services_of
from api.network import client_network
from api.problems import BadRequest, UnsupportedMediaType, known, status_of
from api.sessions import Sessions, SignInNeeded
from api.wire import AnyRequest, convert_text, media_type
from infra.curl import curl_file, curl_json
from infra.errors import Forbidden, KindredError
from tenants.accounts.attempts import Knock, ProofNeeded
from tenants.accounts.browsers import browser_name
from tenants.accounts.proof import Challenge
from tenants.accounts.sessions import Session, SignedIn

T = TypeVar("T", bound=Struct)

FORM_BYTES: Final = 64_000
"""Of a form without a file."""

# Products may show photos of other hosts; all else comes from here, and nothing inline runs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: http: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# `no-referrer` would have browsers say "Origin: null" of our own forms. The tokens of links stay here either way.
_PAGE_HEADERS: Final = {
    **HEADERS,
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
}
_FORM_COOKIE_S: Final = 86_400
_MAX_FIELDS: Final = 50
_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field


class FormExpired(Forbidden):
    """The form was not given to this browser, or to another session of it."""

    code = "form_expired"
    title = "The form is too old"


def page_get(path: str) -> Callable[[Any], HTTPRouteHandler]:
    """A page for people: no part of the API, and its errors are pages too."""
    return get(
        path,
        include_in_schema=False,
        opt={"scope": PUBLIC},
        guards=[know_session],
        exception_handlers={Exception: page_problem},
    )


def page_post(path: str, *, max_body: int = FORM_BYTES) -> Callable[[Any], HTTPRouteHandler]:
    """What the form of a page is sent to."""
    return post(
        path,
        status_code=200,
        include_in_schema=False,
        opt={"scope": PUBLIC, "max_body": max_body},
        guards=[know_session],
        exception_handlers={Exception: page_problem},
    )


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(CONSOLE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(curl_file=curl_file, curl_json=curl_json)
    return made


def _pending(request: AnyRequest) -> list[Cookie]:
    """The cookies that the answer to this request will set."""
    cookies: list[Cookie] = request.scope["state"].setdefault("cookies", [])
    return cookies


async def know_session(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard of every page: looks for the session once, and has the answer change its cookie where that is due."""
    sessions: Sessions = connection.app.state.services.sessions
    session = await sessions.find(connection.scope)
    state = connection.scope["state"]
    state["session"] = session
    if session is not None and session.secret is not None:
        state["cookies"] = [sessions.cookie(session.secret)]


def find_session(request: AnyRequest) -> Session | None:
    """The session of this request."""
    found: Session | None = request.scope["state"].get("session")
    return found


def needs_session(request: AnyRequest) -> Session:
    """The session of this request. Raises SignInNeeded, which leads to the page to sign in."""
    session = find_session(request)
    if session is None:
        raise SignInNeeded("Sign in to see this page.")
    return session


async def sign_in(request: AnyRequest, signed_in: SignedIn, *, then: str = "/console") -> str:
    """Open a session for this browser, or have it take the second step first; where it goes on to.

    `then`: the page that was asked for. Raises SignInFailed where they changed password or address meanwhile.
    """
    if await services_of(request).second_steps.is_asked_of(signed_in):
        carry(
            request,
            services_of(request).sessions.cookies.halfway,
            Halfway(signed_in=signed_in, then=then),
        )
        return "/signin/code"
    await open_session(request, signed_in)
    return then


async def open_session(request: AnyRequest, signed_in: SignedIn) -> None:
    """A session for this browser, which always gets a new secret; what session it had ends. Raises SignInFailed."""
    services = services_of(request)
    secret = await services.doors.begin(signed_in, browser=browser_name(request.headers.get("user-agent", "")))
    old = find_session(request)
    if old is not None:
        await services.doors.end(old)
    # What this answer shows is of the new session: its forms too.
    request.scope["state"]["session"] = await services.sessions.of_secret(secret)
    request.scope["state"]["cookies"] = [services.sessions.cookie(secret)]


def carry(request: AnyRequest, name: str, value: Carried) -> None:
    """Have the browser hold `value` in that cookie until its next step; it can neither read nor forge it."""
    services = services_of(request)
    text = seal_carried(services.secret, name, value, now=services.clock())
    _pending(request).append(services.sessions.cookies.make(name, text, max_age=CARRIED_S))


def carried(request: AnyRequest, name: str, kind: type[T]) -> T | None:
    """What the browser holds in the cookie of that name; None where it is nothing of ours, or too old."""
    services = services_of(request)
    return open_carried(services.secret, name, request.cookies.get(name, ""), kind, now=services.clock())


def drop(request: AnyRequest, name: str) -> None:
    """Have the browser forget what it carries."""
    _pending(request).append(services_of(request).sessions.cookies.make(name, "", max_age=0))


def form_nonce(request: AnyRequest) -> str:
    """What ties the forms of a browser without a session to it: its cookie, set with this answer where it is new."""
    state = request.scope["state"]
    if "form" not in state:
        cookies = services_of(request).sessions.cookies
        held = request.cookies.get(cookies.form, "")
        if not 16 <= len(held) <= 64:
            held = token_urlsafe(24)
            _pending(request).append(cookies.make(cookies.form, held, max_age=_FORM_COOKIE_S))
        state["form"] = held
    found: str = state["form"]
    return found


def _form_binding(request: AnyRequest) -> str:
    """Apart by their prefixes: what a browser says in its cookie must never stand for a session."""
    session = find_session(request)
    return f"form:{form_nonce(request)}" if session is None else f"session:{session.session_id}"


def _form_token(request: AnyRequest) -> str:
    return services_of(request).sessions.form_token(_form_binding(request))


def show(request: AnyRequest, template: str, *, status: int = 200, **values: Any) -> Response[str]:
    """A page. Every template is given the form token, the session (or None), `sso`, `error`, `challenge`, `typed`."""
    state = request.scope["state"]
    sso = services_of(request).doors.sso
    values = {"sso": sso, "error": None, "challenge": None, "typed": {}, **values}
    html = (
        _templates()
        .get_template(template)
        .render(form_token=_form_token(request), session=find_session(request), path=state["path"], **values)
    )
    return Response(
        html,
        status_code=status,
        media_type=MediaType.HTML,
        headers=_PAGE_HEADERS,
        cookies=_pending(request),
    )


def go(request: AnyRequest, path: str) -> Response[Any]:
    """On to another page, which is asked for by GET."""
    return Redirect(path, status_code=303, cookies=_pending(request), headers={"Cache-Control": "no-store"})


def show_again(request: AnyRequest, template: str, error: KindredError, **values: Any) -> Response[str]:
    """The form as it was sent, without its passwords, and what was wrong with it."""
    challenge: Challenge | None = error.challenge if isinstance(error, ProofNeeded) else None
    state = request.scope["state"]
    state["error_code"] = error.code
    status, typed = status_of(type(error)), state.get("typed", {})
    return show(request, template, status=status, error=error, challenge=challenge, typed=typed, **values)


def knock(request: AnyRequest, proof: str | None = None) -> Knock:
    """Who is at the door."""
    trusted = services_of(request).settings.trusted_proxies
    network = client_network(request.scope, trusted)
    return Knock(network=network, proof=proof, request_id=request.scope["state"].get("request_id"))


async def read_form(request: AnyRequest, kind: type[T]) -> T:
    """The fields of a form that this browser was given, empty ones left out.

    Raises UnsupportedMediaType, BadRequest, CrossSite, FormExpired, InvalidFields.
    """
    services_of(request).sessions.check_same_site(request.scope)
    if media_type(request) != "application/x-www-form-urlencoded":
        raise UnsupportedMediaType("Send the form of the page.")
    try:
        pairs = parse_qsl(
            (await request.body()).decode("ascii"), errors="strict", max_num_fields=_MAX_FIELDS, strict_parsing=False
        )
    except ValueError as error:  # no ASCII, no UTF-8, or more fields than any form has
        raise BadRequest("The form cannot be read; load the page again.") from error
    return convert_text(_checked(request, dict(pairs)), kind)


async def read_upload(request: AnyRequest) -> tuple[dict[str, str], UploadFile | None]:
    """The fields of a form that may carry a file. Raises what `read_form` raises."""
    services_of(request).sessions.check_same_site(request.scope)
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaType("Send the form of the page.")
    form = await request.form()
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str) and value}
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile) and value.filename]
    return _checked(request, fields), files[0] if files else None


def _checked(request: AnyRequest, fields: dict[str, str]) -> dict[str, str]:
    request.scope["state"]["typed"] = {name: text for name, text in fields.items() if "password" not in name}
    if not services_of(request).sessions.is_form_token(_form_binding(request), fields.pop(_TOKEN, "")):
        raise FormExpired("Load the page again and send its form once more; nothing was changed.")
    return fields


def page_problem(request: AnyRequest, error: Exception) -> Response[Any]:
    """Any error as a page that says what to do; without a session, the page to sign in."""
    told = known(error)
    state = request.scope["state"]
    if isinstance(told, SignInNeeded):
        back = state["path"] if request.method == "GET" else "/console"
        return Redirect(f"/signin?next={quote(back, safe='/')}", status_code=303)
    state["error_code"] = told.code
    status = status_of(type(told))
    return show(request, "problem.html", status=status, error=told, request_id=state.get("request_id", ""))

"""/signin/sso: signing in with the OpenID Connect provider of an organisation."""

from typing import Annotated, Any, Final

from litestar import Response
from msgspec import Meta, Struct

from api.console.carried import AtProvider
from api.console.page import carried, carry, drop, go, knock, page_get, sign_in
from api.console.pages.signin import NextPath
from api.deps import services_of
from api.wire import AnyRequest, convert_text
from infra.errors import NotFound
from infra.oidc import OidcProvider, SsoRefused

CALLBACK: Final = "/signin/sso/callback"
"""Where the provider sends people back to; it is registered there, below KINDRED_PUBLIC_URL."""

_Parameter = Annotated[str, Meta(max_length=4096)]
_ASKED: Final = ("code", "state", "iss", "error")


class SsoOff(NotFound):
    """This installation has no OpenID Connect provider."""

    code = "sso_off"
    title = "Nobody signs in with an organisation here"


class BeginQuery(Struct, frozen=True, kw_only=True):
    """What the button says beside its address."""

    next: NextPath = "/console"


class CallbackQuery(Struct, frozen=True, kw_only=True):
    """What the provider answers with; providers add parameters of their own, which are not looked at."""

    code: _Parameter | None = None
    state: _Parameter | None = None
    iss: _Parameter | None = None
    error: _Parameter | None = None


def _provider(request: AnyRequest) -> OidcProvider:
    provider = services_of(request).provider
    if provider is None:
        raise SsoOff("Sign in with your e-mail address. Whoever runs this installation may set KINDRED_OIDC_ISSUER.")
    return provider


@page_get("/signin/sso")
async def begin(request: AnyRequest) -> Response[Any]:
    """To the provider. A link, not a form: a form must not lead to another site (`form-action`)."""
    provider = _provider(request)
    wanted = convert_text({name: text for name, text in request.query_params.items() if name == "next"}, BeginQuery)
    address, flow = await provider.begin()
    carry(request, services_of(request).sessions.cookies.flow, AtProvider(flow=flow, then=wanted.next))
    return go(request, address)


@page_get(CALLBACK)
async def come_back(request: AnyRequest) -> Response[Any]:
    """Back from the provider: whom it vouches for is in, or learns why not."""
    provider = _provider(request)
    services = services_of(request)
    name = services.sessions.cookies.flow
    held = carried(request, name, AtProvider)
    # Whatever comes of it, it was tried: a second answer to one sign-in is nobody's.
    drop(request, name)
    if held is None:
        raise SsoRefused("This browser began no sign-in, or more than ten minutes ago. Begin again.")
    told = convert_text({name: text for name, text in request.query_params.items() if name in _ASKED}, CallbackQuery)
    vouched = await provider.finish(held.flow, code=told.code, state=told.state, issuer=told.iss, error=told.error)
    signed_in = await services.doors.arrive(vouched, knock(request))
    return go(request, await sign_in(request, signed_in, then=held.then))


ROUTES: Final = (begin, come_back)

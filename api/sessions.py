"""Console sessions at the edge: the cookie, the session behind it, and what it may do at the API.

At the API a session acts for one shop, which the header `Kindred-Shop` names. No page of another origin can set that
header: the preflight that it takes does not allow it.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from litestar.datastructures import Cookie
from msgspec import Struct, structs

from api.auth import Caller
from infra.clock import Clock
from infra.db import Database, TenantId
from infra.errors import Forbidden, Unauthenticated
from infra.secret import Secret
from tenants.accounts.organisations import OwnShop, ShopNotFound, get_own_shop
from tenants.accounts.roles import ROLE_SCOPES
from tenants.accounts.sessions import LIFE, Session, find_session, rotate_session, touch_session
from tenants.accounts.sso import SsoRules


class SignInNeeded(Unauthenticated):
    """There is no session, or it has ended."""

    code = "sign_in_needed"
    title = "Sign in first"


class CrossSite(Forbidden):
    """The request was made by a page of another site."""

    code = "cross_site"
    title = "The request comes from another site"


class ShopHeader(Forbidden):
    """A session names no shop, or one that the person does not belong to."""

    code = "shop_header"
    title = "Name one of your shops"


_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)


def cookies_of(scope: Any) -> dict[str, str]:
    """The cookies of a request; of two with one name the first, which is the more specific (RFC 6265, 5.4)."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, equals, text = pair.strip().partition("=")
                if equals:
                    found.setdefault(key, text)
    return found


def _header(scope: Any, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


class Cookies(Struct, frozen=True, kw_only=True):
    """The names and the form of our cookies.

    Over https they carry `__Host-`: no other host of the domain can set them. Over plain http a browser would not take
    that; it is for development, and for a network that one trusts.
    """

    secure: bool

    @property
    def session(self) -> str:
        """The name of the session's cookie."""
        return "__Host-kindred" if self.secure else "kindred"

    @property
    def form(self) -> str:
        """The name of the cookie that ties a form to a browser without a session."""
        return "__Host-kindred-form" if self.secure else "kindred-form"

    @property
    def halfway(self) -> str:
        """The name of the cookie of who has yet to take the second step."""
        return "__Host-kindred-step" if self.secure else "kindred-step"

    @property
    def flow(self) -> str:
        """The name of the cookie of who is at the provider just now."""
        return "__Host-kindred-sso" if self.secure else "kindred-sso"

    def make(self, name: str, value: str, *, max_age: int) -> Cookie:
        """A cookie of the whole site that no script reads and that no other site's form sends along."""
        return Cookie(
            key=name, value=value, max_age=max_age, path="/", httponly=True, secure=self.secure, samesite="lax"
        )


class Sessions:
    """Finds the session of a request. One per process."""

    def __init__(
        self,
        database: Database,
        *,
        secret: Secret,
        origin: str,
        clock: Clock,
        sso: SsoRules | None = None,
    ) -> None:
        """`origin`: where people reach the installation. `sso`: whose sessions only a provider begins."""
        self._database = database
        self._secret = secret
        self._origin = origin
        self._clock = clock
        self._sso = sso
        self.cookies = Cookies(secure=origin.startswith("https://"))

    async def find(self, scope: Any, *, rotate: bool = True) -> Session | None:
        """The session of a request. `rotate`: whether the answer can change the cookie to `session.secret`."""
        secret = cookies_of(scope).get(self.cookies.session)
        return None if secret is None else await self.of_secret(secret, rotate=rotate)

    async def of_secret(self, secret: str, *, rotate: bool = False) -> Session | None:
        """The session of a cookie's value."""
        now = self._clock()
        async with self._database.anonymous_session() as conn:
            seen = await find_session(conn, secret, now=now)
        if seen is None:
            return None
        session = seen.session
        if self._sso is not None and session.method != "oidc" and self._sso.covers(session.email):
            return None  # of the time before these people had to come by the provider
        if seen.rotate and rotate:
            async with self._database.person_session(session.person_id) as conn:
                fresh = await rotate_session(conn, session, secret, now=now)
            return structs.replace(session, secret=fresh)
        if seen.touch:
            async with self._database.person_session(session.person_id) as conn:
                await touch_session(conn, session, now=now)
        return session

    def cookie(self, secret: str) -> Cookie:
        """What keeps a session in the browser."""
        return self.cookies.make(self.cookies.session, secret, max_age=int(LIFE.total_seconds()))

    def no_cookie(self) -> Cookie:
        """What takes it away."""
        return self.cookies.make(self.cookies.session, "", max_age=0)

    def form_token(self, binding: str) -> str:
        """The synchroniser token of forms: of a session's id, or of what the form's cookie holds."""
        return _form_token(self._secret.current, binding)

    def is_form_token(self, binding: str, token: str) -> bool:
        """Whether it was given to this binding, under any secret that is believed."""
        return any(
            hmac.compare_digest(_form_token(each, binding).encode(), token.encode()) for each in self._secret.every
        )

    def check_same_site(self, scope: Any) -> None:
        """The request was made by a page of ours, or by no page. Raises CrossSite."""
        site = _header(scope, b"sec-fetch-site")
        origin = _header(scope, b"origin")
        ours = {self._origin, *_origins(_header(scope, b"host"))}
        if site not in (None, "same-origin", "none") or (origin is not None and origin.lower() not in ours):
            raise CrossSite("Open the page here and send its form again; nothing was changed.")

    async def caller(self, scope: Any, shop: str) -> Caller:
        """Who acts at the API by a session, in the shop that the header names.

        Raises SignInNeeded, CrossSite, ShopHeader.
        """
        self.check_same_site(scope)
        session = await self.find(scope, rotate=False)
        if session is None:
            raise SignInNeeded("The session has ended; sign in again at /signin.")
        try:
            own = await self.own_shop(session.person_id, shop)
        except ShopNotFound as error:
            raise ShopHeader("You have no such shop; send the id of one of yours in `Kindred-Shop`.") from error
        return self.caller_in(session, own)

    def caller_in(self, session: Session, own: OwnShop) -> Caller:
        """Who acts by a session in a shop of theirs."""
        return Caller(
            tenant_id=own.tenant_id,
            key_id=f"session:{session.session_id}",
            person_id=session.person_id,
            kind="secret",
            scopes=frozenset[str](ROLE_SCOPES[own.role]),
            placements=None,
            rate_per_min=None,
        )

    async def own_shop(self, person_id: UUID, shop: str) -> OwnShop:
        """A shop of an organisation that the person belongs to. Raises ShopNotFound."""
        try:
            tenant_id = TenantId(UUID(shop))
        except ValueError as error:
            raise ShopNotFound("This is no id of a shop. “Your shops” lists those you have.") from error
        async with self._database.person_session(person_id, tenant_id=tenant_id) as conn:
            return await get_own_shop(conn, person_id, tenant_id)


def _form_token(secret: bytes, binding: str) -> str:
    digest = hmac.digest(secret, b"form\0" + binding.encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _origins(host: str | None) -> Sequence[str]:
    """What the origin of a page on the same host would be: who forges Host has no cookie there."""
    if host is None or not _HOST.fullmatch(host):
        return ()
    return (f"http://{host.lower()}", f"https://{host.lower()}")

"""An OpenID Connect provider, as its client sees it (OpenID Connect Core 1.0, Discovery 1.0; RFC 6749, 7636, 9207).

The provider is the one that whoever runs the installation named; nobody else's address is ever asked. The
authorization code flow, with PKCE, `state` and `nonce`. What it says of a person is believed only as a signed ID token
of this issuer, for this client, of this sign-in, by a key that it publishes and an algorithm that has a public key.
"""

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote_plus, urlsplit

import httpx
import msgspec
from msgspec import Struct

from infra.clock import Clock
from infra.errors import Unauthenticated, UpstreamFailed
from infra.fetch import trusted_authorities

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

T = TypeVar("T")

SCOPE: Final = "openid email profile"
LEEWAY_S: Final = 60
"""Seconds that the provider's clock may be off."""

# None of them takes a shared secret: else what signs a token could be something that others know, as a public key is.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_KEY_KINDS: Final = frozenset({"RSA", "EC"})
_KEPT: Final = timedelta(hours=1)
_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 1_000_000
_MAX_SUBJECT: Final = 255


class SsoUnavailable(UpstreamFailed):
    """The provider cannot be reached, or answers with something that no provider would."""

    code = "sso_unavailable"
    title = "The sign-in of your organisation does not answer"


class SsoRefused(Unauthenticated):
    """The provider did not vouch for anybody, or what came back does not belong to this sign-in."""

    code = "sso_refused"
    title = "The sign-in was not finished"


class Flow(Struct, frozen=True, kw_only=True):
    """A sign-in under way: what only the browser that began it holds, and what its answer is to fit."""

    state: str
    nonce: str
    verifier: str


class Vouched(Struct, frozen=True, kw_only=True):
    """Whom the provider vouches for. `subject` is theirs for ever; an address may move on to somebody else."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool


class _Metadata(Struct, frozen=True, kw_only=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: Sequence[str] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(Struct, frozen=True, kw_only=True):
    id_token: str
    access_token: str


class _Refusal(Struct, frozen=True, kw_only=True):
    error: str


class _Jwks(Struct, frozen=True, kw_only=True):
    keys: list[dict[str, Any]]


class OidcProvider:
    """One per process; close it. What the provider publishes is kept for an hour, its keys until one is missing."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        *,
        redirect_uri: str,
        clock: Clock,
    ) -> None:
        """`client_secret`: None for a public client, which PKCE alone protects."""
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._metadata: tuple[datetime, _Metadata] | None = None
        self._keys: tuple[datetime, KeySet] | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def begin(self) -> tuple[str, Flow]:
        """Where the browser goes to sign in, and what it holds meanwhile. Raises SsoUnavailable."""
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        metadata = await self._discover()
        flow = Flow(
            state=secrets.token_urlsafe(32), nonce=secrets.token_urlsafe(32), verifier=secrets.token_urlsafe(48)
        )
        uri: str = prepare_grant_uri(
            metadata.authorization_endpoint,
            self._client_id,
            "code",
            redirect_uri=self._redirect_uri,
            scope=SCOPE,
            state=flow.state,
            nonce=flow.nonce,
            code_challenge=create_s256_code_challenge(flow.verifier),
            code_challenge_method="S256",
        )
        return uri, flow

    async def finish(
        self, flow: Flow, *, code: str | None, state: str | None, issuer: str | None, error: str | None
    ) -> Vouched:
        """Whom the provider vouches for, by what it had the browser bring: the parameters of its answer.

        Raises SsoRefused, SsoUnavailable.
        """
        if state is None or not hmac.compare_digest(state.encode(), flow.state.encode()):
            raise SsoRefused("What came back is of another sign-in. Begin again, in this browser.")
        metadata = await self._discover()
        needed = metadata.authorization_response_iss_parameter_supported
        if issuer != self.issuer and (needed or issuer is not None):
            raise SsoRefused("The answer is of another provider than the one that was asked. Begin again.")
        if error is not None or code is None:
            raise SsoRefused("The provider let nobody in. Begin again; if it stays so, ask who runs the provider.")
        tokens = await self._redeem(metadata, code, flow.verifier)
        claims = await self._check(metadata, tokens, flow.nonce)
        if "email" not in claims and metadata.userinfo_endpoint is not None:
            claims = {**claims, **await self._ask_about(metadata.userinfo_endpoint, tokens, claims["sub"])}
        email = claims.get("email")
        return Vouched(
            issuer=self.issuer,
            subject=claims["sub"],
            email=email if isinstance(email, str) else None,
            email_verified=claims.get("email_verified") is True,
        )

    async def _discover(self) -> _Metadata:
        now = self._clock()
        if self._metadata is None or self._metadata[0] + _KEPT <= now:
            status, body = await self._ask("GET", self.issuer.rstrip("/") + "/.well-known/openid-configuration")
            metadata = _read(status, body, _Metadata)
            if metadata.issuer != self.issuer:
                raise SsoUnavailable(
                    "The provider says that it is another issuer than KINDRED_OIDC_ISSUER. Whoever runs this "
                    "installation has to set the issuer exactly as the provider writes it."
                )
            for address in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
                self._check_address(address)
            if metadata.userinfo_endpoint is not None:
                self._check_address(metadata.userinfo_endpoint)
            self._metadata = (now, metadata)
        return self._metadata[1]

    def _check_address(self, address: str) -> None:
        """Over TLS, wherever it is; without, at the issuer's own host alone: a provider of a test."""
        parts, issuer = urlsplit(address), urlsplit(self.issuer)
        if parts.scheme != "https" and (parts.scheme, parts.netloc) != (issuer.scheme, issuer.netloc):
            raise SsoUnavailable("The provider names an address without TLS, which is not asked.")

    async def _redeem(self, metadata: _Metadata, code: str, verifier: str) -> _Tokens:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        auth = None
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            auth = httpx.BasicAuth(quote_plus(self._client_id), quote_plus(self._client_secret))
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        status, body = await self._ask("POST", metadata.token_endpoint, data=form, auth=auth)
        if status in (400, 401):
            refusal = _read(200, body, _Refusal).error
            if refusal == "invalid_grant":
                raise SsoRefused("The provider's answer was used before, or is too old. Begin again.")
            raise SsoUnavailable(
                "The provider does not know this installation. Whoever runs it has to compare KINDRED_OIDC_CLIENT_ID, "
                "KINDRED_OIDC_CLIENT_SECRET and the redirect address with what is registered at the provider."
            )
        return _read(status, body, _Tokens)

    async def _check(self, metadata: _Metadata, tokens: _Tokens, nonce: str) -> dict[str, Any]:
        """The claims of the ID token, once all of it holds."""
        from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError

        known = self._keys is not None and self._keys[0] + _KEPT > self._clock()
        try:
            try:
                return self._verified(tokens, await self._key_set(metadata), nonce)
            except (BadSignatureError, InvalidKeyIdError):
                if not known:
                    raise
            # The provider may have a new key since its keys were read.
            self._keys = None
            return self._verified(tokens, await self._key_set(metadata), nonce)
        except (JoseError, ValueError) as error:
            raise SsoRefused(
                "The provider's token does not hold: it is not of this sign-in, not for this installation, too old, or "
                "signed by nobody who may. Begin again; if it stays so, tell whoever runs this installation."
            ) from error

    def _verified(self, tokens: _Tokens, keys: "KeySet", nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt

        token = jwt.decode(tokens.id_token, keys, algorithms=_ALGORITHMS)
        claims = CodeIDToken(
            token.claims,
            token.header,
            options={
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self._client_id},
            },
            params={"nonce": nonce, "client_id": self._client_id, "access_token": tokens.access_token},
        )
        claims.validate(now=int(self._clock().timestamp()), leeway=LEEWAY_S)
        if not 1 <= len(claims["sub"]) <= _MAX_SUBJECT or not claims["sub"].isprintable():
            raise ValueError("a subject that nobody has")
        return dict(claims)

    async def _key_set(self, metadata: _Metadata) -> "KeySet":
        from joserfc.errors import JoseError
        from joserfc.jwk import JWKRegistry, KeySet

        now = self._clock()
        if self._keys is None or self._keys[0] + _KEPT <= now:
            status, body = await self._ask("GET", metadata.jwks_uri)
            usable = []
            for each in _read(status, body, _Jwks).keys:
                if each.get("kty") in _KEY_KINDS and each.get("use", "sig") == "sig":
                    try:
                        usable.append(JWKRegistry.import_key(each))
                    except (JoseError, ValueError):
                        continue  # one that nobody can use keeps nobody from using the others
            if not usable:
                raise SsoUnavailable("The provider publishes no key that its tokens could be checked with.")
            self._keys = (now, KeySet(usable))
        return self._keys[1]

    async def _ask_about(self, address: str, tokens: _Tokens, subject: str) -> dict[str, Any]:
        """What the provider tells beside the token; some put the address there alone (Core 1.0, 5.3)."""
        headers = {"Authorization": f"Bearer {tokens.access_token}"}
        status, body = await self._ask("GET", address, headers=headers)
        told = _read(status, body, dict[str, Any])
        if told.get("sub") != subject:
            raise SsoRefused("The provider tells of somebody else than who signed in. Begin again.")
        return {name: told[name] for name in ("email", "email_verified") if name in told}

    async def _ask(self, method: str, address: str, **kwargs: Any) -> tuple[int, bytes]:
        """Status and body, bounded in bytes and time; redirects are not followed, proxies not used."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                verify=trusted_authorities(), trust_env=False, headers={"Accept": "application/json"}
            )
        body = bytearray()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                async with self._http.stream(method, address, **kwargs) as response:
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > _MAX_BYTES:
                            raise _away()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _away() from error
        return response.status_code, bytes(body)


def _read(status: int, body: bytes, kind: type[T]) -> T:
    try:
        if status == 200:
            return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise _away() from error
    raise _away()


def _away() -> SsoUnavailable:
    return SsoUnavailable("Try again in a minute. If it stays so, tell whoever runs this installation.")

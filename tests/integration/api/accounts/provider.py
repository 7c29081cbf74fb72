"""An OpenID Connect provider on loopback: what a real one does, and on demand what no honest one would."""

import hmac
import json
import secrets
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import Key, RSAKey
from joserfc.util import urlsafe_b64encode

CLIENT_ID = "kindred at work"
CLIENT_SECRET = "s:cr%t+of the client"

Claims = dict[str, Any]


class Provider:
    """Whoever is sent here signs in as `person`, at once. `spoil` changes the claims, `sign` how they are signed."""

    def __init__(self, clock: Callable[[], datetime], domain: str) -> None:
        self._clock = clock
        self.domain = domain
        self.issuer = ""
        self.person: Claims = {"sub": "248289761001", "email": f"ada@{domain}", "email_verified": True}
        self.told_in_token = True
        self.metadata: dict[str, Any] = {}
        self.callback: dict[str, str] = {}
        self.sign: Callable[[Claims], str] = self.sign_by_key
        self.asked: list[str] = []
        self.keys: list[RSAKey] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.rotate()

    def rotate(self) -> None:
        """A new key signs from now on; the one before is not published any more."""
        self.keys = [RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})]

    def spoil(self, **claims: Any) -> None:
        """Have these claims in every token, whatever is true; None leaves one out."""

        def sign(true: Claims) -> str:
            return self.sign_by_key({name: value for name, value in {**true, **claims}.items() if value is not None})

        self.sign = sign

    def sign_by_key(self, claims: Claims) -> str:
        """As an honest provider signs."""
        return self.sign_by(self.keys[0], claims, "RS256")

    def sign_by(self, key: Key, claims: Claims, algorithm: str) -> str:
        """By another key than the published one, or in another way."""
        return jwt.encode({"alg": algorithm, "kid": self.keys[0].kid}, claims, key, algorithms=[algorithm])

    def sign_by_nothing(self, claims: Claims) -> str:
        """`alg: none`."""
        return _unsigned({"alg": "none"}, claims) + "."

    def sign_by_public_key(self, claims: Claims) -> str:
        """HS256, with the text of the published key as the shared secret."""
        signed = _unsigned({"alg": "HS256", "kid": self.keys[0].kid}, claims)
        secret = self.keys[0].as_pem(private=False)
        return f"{signed}.{urlsafe_b64encode(hmac.digest(secret, signed.encode(), 'sha256')).decode()}"

    def answer(self, method: str, path: str, headers: dict[str, str], body: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers, and what is told as JSON."""
        address = urlsplit(path)
        what = address.path.removeprefix(urlsplit(self.issuer).path)
        self.asked.append(what)
        query = dict(parse_qsl(address.query))
        match method, what:
            case "GET", "/.well-known/openid-configuration":
                return (
                    200,
                    {},
                    {
                        "issuer": self.issuer,
                        "authorization_endpoint": f"{self.issuer}/authorize?tenant=corp",
                        "token_endpoint": f"{self.issuer}/token",
                        "jwks_uri": f"{self.issuer}/jwks",
                        "userinfo_endpoint": f"{self.issuer}/userinfo",
                        "response_types_supported": ["code"],
                        **self.metadata,
                    },
                )
            case "GET", "/jwks":
                other = {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "of another kind"}
                return 200, {}, {"keys": [other, *(key.as_dict(private=False) for key in self.keys)]}
            case "GET", "/authorize":
                code = secrets.token_urlsafe(16)
                self._codes[code] = query
                told = {"code": code, "state": query["state"], "session_state": "of some providers", **self.callback}
                return 302, {"Location": f"{query['redirect_uri']}?{urlencode(told)}"}, None
            case "POST", "/token":
                return self._redeem(headers, {name: values[0] for name, values in parse_qs(body).items()})
            case "GET", "/userinfo" if headers.get("authorization") == "Bearer the access token":
                return 200, {}, self.person
        return 404, {}, {"error": "not_found"}

    def _redeem(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        given = b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode().split(":")
        if [unquote_plus(each) for each in given] != [CLIENT_ID, CLIENT_SECRET]:
            return 401, {}, {"error": "invalid_client"}
        asked = self._codes.pop(form["code"], None)
        challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode()
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["code_challenge_method"] != "S256"
            or asked["redirect_uri"] != form["redirect_uri"]
            or "openid" not in asked["scope"]
        ):
            return 400, {}, {"error": "invalid_grant"}
        now = int(self._clock().timestamp())
        person = self.person if self.told_in_token else {"sub": self.person["sub"]}
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **person,
        }
        return 200, {}, {"id_token": self.sign(claims), "access_token": "the access token", "token_type": "Bearer"}


def _unsigned(header: dict[str, Any], claims: Claims) -> str:
    return ".".join(urlsafe_b64encode(json.dumps(each).encode()).decode() for each in (header, claims))


@contextmanager
def serving(provider: Provider) -> Iterator[Provider]:
    """Listen on loopback, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length).decode()
            head = {name.lower(): value for name, value in self.headers.items()}
            status, headers, told = provider.answer(self.command, self.path, head, body)
            content = b"" if told is None else json.dumps(told).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # A port is used again, an issuer is not.
    provider.issuer = f"http://127.0.0.1:{server.server_port}/{secrets.token_hex(8)}"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

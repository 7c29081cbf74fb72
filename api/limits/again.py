"""Who was refused a moment ago is refused again without being looked at: a flood is to cost next to nothing.

Until the next use of its limit is due, no call of a key can pass, whatever it asks. For a tenth of a second at most,
in which the key may have been revoked, its calls are answered as the last one was, each with its own id and path.
"""

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct, structs

from api.problems import Problem

FOR_S: Final = 0.1
_MOST: Final = 10_000

Headers = Sequence[tuple[bytes, bytes]]

_encode: Final = msgspec.json.Encoder().encode


class Said(Struct):
    """What a refused call was answered; the headers without those of the one call. `calls`: how many were since."""

    until: float
    headers: Headers
    problem: Problem
    calls: int = 0

    def answer(self, path: str, request_id: str) -> tuple[Headers, bytes]:
        """Headers and body for another call."""
        self.calls += 1
        body = _encode(structs.replace(self.problem, instance=path, request_id=request_id))
        own = ((b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode()))
        return [*self.headers, *own], body


class Again:
    """The keys that were refused within the last moment, by digests: it holds no key."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._said: dict[bytes, Said] = {}

    def __bool__(self) -> bool:
        return bool(self._said)

    def find(self, signed: bytes, now: float) -> Said | None:
        """What calls with this `Authorization` are answered now; None where they are to be looked at."""
        digest = self._digest(signed)
        said = self._said.get(digest)
        if said is not None and now >= said.until:
            del self._said[digest]
            return None
        return said

    def note(self, signed: bytes, said: Said) -> None:
        """Answer calls with this `Authorization` so, until then."""
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[self._digest(signed)] = said

    def _digest(self, signed: bytes) -> bytes:
        return blake2b(signed, key=self._key, digest_size=16).digest()


def signature(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
    """The `Authorization` and the request id of a call that is like others; None where more of it must be looked at."""
    signed = request_id = b""
    for name, value in headers:
        if name == b"authorization":
            signed = value
        elif name == b"x-request-id":
            request_id = value
        elif name in (b"origin", b"x-api-key", b"x-visitor-token"):
            return None
    return (signed, request_id) if signed else None

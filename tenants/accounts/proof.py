"""Proof of work: what a crowd of programs must pay for each attempt, and a person hardly notices.

Hashcash-like: find a number whose SHA-256, together with a challenge of ours, begins with so many zero bits. The
challenge is signed and names its deed, its difficulty and its end, so nothing is stored until it is solved. In a shell:

    n=0; until printf %s "$CHALLENGE:$n" | sha256sum | grep -q '^0000'; do n=$((n+1)); done   # 16 bits
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from infra.errors import Invalid
from infra.secret import Secret

MAX_BITS: Final = 24
"""Some 16 million hashes: half a minute in a browser."""

LIFE_S: Final = 600

Proof = Annotated[str, Meta(min_length=3, max_length=400, pattern=r"^[A-Za-z0-9._:-]+$(?!\n)")]
"""`<challenge>:<number>`."""

_FORM: Final = re.compile(r"([A-Za-z0-9_-]{1,200})\.([A-Za-z0-9_-]{43}):(\d{1,12})", re.ASCII)


class BadProof(Invalid):
    """The proof of work is of no challenge of ours, too old, used before or not solved."""

    code = "bad_proof"
    title = "The proof of work does not hold"


class Challenge(Struct, frozen=True, kw_only=True):
    """What is to be solved: `challenge` and a number, joined by ":", hash to `bits` zero bits in front."""

    challenge: str
    bits: int


class Paid(Struct, frozen=True, kw_only=True):
    """A proof that holds: its difficulty, what names its challenge, and when that ends."""

    bits: int
    name: bytes
    ends: datetime


class _Inside(Struct, frozen=True, array_like=True):
    deed: str
    bits: int
    ends: int
    nonce: str


def make_challenge(secret: bytes, deed: str, bits: int, *, now: datetime) -> Challenge:
    """A challenge for one attempt of that deed."""
    inside = _Inside(deed, bits, int(now.timestamp()) + LIFE_S, secrets.token_urlsafe(12))
    body = _b64(msgspec.json.encode(inside))
    return Challenge(challenge=f"{body}.{_sign(secret, body)}", bits=bits)


def check_proof(secret: Secret, proof: str, deed: str, *, now: datetime) -> Paid:
    """What was paid; who accepts it twice is cheated. Raises BadProof."""
    match = _FORM.fullmatch(proof)
    if match is None or not any(hmac.compare_digest(_sign(each, match[1]), match[2]) for each in secret.every):
        raise BadProof("Send the challenge as it was given, a colon, and the number that you found.")
    inside = msgspec.json.decode(urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)), type=_Inside)
    if inside.deed != deed or inside.ends <= now.timestamp():
        raise BadProof("The challenge is too old, or for something else; ask for a new one.")
    digest = hashlib.sha256(proof.encode()).digest()
    if int.from_bytes(digest) >> (256 - inside.bits):
        raise BadProof(f"The SHA-256 of challenge and number does not begin with {inside.bits} zero bits.")
    return Paid(bits=inside.bits, name=match[2].encode(), ends=datetime.fromtimestamp(inside.ends, UTC))


def solve(challenge: Challenge) -> str:
    """The proof, by trying: what a client does."""
    number = 0
    while True:
        proof = f"{challenge.challenge}:{number}"
        if not int.from_bytes(hashlib.sha256(proof.encode()).digest()) >> (256 - challenge.bits):
            return proof
        number += 1


def _sign(secret: bytes, body: str) -> str:
    return _b64(hmac.digest(secret, b"proof of work\0" + body.encode(), "sha256"))


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

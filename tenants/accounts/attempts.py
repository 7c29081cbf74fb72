"""How often a door is knocked at: by one network, for one address, and by all together.

Counted in PostgreSQL, so that all processes see one count; where it cannot be asked, each process counts for itself and
takes less. Past what people do, an attempt costs a proof of work; past what even a crowded office does, it is refused.
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, Literal

from msgspec import Struct

from infra.db import Database, driver
from infra.errors import FieldError, RateLimited
from infra.outage import AWAY
from infra.secret import Secret
from infra.telemetry import Children, counter
from tenants.accounts.proof import MAX_BITS, BadProof, Challenge, check_proof, make_challenge

Deed = Literal["signup", "sign_in", "mail", "link", "second_step", "change_email"]
"""`mail`: asking for a link to sign in or to reset a password. `link`: opening one, or coming back from a provider."""


class Knock(Struct, frozen=True, kw_only=True):
    """Who is at the door: the network of the client, and the proof of work that came along.

    `request_id`: of the request, for what the audit log notes of it.
    """

    network: str
    proof: str | None = None
    request_id: str | None = None


class TooManyAttempts(RateLimited):
    """This network has tried too often; others are not affected."""

    code = "too_many_attempts"
    title = "Too many attempts"


class ProofNeeded(RateLimited):
    """More is going on than usual: the attempt is to be sent again with a proof of work."""

    code = "proof_needed"
    title = "A proof of work is needed"

    def __init__(self, detail: str, challenge: Challenge) -> None:
        fault = FieldError(pointer="/proof", code="proof_needed", message=challenge.challenge)
        super().__init__(detail, errors=[fault])
        self.challenge = challenge


class Limit(Struct, frozen=True, kw_only=True):
    """Attempts in `span_s` seconds: the first `free` cost nothing, those beyond `most` are refused."""

    span_s: int
    free: int
    most: int


_Who = Literal["network", "address", "everybody"]

LIMITS: Final[Mapping[Deed, Mapping[_Who, Limit]]] = {
    "signup": {
        "network": Limit(span_s=3600, free=20, most=200),
        "address": Limit(span_s=3600, free=5, most=20),
        "everybody": Limit(span_s=3600, free=300, most=100_000),
    },
    "sign_in": {
        "network": Limit(span_s=600, free=30, most=500),
        # Guessing at one account from everywhere gets dear, and its owner is not locked out.
        "address": Limit(span_s=600, free=10, most=300),
    },
    "mail": {
        "network": Limit(span_s=3600, free=15, most=150),
        "address": Limit(span_s=3600, free=4, most=12),
    },
    "change_email": {
        "network": Limit(span_s=3600, free=15, most=150),
        # Of the account, whose password is tried, and of the address that gets the mail.
        "address": Limit(span_s=3600, free=4, most=12),
    },
    "link": {"network": Limit(span_s=600, free=100, most=500)},
    "second_step": {
        "network": Limit(span_s=600, free=30, most=500),
        # Who is here knows the password. Three codes of a million are right at a time: 15 an hour find one in two
        # and a half years, on average. The owner is locked out by nobody else.
        "address": Limit(span_s=3600, free=6, most=15),
    },
}

UNKNOWN_NETWORK: Final = "unknown"
"""Of who comes from no address."""

_LOCAL_SHARE: Final = 4
"""While the database is away, a process takes this part of what all of them take otherwise."""

_FIRST_BITS: Final = 16
_LOCAL_ENTRIES: Final = 10_000

_attempts: Final = Children(counter("door_attempts_total", "Attempts at the doors by outcome.", ["deed", "outcome"]))


class Attempts:
    """Counts and decides. One per process."""

    def __init__(self, database: Database, *, secret: Secret) -> None:
        self._database = database
        self._secret = secret
        self._local: dict[tuple[bytes, datetime], int] = {}

    async def admit(self, deed: Deed, *addresses: bytes, network: str, now: datetime, proof: str | None = None) -> None:
        """Count an attempt. Raises TooManyAttempts, ProofNeeded, BadProof.

        `network`: of `network_of`. `addresses`: the hashes of the e-mail addresses that it is about.
        """
        who: dict[_Who, Sequence[bytes]] = {
            "network": [network.encode()],
            "everybody": [b""],
            "address": list(set(addresses)),
        }
        held = [(each, key, limit) for each, limit in LIMITS[deed].items() for key in who[each]]
        paid = None if proof is None else check_proof(self._secret, proof, deed, now=now)
        buckets = [(self._bucket(deed, each, key), _begin(now, limit.span_s)) for each, key, limit in held]
        if paid is not None:
            buckets.append((self._bucket(deed, "proof", paid.name), paid.ends))
        counts, share = await self._count(buckets)
        if paid is not None and counts.pop() > 1:
            raise BadProof("This proof was used before; ask for a new challenge.")
        bits = 0
        for count, (_, _, limit) in zip(counts, held, strict=True):
            if count > max(1, limit.most // share):
                _attempts(deed, "refused").inc()
                raise TooManyAttempts(f"Wait some minutes, at most {limit.span_s // 60}, and try again.")
            over = count / max(1, limit.free // share)
            if over > 1:
                bits = max(bits, min(MAX_BITS, _FIRST_BITS + int(over).bit_length() - 1))
        if bits > (0 if paid is None else paid.bits):
            _attempts(deed, "proof").inc()
            challenge = make_challenge(self._secret.current, deed, bits, now=now)
            raise ProofNeeded(
                f"Find a number so that the SHA-256 of `{challenge.challenge}:<number>` begins with {bits} zero bits, "
                "and send the request again with `proof` set to that text.",
                challenge,
            )
        _attempts(deed, "admitted").inc()

    def _bucket(self, deed: str, who: str, key: bytes) -> bytes:
        return hmac.digest(self._secret.current, f"attempts\0{deed}\0{who}\0".encode() + key, "sha256")

    async def _count(self, buckets: Sequence[tuple[bytes, datetime]]) -> tuple[list[int], int]:
        """The counts with this attempt, in that order, and what part of the limits they are to be held to."""
        try:
            async with self._database.anonymous_session() as conn:
                records = await (await driver(conn)).fetch(
                    "select bucket, count from count_attempts($1, $2)",
                    [bucket for bucket, _ in buckets],
                    [since for _, since in buckets],
                )
        except AWAY:
            return self._count_here(buckets), _LOCAL_SHARE
        found = {record["bucket"]: record["count"] for record in records}
        return [found[bucket] for bucket, _ in buckets], 1

    def _count_here(self, buckets: Sequence[tuple[bytes, datetime]]) -> list[int]:
        if len(self._local) > _LOCAL_ENTRIES:
            # Who fills it is a crowd: it forgets the oldest half.
            for key in sorted(self._local, key=lambda key: key[1])[: _LOCAL_ENTRIES // 2]:
                del self._local[key]
        for bucket in buckets:
            self._local[bucket] = self._local.get(bucket, 0) + 1
        return [self._local[bucket] for bucket in buckets]


def network_of(address: str) -> str:
    """The network that an address counts for: IPv4 /24, IPv6 /48; what is no address is a network of its own."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return UNKNOWN_NETWORK
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip_network((ip, 48 if ip.version == 6 else 24), strict=False))


def _begin(now: datetime, span_s: int) -> datetime:
    return datetime.fromtimestamp(int(now.timestamp()) // span_s * span_s, UTC)

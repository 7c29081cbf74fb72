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
from tenants.accounts.proof import LIFE_S, MAX_BITS, BadProof, Challenge, Paid, check_proof, make_challenge

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


_FIRST_BITS: Final = 16
"""Some 65,000 hashes: a moment in a browser."""


class Limit(Struct, frozen=True, kw_only=True):
    """Attempts in `span_s` seconds: the first `free` cost nothing, those beyond `most` are refused.

    Of a network all its attempts count; of an address, and of everybody, those that were let in. Else a stranger could
    shut its owner out of a door, and at no cost.
    """

    span_s: int
    free: int
    most: int

    def divided(self, by: int) -> "Limit":
        """The part of one of so many."""
        return Limit(span_s=self.span_s, free=max(1, self.free // by), most=max(1, self.most // by))

    def price(self, number: int) -> int:
        """Bits of proof that the attempt of this number costs."""
        over = number / self.free
        return 0 if over <= 1 else min(MAX_BITS, _FIRST_BITS + int(over).bit_length() - 1)

    def last(self, bits: int) -> int:
        """The number of the last attempt that so many bits pay for."""
        if bits >= MAX_BITS:
            return self.most
        return min(self.most, self.free if bits < _FIRST_BITS else (self.free << bits - _FIRST_BITS + 1) - 1)


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

_ONCE: Final = Limit(span_s=LIFE_S, free=1, most=1)
"""Of a proof."""

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
        paid = None if proof is None else check_proof(self._secret, proof, deed, now=now)
        bits = 0 if paid is None else paid.bits
        tallies = self._tallies(deed, network, addresses, paid, now)
        numbers, share = await self._count(tallies, bits)
        price = 0
        for tally, number in zip(tallies, numbers, strict=True):
            limit = tally.limit.divided(share)
            if number > limit.most:
                _attempts(deed, "refused").inc()
                if tally.limit is _ONCE:
                    raise BadProof("This proof was used before; ask for a new challenge.")
                raise TooManyAttempts(f"Wait some minutes, at most {limit.span_s // 60}, and try again.")
            price = max(price, limit.price(number))
        if price > bits:
            _attempts(deed, "proof").inc()
            challenge = make_challenge(self._secret.current, deed, price, now=now)
            raise ProofNeeded(
                f"Find a number so that the SHA-256 of `{challenge.challenge}:<number>` begins with {price} zero bits, "
                "and send the request again with `proof` set to that text.",
                challenge,
            )
        _attempts(deed, "admitted").inc()

    def _tallies(
        self, deed: Deed, network: str, addresses: Sequence[bytes], paid: Paid | None, now: datetime
    ) -> list["_Tally"]:
        """The firm ones first, and the others in one order for all, since they are locked in it."""
        who: dict[_Who, Sequence[bytes]] = {
            "network": [network.encode()],
            "everybody": [b""],
            "address": list(set(addresses)),
        }
        tallies = [
            _Tally(self._bucket(deed, each, key), _begin(now, limit.span_s), limit, firm=each == "network")
            for each, limit in LIMITS[deed].items()
            for key in who[each]
        ]
        if paid is not None:
            tallies.append(_Tally(self._bucket(deed, "proof", paid.name), paid.ends, _ONCE, firm=True))
        return sorted(tallies, key=lambda tally: (not tally.firm, tally.bucket))

    def _bucket(self, deed: str, who: str, key: bytes) -> bytes:
        return hmac.digest(self._secret.current, f"attempts\0{deed}\0{who}\0".encode() + key, "sha256")

    async def _count(self, tallies: Sequence["_Tally"], bits: int) -> tuple[list[int], int]:
        """The number of this attempt in each, and into how many parts the limits are divided."""
        try:
            async with self._database.anonymous_session() as conn:
                numbers: list[int] = await (await driver(conn)).fetchval(
                    "select admit_attempt($1, $2, $3, $4)",
                    [tally.bucket for tally in tallies],
                    [tally.begins for tally in tallies],
                    [tally.limit.last(bits) for tally in tallies],
                    sum(tally.firm for tally in tallies),
                )
                return numbers, 1
        except AWAY:
            return self._count_here(tallies, bits), _LOCAL_SHARE

    def _count_here(self, tallies: Sequence["_Tally"], bits: int) -> list[int]:
        if len(self._local) > _LOCAL_ENTRIES:
            # Who fills it is a crowd: it forgets the oldest half.
            for key in sorted(self._local, key=lambda key: key[1])[: _LOCAL_ENTRIES // 2]:
                del self._local[key]
        numbers = [self._local.get((tally.bucket, tally.begins), 0) + 1 for tally in tallies]
        passes = all(
            number <= tally.limit.divided(_LOCAL_SHARE).last(bits)
            for tally, number in zip(tallies, numbers, strict=True)
        )
        for tally, number in zip(tallies, numbers, strict=True):
            if passes or tally.firm:
                self._local[tally.bucket, tally.begins] = number
        return numbers


class _Tally(Struct, frozen=True):
    """One of the counts that an attempt is held against. A firm one counts it also where it is not let in."""

    bucket: bytes
    begins: datetime
    limit: Limit
    firm: bool


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

"""The question of the edge: may this caller ask now? And the headers that say how much is left.

A caller with a key has the limits of its plan (`burst`, `sustained`: all its keys together) and those of the key; who
has none shares a limit with its network. What is known of them is kept while they are asked about, within bounds.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import structlog

from api.auth import Caller
from api.headers import safe
from api.limits.again import FOR_S, Again, Headers, Said, signature
from api.limits.cost import Cost
from api.limits.crowd import Crowd, decisions
from api.network import Networks, client_network
from api.problems import MEDIA_TYPE, Problem
from billing.entitlements import Entitlements, Mode
from billing.plans import UNLIMITED, Meter, Plan
from billing.quotas import require_month
from infra.clock import Clock
from infra.db import TenantId
from infra.errors import RateLimited
from infra.ids import request_id
from infra.outage import AWAY
from tenants.limits.gcra import Bucket, Rate
from tenants.limits.leases import Leases, Refusal, Unheard
from tenants.usage import Usage

STRANGERS: Final[Mapping[Mode, Rate]] = {
    "plans": Rate(name="network", quota=3_000, window_s=60, burst=500),
    # Behind a proxy that is not named in KINDRED_TRUSTED_PROXIES all the world is one network.
    "licence": Rate(name="network", quota=60_000, window_s=60, burst=5_000),
}
"""Of each client network, for all that needs no key, and for calls whose key is not good."""

MAX_KNOWN: Final = 20_000
"""Callers, and as many strangers, whose limits a process keeps; the store knows the others."""

_UNLIMITED: Final = (
    (b"ratelimit-policy", b'"unlimited";q=999999999;w=1'),
    (b"ratelimit", b'"unlimited";r=999999999;t=0'),
)
_LOG_EVERY_S: Final = 10.0

_passed: Final = decisions("passed")
_refused: Final = decisions("refused")

_log = structlog.get_logger(__name__)

K = TypeVar("K")
V = TypeVar("V")


class TooManyRequests(RateLimited):
    """The caller asks faster than its key, its plan or its network may; nothing was done."""

    code = "too_many_requests"
    title = "Too many requests"


class Standing:
    """The limits that hold for a caller, or for a network, with the header that names them."""

    __slots__ = ("_left", "buckets", "caller", "crowd", "logged_at", "plan", "policy", "refused")

    def __init__(
        self, plan: Plan, caller: Caller | None, buckets: Sequence[Bucket], crowd: Crowd | None = None
    ) -> None:
        self.plan = plan
        self.crowd = crowd
        self.caller = caller
        self.buckets = tuple(buckets)
        self.policy = b", ".join(
            b'"%b";q=%d;w=%d' % (bucket.name, bucket.rate.quota, bucket.rate.window_s) for bucket in self.buckets
        )
        self._left = b", ".join(b'"%b";r=%%d;t=%%d' % bucket.name for bucket in self.buckets)
        self.refused = 0
        self.logged_at = float("-inf")

    def fields(self, now: float) -> Headers:
        """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): for each limit `r`, how many
        uses pass at once, and `t`, the seconds until all of it is free again."""
        if not self.buckets:
            return _UNLIMITED
        numbers: list[int] = []
        for bucket in self.buckets:
            numbers += bucket.left(now)
        return ((b"ratelimit-policy", self.policy), (b"ratelimit", self._left % tuple(numbers)))


class Gate:
    """Decides for one process. `costs`: what costs more than one use, by method and path."""

    def __init__(
        self,
        leases: Leases,
        entitlements: Entitlements,
        usage: Usage,
        *,
        trusted: Networks,
        strangers: Rate,
        costs: Mapping[tuple[str, str], tuple[Cost, int]],
        secret: bytes,
        clock: Clock,
    ) -> None:
        self._leases = leases
        self._entitlements = entitlements
        self._usage = usage
        self.trusted = trusted
        self._strangers = strangers
        self._costs = costs
        self._key = blake2b(b"limits of strangers", key=secret[:64], digest_size=32).digest()
        self._clock = clock
        self.again = Again()
        self._crowds: WeakValueDictionary[TenantId, Crowd] = WeakValueDictionary()
        self._callers: OrderedDict[str, Standing] = OrderedDict()
        self._others: OrderedDict[bytes, Standing] = OrderedDict()

    async def enter(
        self, caller: Caller | None, scope: Any, path: str, length: int | None, preflight: bool = False
    ) -> tuple[Standing, Refusal | None]:
        """Whose limits a call is under, and why it may not go on; None where it may, and is counted.

        Health and a preflight are not: nothing is looked up for them.

        Raises what `Entitlements.plan_of` raises, but for a database that is away: then the call passes.
        """
        if caller is None:
            standing = self._network(client_network(scope, self.trusted))
            if preflight or path.startswith("/health/"):
                return standing, None
        else:
            known = self._callers.get(caller.key_id)
            # Mostly the same caller under the same plan, and then nothing is waited for.
            if known and known.caller is caller and known.plan is self._entitlements.known_plan(caller.tenant_id):
                self._callers.move_to_end(caller.key_id)
                standing = known
            else:
                standing = await self._standing(caller)
            if not standing.buckets:
                _passed.inc()
                return standing, None
        cost = self._costs.get((scope["method"], path))
        uses = 1 if cost is None else cost[0].of(length, cost[1])
        refusal = self._leases.take(standing.buckets, uses)
        if isinstance(refusal, Unheard):
            refusal = await self._leases.admit(standing.buckets, uses)
        if refusal is None:
            _passed.inc()
        else:
            _refused.inc()
            self._tell(standing, refusal)
        return standing, refusal

    async def spend(self, standing: Standing, uses: int) -> None:
        """Use more, now that the call, which used one, says how much it asks for.

        Raises TooManyRequests; then nothing more is used.
        """
        if uses <= 0 or not standing.buckets:
            return
        refusal = await self._leases.admit(standing.buckets, uses, spent=1)
        if refusal is not None:
            _refused.inc()
            raise too_many(refusal)

    def fields(self, standing: Standing) -> Headers:
        """The headers of an answer."""
        fields = standing.fields(self._leases.now)
        near = self._usage.near
        if not near or standing.caller is None or standing.caller.tenant_id not in near:
            return fields
        told = b", ".join(
            b'"%b";used=%d;limit=%d' % (meter.encode(), used, quota)
            for meter, (used, quota) in sorted(near[standing.caller.tenant_id].items())
        )
        return (*fields, (b"kindred-quota", told))

    def require(self, standing: Standing, meter: Meter) -> None:
        """Raises MonthlyQuotaReached where the plan has no more of a meter, and more is refused."""
        quota = standing.plan.quotas.get(meter)
        if quota is not None and quota.beyond == "refuse" and standing.caller is not None:
            require_month(standing.plan, self._usage, standing.caller.tenant_id, meter, now=self._clock())

    def count(self, standing: Standing, meter: Meter, amount: int) -> None:
        """Note that so much of a meter was used."""
        if standing.caller is not None:
            quota = standing.plan.quotas.get(meter)
            self._usage.count(standing.caller.tenant_id, meter, amount, quota=None if quota is None else quota.limit)

    async def _standing(self, caller: Caller) -> Standing:
        standing = self._callers.get(caller.key_id)
        if standing is not None and standing.caller is not caller:
            # Known anew, or of a session, which is looked up for each call: the same if it is of the same tenant.
            known = standing.caller
            assert known is not None
            if known.tenant_id != caller.tenant_id or known.rate_per_min != caller.rate_per_min:
                standing = None
        try:
            plan = await self._entitlements.plan_of(caller.tenant_id)
        except AWAY:
            # By the plan that it had; a caller that nobody knows of passes, as everything does while nobody is asked.
            return standing or Standing(UNLIMITED, caller, ())
        if standing is not None and standing.plan is plan:
            standing.caller = caller
            self._callers.move_to_end(caller.key_id)
            return standing
        return _keep(self._callers, caller.key_id, self._make(caller, plan))

    def _make(self, caller: Caller, plan: Plan) -> Standing:
        buckets = [self._leases.bucket((caller.tenant_id, rate.name), rate) for rate in plan.rates]
        rate = plan.key if caller.rate_per_min is None else key_rate(caller.rate_per_min)
        if rate is not None:
            buckets.append(self._leases.bucket((caller.tenant_id, f"key:{caller.key_id}"), rate))
        crowd = self._crowds.get(caller.tenant_id)
        if crowd is None:
            crowd = self._crowds[caller.tenant_id] = Crowd()
        return Standing(plan, caller, buckets, crowd)

    def _network(self, network: str) -> Standing:
        """The limit of who has no key, by a keyed hash: neither the database nor a log holds an address."""
        name = blake2b(f"network\0{network}".encode("utf-8", "replace"), key=self._key, digest_size=16).digest()
        standing = self._others.get(name)
        if standing is None:
            return _keep(self._others, name, Standing(UNLIMITED, None, [self._leases.bucket(name, self._strangers)]))
        self._others.move_to_end(name)
        return standing

    def refused_again(self, scope_headers: Iterable[tuple[bytes, bytes]], path: str) -> tuple[Headers, bytes] | None:
        """Headers and body for a call whose key was refused a moment ago; None where it is to be looked at."""
        told = signature(scope_headers)
        said = None if told is None else self.again.find(told[0], self._leases.now)
        if told is None or said is None:
            return None
        _refused.inc()
        return said.answer(path, request_id(told[1]))

    def refuse(
        self, standing: Standing, refusal: Refusal, scope_headers: Iterable[tuple[bytes, bytes]], told: Problem
    ) -> Headers:
        """The headers of a refusal, which calls of the same key get too until one may pass."""
        now = self._leases.now
        own = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"retry-after", b"%d" % max(1, math.ceil(refusal.retry_s))),
            *self.fields(standing),
        ]
        headers = safe(own, told.instance, https=False)
        signed = signature(scope_headers)
        if signed is not None and standing.caller is not None:
            said = self.again.find(signed[0], now)
            standing.refused += 0 if said is None else said.calls
            self.again.note(signed[0], Said(now + min(FOR_S, refusal.one_s), headers, told))
        return headers

    def _tell(self, standing: Standing, refusal: Refusal) -> None:
        """A line now and then, not one for each: who floods us is not to fill the log too."""
        standing.refused += 1
        now = self._leases.now
        if now - standing.logged_at < _LOG_EVERY_S:
            return
        standing.logged_at = now
        caller = standing.caller
        whose = {} if caller is None else {"tenant_id": str(caller.tenant_id), "key_id": caller.key_id}
        _log.info("limits.refused", limit=refusal.rate.name, calls=standing.refused, **whose)
        standing.refused = 0


def key_rate(per_min: int) -> Rate:
    """The limit of a key that names one: sustained, with two seconds of it at once after a rest."""
    return Rate(name="key", quota=per_min, window_s=60, burst=max(1, per_min // 30))


def too_many(refusal: Refusal) -> TooManyRequests:
    """The error of a refused call."""
    rate = refusal.rate
    seconds = max(1, math.ceil(refusal.retry_s))
    return TooManyRequests(
        f"The limit {rate.name!r} passes {rate.quota:,} calls in {rate.window_s} s, {rate.burst:,} of them at once. "
        f"Nothing was done; send it again in {seconds} s, or slower.",
        retry_s=seconds,
    )


def _keep(known: OrderedDict[K, V], key: K, value: V) -> V:
    if len(known) >= MAX_KNOWN:
        known.popitem(last=False)
    known[key] = value
    return value

"""Webhooks: messages of the outbox to the addresses of tenants, many at once, each tenant in its turn.

A worker that dies has sent its messages or not; nobody knows, so when their lease has run out they are sent again,
under the same `webhook-id`. Slow receivers share half of the places, so that there is always one for those that answer.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from infra.addresses import SystemResolver
from infra.allowance import Allowance
from infra.clock import Clock, utc_now
from infra.db import Database, TenantId
from infra.errors import KindredError
from infra.fetch import Fetcher
from infra.telemetry import Children, counter, histogram
from tenants.webhooks import signature
from tenants.webhooks.deliveries import ANSWER_CHARS, Claimed, claim_delivery, list_waiting, record_attempt
from tenants.webhooks.endpoints import unseal
from tenants.webhooks.schedule import TIMEOUT_S, judge
from workers.turns import Turns

log = structlog.get_logger(__name__)

AT_ONCE: Final = 32
OF_A_TENANT: Final = 4
OF_AN_ENDPOINT: Final = 2
SLOW_S: Final = 2.0
"""An endpoint whose last attempt failed or took longer is slow."""

ANSWER_BYTES: Final = 64 * 1024
_IDLE_S: Final = 0.25
_DRAIN_S: Final = 5.0
_REMEMBERED: Final = 10_000

attempts_made = Children(
    counter("webhook_attempts_total", "Attempts to deliver a message by what came of them", ["result"])
)
attempt_seconds = histogram("webhook_attempt_seconds", "Time from sending a message to its answer, or to giving up")
endpoints_disabled = Children(counter("webhook_endpoints_disabled_total", "Endpoints that we disabled", ["reason"]))


class _Outcome(Struct, frozen=True, kw_only=True):
    status_code: int | None = None
    answer: str | None = None
    error: str | None = None


def open_sender(allow: Sequence[Allowance]) -> Fetcher:
    """What the messages are sent by. No host has a limit of its own: many tenants use one, each within its own limit.

    Look-ups have as many threads as there are messages under way, and as many again for those that were given up.
    """
    return Fetcher(
        allow=allow,
        per_host=AT_ONCE,
        concurrency=AT_ONCE,
        read_timeout_s=TIMEOUT_S,
        resolve=SystemResolver(threads=2 * AT_ONCE),
    )


class Webhooks:
    """Sends what is due until it is told to stop. `secrets`: the installation's, the current one first."""

    def __init__(
        self,
        database: Database,
        sender: Fetcher,
        *,
        secrets: Sequence[bytes],
        clock: Clock = utc_now,
        luck: Callable[[], float] = random.random,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._database = database
        self._sender = sender
        self._secrets = secrets
        self._clock = clock
        self._luck = luck
        self._timeout_s = timeout_s
        self._turns = Turns(rest_s=0.25)
        self._running: dict[asyncio.Task[None], Claimed] = {}
        self._slow: dict[UUID, None] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then what is under way may end for some seconds, and what does not is sent again by another."""
        try:
            while not stop.is_set():
                if not await self.step():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _IDLE_S)
        finally:
            await self.settle(_DRAIN_S)

    async def settle(self, within_s: float | None = None) -> None:
        """Wait until nothing is under way; what takes longer is cancelled."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def step(self) -> int:
        """Begin to send what is due, one message of each tenant in turn, as long as there are places; how many."""
        if len(self._running) >= AT_ONCE:
            return 0
        async with self._database.system_session(reason="webhooks that are due") as system:
            waiting = await list_waiting(system, self._clock())
        begun = 0
        for tenant_id in self._turns.order(waiting):
            if len(self._running) >= AT_ONCE:
                break
            if sum(claimed.tenant_id == tenant_id for claimed in self._running.values()) >= OF_A_TENANT:
                continue
            claimed = await self._claim(tenant_id)
            if claimed is None:
                self._turns.rest(tenant_id)
                continue
            self._turns.served(tenant_id)
            task = asyncio.create_task(self._deliver(claimed))
            self._running[task] = claimed
            task.add_done_callback(self._running.pop)
            begun += 1
        return begun

    async def _claim(self, tenant_id: TenantId) -> Claimed | None:
        at_work = Counter(claimed.endpoint_id for claimed in self._running.values())
        busy = {endpoint_id for endpoint_id, count in at_work.items() if count >= OF_AN_ENDPOINT}
        if sum(endpoint_id in self._slow for endpoint_id in at_work.elements()) >= AT_ONCE // 2:
            busy |= self._slow.keys()
        async with self._database.tenant_session(tenant_id) as conn:
            return await claim_delivery(conn, tenant_id, self._clock(), but=list(busy))

    async def _deliver(self, claimed: Claimed) -> None:
        """Send one message and note what came of it; a database that is away then leaves it to the lease."""
        began = perf_counter()
        outcome = await self._send(claimed)
        took_s = perf_counter() - began
        attempt_seconds.observe(took_s)
        verdict = judge(claimed.tries + 1, outcome.status_code, luck=self._luck())
        self._remember(claimed, slow=verdict.status != "delivered" or took_s > SLOW_S)
        about = {"tenant_id": str(claimed.tenant_id), "webhook_id": str(claimed.endpoint_id)}
        try:
            async with self._database.tenant_session(claimed.tenant_id) as conn:
                disabled = await record_attempt(
                    conn,
                    claimed,
                    verdict,
                    now=self._clock(),
                    status_code=outcome.status_code,
                    error=outcome.error,
                    answer=outcome.answer,
                    duration_ms=int(took_s * 1000),
                )
        except Exception:
            # The message may have been received: the lease runs out, and it is sent again under the same id.
            attempts_made("unrecorded").inc()
            log.exception("webhooks.unrecorded", **about)
            return
        attempts_made("retried" if verdict.status == "pending" else verdict.status).inc()
        log.info(
            "webhooks.attempted",
            event_id=str(claimed.event_id),
            status=outcome.status_code,
            result=verdict.status,
            **about,
        )
        if disabled is not None:
            endpoints_disabled(disabled).inc()
            log.warning("webhooks.disabled", reason=disabled, **about)

    async def _send(self, claimed: Claimed) -> _Outcome:
        try:
            keys = [unseal(self._secrets, key, claimed.tenant_id, claimed.endpoint_id) for key in claimed.keys]
            signed = signature.headers(keys, str(claimed.event_id), self._clock(), claimed.body)
            answered = await self._sender.post(
                claimed.url,
                content=claimed.body,
                headers={"content-type": "application/json", **signed},
                max_bytes=ANSWER_BYTES,
                timeout_s=self._timeout_s,
            )
        except KindredError as error:
            return _Outcome(error=f"{error.code}: {error.detail}")
        except Exception:
            # Whatever it is, it is no reason to try for ever: it counts as an attempt.
            log.exception("webhooks.send_failed", webhook_id=str(claimed.endpoint_id))
            return _Outcome(error="internal_error: The message could not be sent; the worker's log says why.")
        return _Outcome(status_code=answered.status, answer=_shown(answered.body))

    def _remember(self, claimed: Claimed, *, slow: bool) -> None:
        self._slow.pop(claimed.endpoint_id, None)
        if slow:
            if len(self._slow) >= _REMEMBERED:
                del self._slow[next(iter(self._slow))]
            self._slow[claimed.endpoint_id] = None


def _shown(body: bytes) -> str:
    """The beginning of an answer as text that can be stored and shown: without NUL and other control characters."""
    text = body[:ANSWER_CHARS].decode("utf-8", "replace")
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)

"""When and from where each key was last used: noted in memory, written in batches, so that no request waits for it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from api.auth import Caller
from api.network import client_network
from infra.background import Background
from infra.clock import Clock
from infra.db import Database
from infra.outage import AWAY
from infra.secret import Secret
from tenants.accounts.attempts import UNKNOWN_NETWORK
from tenants.keys import KeyUse, store_key_uses

EVERY_S: Final = 60.0
"""A key is noted at most so often by one process, and what was noted is written as often."""

_MAX_KNOWN: Final = 100_000

_log = structlog.get_logger(__name__)


class KeyUsage:
    """The uses that one process has seen and not yet written."""

    def __init__(
        self,
        database: Database,
        *,
        secret: Secret,
        clock: Clock,
        trusted: tuple[IPv4Network | IPv6Network, ...] = (),
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        """`trusted`: networks of the proxies that are believed where a request comes from."""
        self._database = database
        self._trusted = trusted
        self._secret = secret.current[:64]
        self._clock = clock
        self._ticks = ticks
        self._next: dict[str, float] = {}
        self._pending: dict[str, KeyUse] = {}
        self._background = Background("key-usage", self._run)

    def note(self, caller: Caller, origin: str | None, scope: Any) -> None:
        """A request by this key, of a page or of this connection (ASGI), of whose network only a hash is kept."""
        tick = self._ticks()
        if tick < self._next.get(caller.key_id, 0.0):
            return
        if len(self._next) >= _MAX_KNOWN:
            self._next.clear()
        self._next[caller.key_id] = tick + EVERY_S
        self._pending[caller.key_id] = KeyUse(
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            hour=self._clock().replace(minute=0, second=0, microsecond=0),
            place=self.place(origin, scope),
        )

    def place(self, origin: str | None, scope: Any) -> str:
        """The host of a page, or a hash of the client's network (/24, /48), which tells it from others only."""
        if origin is not None:
            with suppress(ValueError):
                return (urlsplit(origin).hostname or "unknown page")[:253]
        network = client_network(scope, self._trusted)
        if network == UNKNOWN_NETWORK:
            return "unknown"
        return f"network {blake2b(network.encode(), key=self._secret, digest_size=4).hexdigest()}"

    def start(self) -> None:
        """Write what is noted, every minute."""
        self._background.start()

    async def close(self) -> None:
        """Write what is left, and stop."""
        await self._background.end()
        await self.flush()

    async def flush(self) -> None:
        """Write what is noted now; of a database that is away, or a defect, no request hears."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            async with self._database.system_session(reason="note the use of keys") as conn:
                await store_key_uses(conn, list(pending.values()))
        except AWAY as error:
            _log.warning("keys.usage_not_written", error=type(error).__name__)
            self._pending = {**pending, **self._pending}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.flush()
            except Exception:
                # A defect costs the notes in hand, not the task that takes the next ones.
                _log.exception("keys.usage_failed")

"""What a connection may be before it asks anything: how long it may be silent, and how many one address may hold.

uvicorn waits for the head of a request as long as the client likes, and counts every open connection against its
limit: a thousand silent ones would have everybody answered 503. Here a connection on which no request is whole within
ten seconds is closed, an address holds a bounded number, and what is limited is the requests being answered.
"""

from asyncio import Task, TimerHandle, Transport
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from time import monotonic
from typing import Any, Final

import structlog
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.network import Networks, is_within, parse_address
from infra.telemetry import Children, counter

HEAD_S: Final = 10.0
"""Seconds within which a connection has brought the head of its first request; of a later one, twice that at most."""

MAX_ANSWERING: Final = 1000
"""Requests that a process answers at a time; one more is refused with 503 rather than queued without end."""

_LOG_EVERY_S: Final = 10.0

_closed: Final = Children(
    counter("connections_closed_total", "Connections that were closed before they asked anything.", ["reason"])
)
_log = structlog.get_logger(__name__)


class Connections:
    """The open connections of one process, by where they come from."""

    def __init__(self, *, trusted: Networks, most: int, clock: Callable[[], float] = monotonic) -> None:
        """`most` of one address, which no trusted proxy's is; 0: as many as come."""
        self._trusted = trusted
        self._most = most
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._told_at = float("-inf")

    def enter(self, address: str) -> str | None:
        """Count one more: the name that `leave` takes. None where there may be no more of that address."""
        parsed = parse_address(address)
        if not self._most or parsed is None or is_within(parsed, self._trusted):
            return ""
        # Whoever has one IPv6 address has all of its /64.
        name = str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)
        if self._open[name] >= self._most:
            _closed("address").inc()
            if self._clock() - self._told_at >= _LOG_EVERY_S:
                self._told_at = self._clock()
                # Told without the address. A proxy that is not named would be the likeliest cause.
                mend = "name your proxies in KINDRED_TRUSTED_PROXIES"
                _log.warning("connections.refused", of_one=self._most, mend=mend)
            return None
        self._open[name] += 1
        return name

    def leave(self, name: str) -> None:
        """One is closed."""
        if name:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def __len__(self) -> int:
        return self._open.total()


class Protocol(HttpToolsProtocol):
    """uvicorn's, within these bounds. Nothing of it is in the way of a request but a comparison."""

    def __init__(self, connections: Connections, *, head_s: float = HEAD_S, **more: Any) -> None:
        super().__init__(**more)
        self._counted = connections
        self._head_s = head_s
        self._name: str | None = None
        self._answered: RequestResponseCycle | None = None
        self._look: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin, or close at once."""
        super().connection_made(transport)
        self._name = self._counted.enter(self.client[0] if self.client else "")
        if self._name is None:
            transport.abort()
            return
        self._look = self.loop.call_later(self._head_s, self._look_at)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._look is not None:
            self._look.cancel()
        if self._name is not None:
            self._counted.leave(self._name)
            self._name = None
        super().connection_lost(exc)

    def _look_at(self) -> None:
        """Close it where no head came since it was opened, or since it was last seen with nothing to answer."""
        cycle = self.cycle
        idle = cycle is None or cycle.response_complete
        if idle and cycle is self._answered:
            _closed("silent").inc()
            self.transport.close()
            return
        self._answered = cycle if idle else None
        self._look = self.loop.call_later(self._head_s, self._look_at)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        tasks: set[Task[None]] = self.tasks
        super()._start_asgi_task(cycle, app if len(tasks) < MAX_ANSWERING else service_unavailable)

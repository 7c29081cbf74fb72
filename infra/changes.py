"""The change feed: rows written in the transaction of a change, polled by every API process (DECISIONS 15).

Not NOTIFY, which takes a lock over all commits and dies behind poolers. A sequence number alone would lose
changes, for transactions commit in another order than they number their rows. So a poll reads every row of a
transaction that was not certainly finished when the poll before it looked: `xid >= xmin` of that poll's snapshot.
Rows seen twice are applied once.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import asyncpg
import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.background import Background
from infra.db import Database, TenantId, driver, note_for_commit
from infra.roles import SYSTEM, role_url

POLL_S: Final = 0.05
FRESH_S: Final = 0.5
"""Caches are not to be believed when the last poll is older."""

_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Change(Struct, frozen=True, kw_only=True):
    """Something of a tenant changed: `kind` says what (`key`, `tenant`, `items`, …), `ref` which where that matters."""

    kind: str
    tenant_id: TenantId
    ref: str


class _Own(Struct, frozen=True):
    """A change that this process makes itself."""

    change_id: int
    change: Change


OnChange = Callable[[Change], None]
OnReset = Callable[[], None]

# One statement, so one snapshot: the rows and the snapshot's xmin belong together.
_POLL: Final = """
select pg_snapshot_xmin(pg_current_snapshot())::text as safe, c.change_id, c.xid::text as xid, c.tenant_id, c.kind,
    c.ref
from (select 1) one left join changes c on c.xid >= $1::text::xid8
order by c.change_id
"""
_START: Final = "select pg_snapshot_xmin(pg_current_snapshot())::text"


async def record_change(conn: AsyncConnection, tenant_id: TenantId, kind: str, ref: str = "") -> None:
    """Tell every API process, in the transaction of `conn`: it is told if and when that commits.

    The process that commits is told at once, the others by their next poll.
    """
    raw = await driver(conn)
    change_id = await raw.fetchval(
        "insert into changes (tenant_id, kind, ref) values ($1, $2, $3) returning change_id", tenant_id, kind, ref
    )
    note_for_commit(conn, _Own(change_id, Change(kind=kind, tenant_id=tenant_id, ref=ref)))


MAX_ITEMS: Final = 500
"""Item numbers that one change names; beyond, it says that any item may have changed."""

ANY_ITEM: Final = "*"


async def record_items(conn: AsyncConnection, tenant_id: TenantId, item_nos: Sequence[int]) -> None:
    """Tell that these items were changed or withdrawn; none of them: that items, or their vectors, were added.

    A change too may make an item fit where it did not before, so every `items` change tells of additions.
    """
    ref = ANY_ITEM if len(item_nos) > MAX_ITEMS else ",".join(map(str, item_nos))
    await record_change(conn, tenant_id, "items", ref)


class ChangeFeed:
    """Polls the changes on one connection of its own and calls who subscribed.

    Whoever caches what the feed invalidates asks `fresh` before believing a cached value, and drops everything
    on a reset: after a lost connection nobody knows whether the server is still the same.
    """

    def __init__(self, database: Database, *, poll_s: float = POLL_S, clock: Callable[[], float] = monotonic) -> None:
        self._url = role_url(database.direct_url, SYSTEM)
        self._poll_s = poll_s
        self._clock = clock
        self._subscribers: list[tuple[OnChange, OnReset]] = []
        self._connection: asyncpg.Connection[Any] | None = None
        self._safe = "0"
        self._applied: dict[int, int] = {}  # change_id -> xid, of rows that the next poll reads again
        self._told: set[int] = set()  # own changes, applied when they were committed
        self._polled_at: float | None = None
        self._background = Background("change-feed", self._run)
        self._one = asyncio.Lock()
        self._cut = database.cut
        database.on_commit(self._committed)

    def subscribe(self, on_change: OnChange, on_reset: OnReset) -> None:
        """Call `on_change` for every change and `on_reset` when some may have been missed. Both must be quick."""
        self._subscribers.append((on_change, on_reset))

    def announce(self, change: Change) -> None:
        """Apply a change that this process just committed at once, without waiting for the poll."""
        for on_change, _ in self._subscribers:
            on_change(change)

    def _committed(self, notes: Sequence[object]) -> None:
        for note in notes:
            if isinstance(note, _Own):
                self._told.add(note.change_id)
                self.announce(note.change)

    @property
    def age_s(self) -> float:
        """Seconds since the snapshot of the last successful poll; infinite before the first."""
        return float("inf") if self._polled_at is None else self._clock() - self._polled_at

    @property
    def fresh(self) -> bool:
        """Whether cached values may be believed."""
        return self._polled_at is not None and self._clock() - self._polled_at < FRESH_S

    async def start(self) -> None:
        """Begin to poll; a database that is away is tried again for ever."""
        self._background.start()

    async def close(self) -> None:
        """Stop polling and disconnect."""
        await self._background.end()
        await self._disconnect()

    async def poll(self) -> list[Change]:
        """Read and apply what is new; connects first where need be. Raises what asyncpg raises.

        Who asks while a poll is under way waits for it and polls again: what it asks about may be newer.
        """
        async with self._one:
            return await self._poll()

    async def _poll(self) -> list[Change]:
        if self._connection is None:
            await self._connect()
        assert self._connection is not None
        began = self._clock()
        rows = await self._connection.fetch(_POLL, self._safe, timeout=_TIMEOUT_S)
        found = []
        for row in rows:
            change_id = row["change_id"]
            if change_id is None or change_id in self._applied:
                continue
            self._applied[change_id] = int(row["xid"])
            if change_id in self._told:
                self._told.discard(change_id)
                continue
            found.append(Change(kind=row["kind"], tenant_id=row["tenant_id"], ref=row["ref"]))
        for change in found:
            self.announce(change)
        self._safe = rows[0]["safe"]
        safe = int(self._safe)
        # Transactions below `safe` are finished: their rows are not read again and need no memory.
        self._applied = {change_id: xid for change_id, xid in self._applied.items() if xid >= safe}
        self._polled_at = began
        return found

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._url, timeout=_TIMEOUT_S, server_settings={"application_name": "kindred changes", "jit": "off"}
        )
        # From here on, and forget the rest: what was committed before is in no cache after the reset.
        self._safe = await self._connection.fetchval(_START, timeout=_TIMEOUT_S)
        self._applied.clear()
        self._told.clear()
        for _, on_reset in self._subscribers:
            on_reset()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _run(self) -> None:
        while True:
            connected = self._connection is not None
            try:
                await self.poll()
            except Exception as error:
                # Whatever it is (asyncpg has errors of its own for a connection cut in the wrong moment): a feed that
                # ended would leave every cache unbelieved for good.
                _log.warning("changes.poll_failed", error=type(error).__name__, age_s=round(min(self.age_s, 1e9), 1))
                await self._disconnect()
                if isinstance(error, TimeoutError) and not connected:
                    # A server that hangs refuses nothing: without this each request would find out for itself. Only
                    # when a new connection had no answer either: one late poll may be our own slowness.
                    self._cut(_TIMEOUT_S + 2 * _RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                await asyncio.sleep(self._poll_s)

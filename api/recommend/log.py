"""log: what was answered, written in groups off the request path (DECISIONS 12).

`record` puts a row into a bounded buffer; a task writes what is there every
`FLUSH_S` at the latest. What a kill -9 loses is what came in since; what had no
room, or could not be written, is counted.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from infra.changes import ChangeFeed
from infra.db import Database, TenantId
from infra.feedcache import FeedCache
from infra.roles import INGEST, role_url
from infra.telemetry import Children, counter, histogram
from tenants.answers import FIND_SHOPPERS, INSERT_ANSWERS, KINDS, SCORE_UNITS, Kind, make_partitions
from tenants.audience.shoppers import SHOPPER_CHANGE

FLUSH_S: Final = 0.04
"""A row waits this long at most before it is on its way."""

MAX_WAITING: Final = 20_000
"""Rows held while the database is slow or away; further ones are dropped."""

MAX_WAITING_BYTES: Final = 64_000_000
"""And so many bytes of them: what was asked is part of a row, and may be long."""

_BATCH: Final = 2_000
_CONNECT_S: Final = 2.0
_WRITE_S: Final = 10.0
_RETRY_S: Final = 0.5
_KNOWN_SHOPPERS: Final = 50_000

_logged: Final = counter("answer_rows_logged_total", "Answers written to the answer log.")
_lost: Final = Children(counter("answer_rows_lost_total", "Answers that are in no log.", ["reason"]))
_seconds: Final = histogram("answer_log_flush_seconds", "Time to write a group of answers.")

_log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder().encode

Shopper = tuple[int, str]
"""Kind (0 visitor, 1 user) and id, as the request gives them."""


class Shown(Struct, frozen=True):
    """The part of a row that every answer of one cached list has in common, encoded once."""

    tenant_id: TenantId
    body: bytes


def shown(
    tenant_id: TenantId,
    *,
    kind: Kind,
    strategy: str,
    gen: int,
    request: bytes,
    items: Sequence[int],
    scores: Sequence[float],
    sources: Sequence[str],
    fallbacks: Sequence[bool],
    placement: str | None = None,
    variant: str | None = None,
) -> Shown:
    """Encode what was shown: numbers, scores (0..1) and sources in order of rank, and the JSON of what was asked.

    `request` holds neither the shopper nor a session: who is erased leaves no trace here but a number, which goes.
    """
    head = _encode(
        {
            "t": tenant_id,
            "k": KINDS.index(kind),
            "p": placement,
            "st": strategy,
            "g": gen,
            "v": variant,
            "i": items,
            "sc": [min(SCORE_UNITS, max(0, round(score * SCORE_UNITS))) for score in scores],
            "so": sources,
            "f": [int(fallback) for fallback in fallbacks],
        }
    )
    # PostgreSQL stores no NUL, not even escaped; what it stands for is lost to the log alone.
    return Shown(tenant_id, b'%b,"q":%b' % (head[:-1], request.replace(b"\\u0000", b"\\ufffd")))


class _Row(Struct):
    answer_id: str
    shown: Shown
    key_id: str
    shopper: Shopper | None
    took_us: int
    candidates: bytes | None
    once: str | None
    shopper_no: int | None = None

    @property
    def size(self) -> int:
        return len(self.shown.body) + len(self.candidates or b"")


class AnswerLog:
    """The buffer and the task that empties it, on one connection of its own."""

    def __init__(
        self,
        database: Database,
        feed: ChangeFeed,
        *,
        flush_s: float = FLUSH_S,
        limit: int = MAX_WAITING,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._database = database
        self._url = role_url(database.url, INGEST)
        self._flush_s = flush_s
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiting: list[_Row] = []
        self._held: list[_Row] = []
        self._some = asyncio.Event()
        self._connection: asyncpg.Connection[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        # Of whom is known: a shopper who is not may be with the next event, which is no change.
        self._numbers: FeedCache[tuple[TenantId, Shopper], int] = FeedCache(
            feed, kinds=frozenset({SHOPPER_CHANGE, "tenant"}), limit=_KNOWN_SHOPPERS
        )

    def record(
        self,
        answer_id: str,
        shown: Shown,
        *,
        key_id: str,
        once: str | None = None,
        shopper: Shopper | None = None,
        took_s: float = 0.0,
        candidates: bytes | None = None,
    ) -> None:
        """Note one answer; never waits and never fails. `candidates`: JSON of what it was chosen from.

        `once`: the same for every repeat of one request (hexadecimal), whose answers are billed once.
        """
        row = _Row(answer_id, shown, key_id, shopper, int(took_s * 1_000_000), candidates, once)
        if len(self._waiting) + len(self._held) >= self._limit or self._bytes + row.size > self._max_bytes:
            _lost("full").inc()
            return
        self._waiting.append(row)
        self._bytes += row.size
        if not self._some.is_set():
            self._some.set()

    @property
    def waiting(self) -> int:
        """Rows that are in no table yet."""
        return len(self._waiting) + len(self._held)

    def start(self) -> None:
        """Begin to write; a database that is away is tried again for ever."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="answer-log")

    async def close(self, *, patience_s: float = 5.0) -> None:
        """Write what is left and disconnect; what cannot be written in time is counted as lost."""
        self._closing = True
        self._some.set()
        # A write in hand is waited for rather than cut: nobody could tell whether its rows are in the table.
        self._task = self._task or asyncio.create_task(self._run(), name="answer-log")
        await asyncio.wait({self._task}, timeout=patience_s)
        if not self._task.done():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self.waiting:
            _log.warning("answers.lost_at_exit", rows=self.waiting)
            _lost("exit").inc(self.waiting)
            self._waiting, self._held, self._bytes = [], [], 0
        self._task = None
        self._closing = False
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(timeout=1)

    async def flush(self) -> int:
        """Write one group of what waits; how many rows are done with.

        Raises what asyncpg raises, and keeps the rows.
        """
        if not self._held:
            self._held, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        if not self._held:
            return 0
        if self._connection is None or self._connection.is_closed():
            await make_partitions(self._database, datetime.now(UTC))
            self._connection = await asyncpg.connect(
                self._url, timeout=_CONNECT_S, server_settings={"application_name": "kindred answers", "jit": "off"}
            )
        rows = self._held
        await self._number(rows)
        with _seconds.time():
            await self._write(rows)
        self._held = []
        self._bytes -= sum(row.size for row in rows)
        return len(rows)

    async def _write(self, rows: Sequence[_Row]) -> None:
        """Insert; where the database refuses a value, halve until the row that holds it stands alone."""
        assert self._connection is not None
        try:
            await self._connection.execute(INSERT_ANSWERS, self._json(rows), timeout=_WRITE_S)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            if len(rows) > 1:
                await self._halves(rows)
                return
            _log.warning("answers.refused", error=type(error).__name__, tenant_id=str(rows[0].shown.tenant_id))
            _lost("refused").inc()
        else:
            _logged.inc(len(rows))

    async def _halves(self, rows: Sequence[_Row]) -> None:
        middle = len(rows) // 2
        await self._write(rows[:middle])
        await self._write(rows[middle:])

    def _json(self, rows: Sequence[_Row]) -> str:
        parts = []
        for row in rows:
            number = "null" if row.shopper_no is None else str(row.shopper_no)
            # A key's id and a UUID need no escaping.
            parts.append(
                b'%b,"a":"%b","ke":"%b","u":%d,"sh":%b,"c":%b%b}'
                % (
                    row.shown.body,
                    row.answer_id.encode(),
                    row.key_id.encode(),
                    row.took_us,
                    number.encode(),
                    row.candidates or b"null",
                    b"" if row.once is None else b',"o":"%b"' % row.once.encode(),
                )
            )
        return (b"[" + b",".join(parts) + b"]").decode()

    async def _number(self, rows: Sequence[_Row]) -> None:
        """Give the rows the numbers of their shoppers; one statement for each tenant with one who is not known yet."""
        asked: dict[TenantId, dict[Shopper, list[_Row]]] = {}
        for row in rows:
            if row.shopper is None:
                continue
            row.shopper_no = self._numbers.get((row.shown.tenant_id, row.shopper))
            if row.shopper_no is None:
                asked.setdefault(row.shown.tenant_id, {}).setdefault(row.shopper, []).append(row)
        for tenant_id, shoppers in asked.items():
            mark = self._numbers.mark
            wanted = sorted(shoppers)
            for kind, external_id, number in await self._database.fetch_scoped(
                tenant_id, FIND_SHOPPERS, [kind for kind, _ in wanted], [name for _, name in wanted]
            ):
                self._numbers.put((tenant_id, (kind, external_id)), number, tenant_id=tenant_id, mark=mark)
                for row in shoppers[kind, external_id]:
                    row.shopper_no = number

    async def _run(self) -> None:
        while True:
            if not self._closing:
                await self._some.wait()
                # Whoever comes while we wait goes with the same statement.
                await asyncio.sleep(self._flush_s)
            self._some.clear()
            try:
                while self.waiting:
                    await self.flush()
            except Exception as error:
                _log.warning("answers.flush_failed", error=type(error).__name__, rows=self.waiting)
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.terminate()
                self._some.set()
                await asyncio.sleep(_RETRY_S)
            if self._closing and not self.waiting:
                return

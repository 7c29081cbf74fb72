"""The database: pools, the two doors of a transaction, and the one-statement form.

`tenant_session` is the door to tenant data, `system_session` the only other
one. Hot reads use `Database.fetch_scoped`, which sets the tenant inside the
statement itself: one round trip instead of four.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import lru_cache
from typing import Any, Final, NewType
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from infra.hotpool import Connection, HotPool
from infra.roles import APP, INGEST, OWNER, SYSTEM, role_url
from infra.turns import Turns

TenantId = NewType("TenantId", UUID)

_log = structlog.get_logger()

# SQLAlchemy begins the transaction with its first statement: those that go to the driver alone would commit one by
# one, and their locks would end with each.
_START: Final = text("select 1")
_PERSON: Final = text(
    "select set_config('app.person_id', :person, true), set_config('app.org_id', :org, true), "
    "set_config('app.tenant_id', :tenant, true)"
)
_NOTES: Final = "kindred_notes"

_CONNECT_S: Final = 3.0
"""A server that lets one wait longer for a connection is away."""


@lru_cache(maxsize=256)
def scoped(inner: str) -> str:
    """Wrap `inner` into the one-statement form: the tenant is set, then read, in one round trip.

    `$1` is the tenant as text, `$2` as uuid; `inner` numbers its own parameters
    from $3 and says `tenant_id = $2::uuid` of every table. `offset 0` keeps the
    planner from merging `inner` with the outer query and the reference to `s.v`
    makes it wait for `s`: nothing inside is read before the setting is made,
    under any plan (DECISIONS 5).

    The same text is the same object, which spares the driver comparing it for each request.
    """
    return (
        "with s as materialized (select set_config('app.tenant_id', $1, true) v) "
        f"select x.* from s cross join lateral (select y.* from ({inner}) y where s.v is not null offset 0) x"
    )


async def _connect(*args: Any, **kwargs: Any) -> Connection:
    """asyncpg's connect; whatever keeps it from the server (no socket, no such host) is a ConnectionError."""
    try:
        return await asyncpg.connect(*args, timeout=_CONNECT_S, **kwargs)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise ConnectionRefusedError(f"The database cannot be reached: {error or type(error).__name__}") from error


def _engine(url: str, size: int) -> AsyncEngine:
    """SQLAlchemy's engine for a libpq URL ."""
    engine = create_async_engine(
        urlunsplit(urlsplit(url)._replace(scheme="postgresql+asyncpg")),
        poolclass=AsyncAdaptedQueuePool if size else NullPool,
        # An error tells its statement, and not the row that it was of.
        hide_parameters=True,
        **({"pool_size": size, "max_overflow": 0, "pool_timeout": 10} if size else {}),
        connect_args={"async_creator_fn": _connect, "server_settings": {"jit": "off", "application_name": "kindred"}},
    )
    event.listen(engine.sync_engine, "connect", _take_words)
    return engine


def _take_words(connection: Any, _: object) -> None:
    """A tsvector travels in binary, as bytes (tenants/catalog/words.py); asyncpg by itself sends text."""
    connection.run_async(
        lambda raw: raw.set_type_codec("tsvector", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary")
    )


class Database:
    """Connections of one process to one database.

    `hot` asyncpg connections serve the few paths where each 100 µs counts;
    `sessions` bounds the transactions of all others; `ingest` connections, of the ingest role, take group commits
    of any tenants (0: this process has none to take). `fair`: of each of the first two kinds no tenant takes all.
    """

    def __init__(
        self,
        url: str,
        *,
        direct_url: str | None = None,
        hot: int = 6,
        sessions: int = 3,
        ingest: int = 0,
        fair: bool = False,
    ) -> None:
        self.url = url
        self.direct_url = direct_url or url
        self._hot_size = hot
        self._hot_turns = Turns(hot) if fair else None
        self._turns = Turns(sessions) if fair else None
        self._hot: HotPool | None = None
        self._ingest_size = ingest
        self._ingest: asyncpg.Pool | None = None
        self._committed: list[Callable[[Sequence[Any]], None]] = []
        self._app = _engine(role_url(url, APP), sessions)
        self._system = _engine(role_url(self.direct_url, SYSTEM), 1)

    async def open(self) -> None:
        """Connect the hot pool. Raises what asyncpg raises when the database is away."""
        if self._hot_size:
            self._hot = HotPool(self._connect_hot, self._hot_size)
            async with self._hot.connection():
                pass

        if self._ingest_size:
            # Connects when the first group comes.
            self._ingest = await asyncpg.create_pool(
                role_url(self.url, INGEST),
                min_size=0,
                max_size=self._ingest_size,
                connect=_connect,
                server_settings={"jit": "off", "application_name": "kindred"},
                command_timeout=30,
            )

    async def _connect_hot(self) -> Connection:
        return await _connect(
            role_url(self.url, APP),
            server_settings={"jit": "off", "application_name": "kindred", "plan_cache_mode": "force_generic_plan"},
            command_timeout=30,
            # A list of many sources is a text of 17 KB. By its default the driver keeps none above 15: each request
            # would be planned anew, which takes longer than its answer.
            max_cacheable_statement_size=0,
            # A plan takes PostgreSQL about 1 MB; every shape of a filter has its own.
            statement_cache_size=40,
        )

    async def close(self) -> None:
        """Close every connection; waits for those in use."""
        if self._hot is not None:
            await self._hot.close()
        if self._ingest is not None:
            await self._ingest.close()
        await self._app.dispose()
        await self._system.dispose()

    @property
    def hot(self) -> HotPool:
        """The pool of the hot paths; only for statements in the one-statement form."""
        if self._hot is None:
            raise RuntimeError("Database.open() was not called")
        return self._hot

    def cut(self, for_s: float) -> None:
        """Give up the hot connections of a server that does not answer, and open none for so long."""
        if self._hot is not None:
            self._hot.cut(for_s)

    @property
    def ingest(self) -> asyncpg.Pool:
        """The pool of the ingest role: it writes rows of any tenant and reads none. For group commits alone."""
        if self._ingest is None:
            raise RuntimeError("Database.open() was not called, or it was made without `ingest`")
        return self._ingest

    async def fetch_scoped(
        self, tenant_id: TenantId, inner: str, *args: object, timeout_s: float | None = None
    ) -> list[asyncpg.Record]:
        """Run `scoped(inner)` in one round trip, in autocommit. Raises TimeoutError, the statement cancelled."""
        if self._hot_turns is not None:
            async with self._hot_turns.turn(tenant_id):
                return await self.hot.fetch(scoped(inner), str(tenant_id), tenant_id, *args, timeout_s=timeout_s)
        return await self.hot.fetch(scoped(inner), str(tenant_id), tenant_id, *args, timeout_s=timeout_s)

    def on_commit(self, told: Callable[[Sequence[Any]], None]) -> None:
        """Call `told` with what a transaction noted by `note_for_commit`, as soon as it has committed."""
        self._committed.append(told)

    def _tell(self, notes: Sequence[Any]) -> None:
        if notes:
            for told in self._committed:
                told(notes)

    @asynccontextmanager
    async def tenant_session(self, tenant_id: TenantId) -> AsyncIterator[AsyncConnection]:
        """One transaction on one tenant's rows; committed at the end, rolled back on any error."""
        async with (
            nullcontext() if self._turns is None else self._turns.turn(tenant_id),
            self._app.begin() as connection,
        ):
            await connection.execute(
                text("select set_config('app.tenant_id', :tenant, true)"), {"tenant": str(tenant_id)}
            )
            # The dictionary is of the pooled connection and outlives a transaction that failed.
            notes = connection.info[_NOTES] = []
            yield connection
        self._tell(notes)

    @asynccontextmanager
    async def tenant_snapshot(self, tenant_id: TenantId) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads one tenant's rows, all of them as they are at its first statement."""
        async with self._app.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                await connection.execute(text("set transaction read only"))
                await connection.execute(
                    text("select set_config('app.tenant_id', :tenant, true)"), {"tenant": str(tenant_id)}
                )
                yield connection

    @asynccontextmanager
    async def person_session(
        self, person_id: UUID | None = None, *, org_id: UUID | None = None, tenant_id: TenantId | None = None
    ) -> AsyncIterator[AsyncConnection]:
        """One transaction on the rows of a person, and of an organisation and a tenant where they are named."""
        async with self._app.begin() as connection:
            told = {"person": person_id, "org": org_id, "tenant": tenant_id}
            await connection.execute(_PERSON, {name: str(value or "") for name, value in told.items()})
            notes = connection.info[_NOTES] = []
            yield connection
        self._tell(notes)

    @asynccontextmanager
    async def system_session(self, *, reason: str) -> AsyncIterator[AsyncConnection]:
        """One transaction across tenants; `reason` says why, in the log."""
        _log.debug("db.system_session", reason=reason)
        async with self._system.begin() as connection:
            await connection.execute(_START)
            notes = connection.info[_NOTES] = []
            yield connection
        self._tell(notes)

    @asynccontextmanager
    async def anonymous_session(self) -> AsyncIterator[AsyncConnection]:
        """The application role with no tenant: sees no tenant's row, may call the look-up functions."""
        async with self._app.begin() as connection:
            await connection.execute(_START)
            yield connection


async def enter_tenant(connection: AsyncConnection, tenant_id: TenantId) -> None:
    """Have the transaction of a person act in this tenant from here on, in place of the one before.

    The caller knows that it is of their organisation.
    """
    await connection.execute(text("select set_config('app.tenant_id', :tenant, true)"), {"tenant": str(tenant_id)})


def note_for_commit(connection: AsyncConnection, note: Any) -> None:
    """Have this told to the listeners of `Database.on_commit` if and when the transaction commits."""
    notes = connection.info.get(_NOTES)
    if notes is not None:
        notes.append(note)


async def driver(connection: AsyncConnection) -> Any:
    """The asyncpg connection below, inside the same transaction: for bulk statements and the queue."""
    raw = await connection.get_raw_connection()
    return raw.driver_connection


async def fetch(connection: AsyncConnection, sql: str, *args: object) -> Sequence[asyncpg.Record]:
    """Run one asyncpg statement ($n parameters) inside the transaction of `connection`."""
    rows: Sequence[asyncpg.Record] = await (await driver(connection)).fetch(sql, *args)
    return rows


def owner_engine(url: str) -> AsyncEngine:
    """An engine without a pool that signs in as the owner, for migrations alone."""
    return _engine(role_url(url, OWNER), 0)

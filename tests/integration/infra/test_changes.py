"""The change feed on a real database: no change is missed, whatever order transactions commit in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import anyio
import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.changes import Change, ChangeFeed, record_change
from infra.db import Database, TenantId
from infra.roles import SYSTEM, role_url

pytestmark = pytest.mark.anyio


class _Ticks:
    """Monotonic seconds that stand still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _Seen:
    """A subscriber that remembers."""

    def __init__(self, feed: ChangeFeed) -> None:
        self.changes: list[Change] = []
        self.resets = 0
        feed.subscribe(self.changes.append, self._reset)

    def _reset(self) -> None:
        self.resets += 1

    def refs(self, tenant_id: TenantId) -> list[str]:
        return [change.ref for change in self.changes if change.tenant_id == tenant_id]


@pytest.fixture
async def feed(database: Database) -> AsyncIterator[ChangeFeed]:
    made = ChangeFeed(database, clock=_Ticks())
    await made.poll()
    yield made
    await made.close()


async def test_a_committed_change_is_told_once(database: Database, feed: ChangeFeed) -> None:
    """Later polls do not tell it again."""
    seen, tenant_id = _Seen(feed), TenantId(uuid4())
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "key", "a")
    for _ in range(3):
        await feed.poll()
    assert seen.refs(tenant_id) == ["a"]


async def test_a_rolled_back_change_is_never_told(database: Database, feed: ChangeFeed) -> None:
    """What did not happen is no change."""
    seen, tenant_id = _Seen(feed), TenantId(uuid4())
    with suppress(ZeroDivisionError):
        async with database.tenant_session(tenant_id) as conn:
            await record_change(conn, tenant_id, "key", "a")
            raise ZeroDivisionError
    await feed.poll()
    assert seen.refs(tenant_id) == []


async def test_a_transaction_that_began_before_the_feed_is_told(database: Database, feed: ChangeFeed) -> None:
    """A feed that starts in the middle of a transaction sees its commit."""
    tenant_id = TenantId(uuid4())
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "key", "early")
        late = ChangeFeed(database)
        seen = _Seen(late)
        await late.poll()
        assert seen.refs(tenant_id) == []
    await late.poll()
    assert seen.refs(tenant_id) == ["early"]
    await late.close()


async def test_polls_at_once_wait_for_each_other(database: Database, feed: ChangeFeed) -> None:
    """Each has seen what was committed before it was asked for, and a change is told once."""
    seen, tenant_id = _Seen(feed), TenantId(uuid4())
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "key", "a")
    await asyncio.gather(*(feed.poll() for _ in range(3)))
    assert seen.refs(tenant_id) == ["a"]


async def test_a_lost_connection_resets_who_subscribed(database: Database, feed: ChangeFeed) -> None:
    """After it nobody knows what was missed, so every cache is dropped; then the feed goes on."""
    seen, tenant_id = _Seen(feed), TenantId(uuid4())
    async with database.system_session(reason="end the feed's connection") as conn:
        await conn.exec_driver_sql(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'kindred changes' and datname = current_database()"
        )
    with suppress(Exception):  # how asyncpg says that the connection is gone depends on the moment
        await feed.poll()
    await feed.close()
    await feed.poll()
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "key", "after")
    await feed.poll()
    assert seen.resets == 1
    assert seen.refs(tenant_id) == ["after"]


async def test_the_feed_is_fresh_for_half_a_second_after_a_poll(database: Database) -> None:
    """Counted from the poll's beginning: its snapshot is not younger."""
    ticks = _Ticks()
    feed = ChangeFeed(database, clock=ticks)
    assert not feed.fresh
    await feed.poll()
    ticks.now += 0.49
    assert feed.fresh
    ticks.now += 0.02
    assert not feed.fresh
    assert feed.age_s == pytest.approx(0.51)
    await feed.close()


# Steps of four transactions: begin and write, commit, roll back, or a poll in between.
_STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "commit", "rollback", "poll"]), st.integers(0, 3)), min_size=4, max_size=30
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_no_change_is_missed_or_told_twice(database_url: str, steps: list[tuple[str, int]]) -> None:
    """Transactions that overlap and commit in any order, with polls anywhere: all committed rows, each once."""
    anyio.run(_interleave, database_url, steps)


async def _interleave(url: str, steps: list[tuple[str, int]]) -> None:
    database = Database(url, hot=0)
    feed, tenant_id = ChangeFeed(database), TenantId(uuid4())
    seen = _Seen(feed)
    await feed.poll()
    writers = [await asyncpg.connect(role_url(url, SYSTEM)) for _ in range(4)]
    open_: dict[int, tuple[asyncpg.transaction.Transaction, list[str]]] = {}
    committed: list[str] = []
    for number, (step, at) in enumerate(steps):
        if step == "poll":
            await feed.poll()
        elif step == "write":
            if at not in open_:
                transaction = writers[at].transaction()
                await transaction.start()
                open_[at] = transaction, []
            await writers[at].execute(
                "insert into changes (tenant_id, kind, ref) values ($1, 'key', $2)", tenant_id, str(number)
            )
            open_[at][1].append(str(number))
        elif at in open_:
            transaction, refs = open_.pop(at)
            if step == "commit":
                await transaction.commit()
                committed += refs
            else:
                await transaction.rollback()
    for transaction, _ in open_.values():
        await transaction.rollback()
    await feed.poll()
    for writer in writers:
        await writer.close()
    await feed.close()
    await database.close()
    assert sorted(seen.refs(tenant_id)) == sorted(committed)


@pytest.mark.parametrize("error", [asyncpg.InternalClientError("half a statement"), EOFError(), KeyError("row")])
async def test_no_failure_ends_the_feed(database: Database, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever a poll raises, the next one is made: nobody would start the feed again."""
    feed = ChangeFeed(database, poll_s=0.001)
    polled = anyio.Event()
    poll = feed.poll

    async def fails_once() -> list[Change]:
        monkeypatch.setattr(feed, "poll", poll_again)
        raise error

    async def poll_again() -> list[Change]:
        found = await poll()
        polled.set()
        return found

    monkeypatch.setattr(feed, "poll", fails_once)
    await feed.start()
    with anyio.fail_after(30):
        await polled.wait()
    await feed.close()
    assert feed.fresh


async def test_a_server_that_hangs_costs_each_request_no_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When neither a poll nor a new connection is answered, the hot connections are given up; one late poll is not
    enough."""
    feed = ChangeFeed(database)
    ways = []
    cut = asyncio.Event()

    async def hang(connected: bool) -> None:
        ways.append(connected)
        raise TimeoutError

    async def poll(self: ChangeFeed) -> None:
        await hang(self._connection is not None)

    def give_up(for_s: float) -> None:
        assert for_s > 0
        cut.set()

    monkeypatch.setattr(ChangeFeed, "poll", poll)
    monkeypatch.setattr("infra.changes._RETRY_S", 0.0)
    monkeypatch.setattr(feed, "_cut", give_up)
    await feed._connect()
    await feed.start()
    await cut.wait()
    await feed.close()
    assert ways[:2] == [True, False]

"""Webhooks from what happened to whom it is told: real receivers, a clock that stands still, and workers that die."""

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from infra.addresses import Policy
from infra.allowance import Allowance, parse_allowances
from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId
from infra.fetch import Fetcher
from infra.secret import Secret, mark_of
from tenants.catalog.imports import BlobSource, cancel_import, start_import, upload_key
from tenants.deletion import delete_tenant, find_deletion, undelete_tenant
from tenants.jobs import QUIET, claim_job, create_job, finish
from tenants.learned.models import serve_model
from tenants.learned.neighbours import NEIGHBOURS_JOB
from tenants.lifecycle import create_tenant
from tenants.webhooks import deliveries, endpoints
from tenants.webhooks.deliveries import (
    LEASE,
    Claimed,
    Delivery,
    claim_delivery,
    count_pending,
    list_deliveries,
    record_attempt,
)
from tenants.webhooks.endpoints import NewSecret, Rotation, WebhookChange, WebhookRequest
from tenants.webhooks.events import SUBSCRIBABLE, QuotaNear
from tenants.webhooks.outbox import emit
from tenants.webhooks.schedule import RETRIES, TIMEOUT_S, judge
from tests.sites import Reply, Site, answer, redirect, serving
from tests.unit.tenants.webhooks.test_signature import verified
from workers.jobs.imports import Imports
from workers.jobs.upkeep import Upkeep
from workers.jobs.webhooks import AT_ONCE, OF_A_TENANT, OF_AN_ENDPOINT, Webhooks, open_sender
from workers.runner import JobLoop

pytestmark = pytest.mark.anyio

SECRET = b"0123456789abcdef0123456789abcdef"
LOOPBACK = parse_allowances("127.0.0.0/8")
POLICY = Policy(allow=LOOPBACK, ports=None)
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
NEAR = QuotaNear(meter="recommendations", percent=80, used=80, quota=100, period="2026-01-01")  # type: ignore[arg-type]


class Bench:
    """Tenants, their webhooks, and a loop that sends to the loopback."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database = database
        self.clock = clock
        self.sender = Fetcher(allow=LOOPBACK, ports=None, ssl_context=NO_TRUST, per_host=32, concurrency=32)
        self.webhooks = self.worker()

    def worker(self, *, secrets: tuple[bytes, ...] = (SECRET,), **options: Any) -> Webhooks:
        """Another worker on the same database."""
        return Webhooks(self.database, self.sender, secrets=secrets, clock=self.clock, luck=lambda: 0.0, **options)

    async def tenant(self) -> TenantId:
        return await create_tenant(self.database, f"hooks {uuid4()}")

    async def endpoint(self, tenant_id: TenantId, url: str, *events: Any) -> NewSecret:
        wanted = WebhookRequest(url=url, events=list(events or SUBSCRIBABLE))
        async with self.database.tenant_session(tenant_id) as conn:
            return await endpoints.create_webhook(
                conn, tenant_id, wanted, policy=POLICY, secret=SECRET, now=self.clock()
            )

    async def happen(self, tenant_id: TenantId) -> UUID:
        async with self.database.tenant_session(tenant_id) as conn:
            return await emit(conn, tenant_id, "quota.near", NEAR, now=self.clock())

    async def send(self) -> None:
        """All that is due, to its end."""
        while await self.webhooks.step():
            await self.webhooks.settle()

    async def log(self, tenant_id: TenantId, made: NewSecret) -> list[Delivery]:
        async with self.database.tenant_session(tenant_id) as conn:
            return await list_deliveries(conn, tenant_id, made.webhook.id)

    async def shown(self, tenant_id: TenantId, made: NewSecret) -> endpoints.Webhook:
        async with self.database.tenant_session(tenant_id) as conn:
            return await endpoints.get_webhook(conn, tenant_id, made.webhook.id)


@pytest.fixture
async def bench(database: Database, clock: Any) -> AsyncIterator[Bench]:
    made = Bench(database, clock)
    yield made
    await made.webhooks.settle(0)
    await made.sender.aclose()


def headers_of(site: Site, at: int = -1) -> dict[str, str]:
    """The headers of a request, by lower-case name."""
    lines = site.requests[at].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}


async def test_what_happened_is_told_and_signed(bench: Bench) -> None:
    """Once, to each endpoint that asked for it, with a signature that its secret verifies."""
    tenant_id = await bench.tenant()
    async with serving(answer(b"ok", status="202 Accepted")) as site:
        made = await bench.endpoint(tenant_id, site.url("/in?key=1"), "quota.near")
        await bench.endpoint(tenant_id, site.url("/other"), "job.finished")
        event_id = await bench.happen(tenant_id)
        await bench.send()
        await bench.send()
        (body,) = site.bodies
        told = headers_of(site)
    assert site.requests[0].startswith(b"POST /in?key=1 HTTP/1.1\r\n")
    assert told["content-type"] == "application/json"
    assert told["webhook-id"] == str(event_id)
    assert verified(made.secret, told, body, now=bench.clock())
    assert json.loads(body) == {
        "type": "quota.near",
        "timestamp": "2026-01-15T12:00:00Z",
        "data": {"meter": "recommendations", "percent": 80, "used": 80, "quota": 100, "period": "2026-01-01"},
    }
    (delivery,) = await bench.log(tenant_id, made)
    assert (delivery.id, delivery.event, delivery.status) == (event_id, "quota.near", "delivered")
    assert (delivery.next_attempt_at, delivery.finished_at) == (None, bench.clock())
    (attempt,) = delivery.attempts
    assert (attempt.attempt, attempt.at, attempt.status_code) == (1, bench.clock(), 202)
    assert (attempt.answer, attempt.error) == ("ok", None)


async def test_nothing_is_told_of_what_is_rolled_back(bench: Bench) -> None:
    """The event is part of the transaction of what it tells."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        made = await bench.endpoint(tenant_id, site.url())
        with pytest.raises(RuntimeError, match="changed my mind"):
            await _change_mind(bench, tenant_id)
        await bench.send()
        assert site.requests == []
    assert await bench.log(tenant_id, made) == []


async def _change_mind(bench: Bench, tenant_id: TenantId) -> None:
    async with bench.database.tenant_session(tenant_id) as conn:
        await emit(conn, tenant_id, "quota.near", NEAR, now=bench.clock())
        raise RuntimeError("changed my mind")


async def test_a_system_session_may_tell_too(bench: Bench) -> None:
    """As quotas are counted across tenants; nobody else is told."""
    tenant_id, other = await bench.tenant(), await bench.tenant()
    async with serving(answer()) as site:
        await bench.endpoint(tenant_id, site.url("/mine"))
        await bench.endpoint(other, site.url("/theirs"))
        async with bench.database.system_session(reason="test") as conn:
            await emit(conn, tenant_id, "quota.near", NEAR, now=bench.clock())
        await bench.send()
        assert [request.split(b" ")[1] for request in site.requests] == [b"/mine"]


async def test_nothing_is_stored_where_nobody_asks(bench: Bench, query: Any) -> None:
    """Neither the event nor a delivery, nor for an endpoint that is disabled."""
    tenant_id = await bench.tenant()
    made = await bench.endpoint(tenant_id, "http://127.0.0.1:1/", "quota.near")
    async with bench.database.tenant_session(tenant_id) as conn:
        change = WebhookChange(enabled=False)
        await endpoints.change_webhook(conn, tenant_id, made.webhook.id, change, policy=POLICY, now=bench.clock())
    await bench.happen(tenant_id)
    for table in ("webhook_events", "webhook_deliveries"):
        assert await query(tenant_id, f"select count(*) from {table} where tenant_id = $1") == [(0,)]


async def test_a_failure_is_tried_again_for_three_days(bench: Bench) -> None:
    """After each pause of the schedule, under the same id with a new time; then it has failed."""
    tenant_id = await bench.tenant()
    async with serving(answer(b"no", status="500 Oops")) as site:
        made = await bench.endpoint(tenant_id, site.url())
        event_id = await bench.happen(tenant_id)
        for pause in RETRIES:
            await bench.send()
            (delivery,) = await bench.log(tenant_id, made)
            assert (delivery.status, delivery.next_attempt_at) == ("pending", bench.clock() + pause)
            bench.clock.advance(pause.total_seconds() - 1)
            await bench.send()  # a second too early
            bench.clock.advance(1)
        await bench.send()
        bench.clock.advance(30 * 86_400)
        await bench.send()
        assert len(site.requests) == len(RETRIES) + 1
        sent = [headers_of(site, at) for at in range(len(site.requests))]
        assert {each["webhook-id"] for each in sent} == {str(event_id)}
        assert len({each["webhook-timestamp"] for each in sent}) == len(sent)
        assert len(set(site.bodies)) == 1
    (delivery,) = await bench.log(tenant_id, made)
    assert (delivery.status, delivery.next_attempt_at) == ("failed", None)
    assert [attempt.attempt for attempt in delivery.attempts] == list(range(10, 0, -1))


async def test_a_success_ends_the_failing(bench: Bench) -> None:
    """The endpoint counts as failing from its first failure until then."""
    tenant_id = await bench.tenant()
    replies: dict[str, Reply] = {"/": answer(status="503 Later")}
    async with serving(replies) as site:
        made = await bench.endpoint(tenant_id, site.url())
        began = bench.clock()
        await bench.happen(tenant_id)
        await bench.send()
        bench.clock.advance(6)
        await bench.send()
        assert (await bench.shown(tenant_id, made)).failing_since == began
        replies["/"] = answer(status="204 Fine")
        bench.clock.advance(600)
        await bench.send()
    assert (await bench.shown(tenant_id, made)).failing_since is None
    (delivery,) = await bench.log(tenant_id, made)
    assert [attempt.status_code for attempt in delivery.attempts] == [204, 503, 503]


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("reply", "code"),
    [(silent, "fetch_timeout"), (b"", "fetch_unreachable"), (b"SSH-2.0\r\n", "fetch_unreachable")],
)
async def test_what_is_no_answer_is_named(bench: Bench, reply: Reply, code: str) -> None:
    """The log says why there is no status."""
    tenant_id = await bench.tenant()
    async with serving(reply) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        bench.webhooks = bench.worker(timeout_s=0.2)
        await bench.send()
    (delivery,) = await bench.log(tenant_id, made)
    assert delivery.status == "pending"
    assert delivery.attempts[0].status_code is None
    assert (delivery.attempts[0].error or "").startswith(code)


def test_an_answer_has_fifteen_seconds() -> None:
    """As the specification says; the tests of fetching check that it is kept."""
    assert TIMEOUT_S == 15.0


async def test_a_redirect_is_a_failure(bench: Bench) -> None:
    """It is followed nowhere."""
    tenant_id = await bench.tenant()
    async with serving({"/": redirect("/next"), "/next": answer()}) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        await bench.send()
        assert len(site.requests) == 1
    (delivery,) = await bench.log(tenant_id, made)
    assert (delivery.status, delivery.attempts[0].status_code) == ("pending", 302)


async def test_a_name_that_leads_inward_is_never_connected_to(bench: Bench) -> None:
    """What it stands for is seen when it is connected to, and logged without the address."""
    tenant_id = await bench.tenant()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with serving(answer()) as site:
        allowed = (Allowance.parse(f"hook.test:{site.port}"),)
        async with bench.database.tenant_session(tenant_id) as conn:
            made = await endpoints.create_webhook(
                conn,
                tenant_id,
                WebhookRequest(url=site.url(host="hook.test"), events=["quota.near"]),
                policy=Policy(allow=allowed),
                secret=SECRET,
                now=bench.clock(),
            )
        await bench.happen(tenant_id)
        async with Fetcher(ports=None, ssl_context=NO_TRUST, resolve=resolve) as sender:
            webhooks = Webhooks(bench.database, sender, secrets=[SECRET], clock=bench.clock)
            await webhooks.step()
            await webhooks.settle()
        assert site.requests == []
    (delivery,) = await bench.log(tenant_id, made)
    error = delivery.attempts[0].error or ""
    assert error.startswith("unknown_host")
    assert "127.0" not in error


async def test_the_log_keeps_a_kilobyte_of_the_answer(bench: Bench) -> None:
    """As text that PostgreSQL and a page can hold, whatever bytes came."""
    tenant_id = await bench.tenant()
    async with serving(answer(b"\x00\x1b\xff" + b"a" * 100_000, status="500 No")) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        await bench.send()
    (delivery,) = await bench.log(tenant_id, made)
    shown = delivery.attempts[0].answer or ""
    assert shown.startswith("\N{REPLACEMENT CHARACTER}" * 3 + "aaa")
    assert len(shown) == 1024


async def test_gone_disables_the_endpoint(bench: Bench, query: Any) -> None:
    """410: what waits has failed, and a notice says why."""
    tenant_id = await bench.tenant()
    async with serving(answer(status="410 Gone")) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        await bench.webhooks.step()
        await bench.happen(tenant_id)
        await bench.webhooks.settle()
        await bench.send()
        assert len(site.requests) == 1
    shown = await bench.shown(tenant_id, made)
    assert not shown.enabled
    assert shown.disabled == endpoints.Disabled(reason="gone", at=bench.clock())
    assert {delivery.status for delivery in await bench.log(tenant_id, made)} == {"failed"}
    notices = await query(tenant_id, "select endpoint_id, reason from webhook_notices where tenant_id = $1")
    assert notices == [(made.webhook.id, "gone")]
    entries = await query(
        tenant_id,
        "select actor, subject, details ->> 'reason' from audit where tenant_id = $1 and action like 'webhook.%'",
    )
    assert entries == [("webhooks", str(made.webhook.id), "gone")]


async def test_five_days_of_failure_disable_the_endpoint(bench: Bench, query: Any) -> None:
    """Not before, not by the first failure of a new message, and once."""
    tenant_id = await bench.tenant()
    async with serving(answer(status="500 No")) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        await bench.send()
        bench.clock.advance(timedelta(days=5).total_seconds() - 3600)
        await bench.send()
        await bench.happen(tenant_id)
        for pause in RETRIES[:2]:
            await bench.send()
            bench.clock.advance(pause.total_seconds())
        assert (await bench.shown(tenant_id, made)).enabled
        for pause in RETRIES[2:5]:
            await bench.send()
            bench.clock.advance(pause.total_seconds())
    shown = await bench.shown(tenant_id, made)
    assert shown.disabled is not None
    assert (shown.enabled, shown.disabled.reason) == (False, "failing")
    assert await query(tenant_id, "select count(*) from webhook_notices where tenant_id = $1") == [(1,)]


async def test_in_a_rotation_both_secrets_sign(bench: Bench) -> None:
    """Until the overlap is over; then the new one alone."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        made = await bench.endpoint(tenant_id, site.url())
        async with bench.database.tenant_session(tenant_id) as conn:
            rotation = Rotation(overlap_s=3600)
            new = await endpoints.rotate_secret(
                conn, tenant_id, made.webhook.id, rotation, secret=SECRET, now=bench.clock()
            )
        for old_one_verifies in (True, False):
            await bench.happen(tenant_id)
            await bench.send()
            told, body = headers_of(site), site.bodies[-1]
            assert verified(new.secret, told, body, now=bench.clock())
            assert verified(made.secret, told, body, now=bench.clock()) == old_one_verifies
            bench.clock.advance(3600)


async def test_the_installations_secret_can_change(bench: Bench) -> None:
    """What was stored under the old one is still signed; without it the log says what to do."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        bench.webhooks = bench.worker(secrets=(b"n" * 32,))
        await bench.send()
        assert site.requests == []
        (delivery,) = await bench.log(tenant_id, made)
        assert (delivery.attempts[0].error or "").startswith("undecipherable")
        bench.clock.advance(5)
        bench.webhooks = bench.worker(secrets=(b"n" * 32, SECRET))
        await bench.send()
        assert verified(made.secret, headers_of(site), site.bodies[0], now=bench.clock())


async def test_secrets_are_stored_anew_while_the_installations_changes(bench: Bench) -> None:
    """Upkeep does it, once; then the old one can be forgotten. What nobody can decrypt is left alone."""
    tenant_id = await bench.tenant()
    new = b"n" * 32
    async with serving(answer()) as site:
        made = await bench.endpoint(tenant_id, site.url())
        for secrets, count, now in (((new,), 0, SECRET), ((new, SECRET), 1, new), ((new, SECRET), 0, new)):
            async with bench.database.system_session(reason="test") as conn:
                assert await endpoints.reseal_secrets(conn, secrets) == count
                stored = await endpoints.count_secrets(conn, Secret(current=new, others=(SECRET,)))
                assert stored == {mark_of(now): 1}
        await bench.happen(tenant_id)
        bench.webhooks = bench.worker(secrets=(new,))
        await bench.send()
        assert verified(made.secret, headers_of(site), site.bodies[0], now=bench.clock())


async def test_secrets_are_not_stored_in_clear(bench: Bench, query: Any) -> None:
    """Neither as bytes nor as they are shown."""
    import base64

    tenant_id = await bench.tenant()
    made = await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    key = base64.b64decode(made.secret.removeprefix("whsec_"))
    ((row, stored),) = await query(
        tenant_id, "select e::text, e.secret from webhook_endpoints e where e.tenant_id = $1"
    )
    assert key not in stored
    assert key.hex() not in row
    assert made.secret.removeprefix("whsec_") not in row


def held_back() -> tuple[Reply, asyncio.Event]:
    """A receiver that answers when it is told to."""
    release = asyncio.Event()

    async def hanging(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(answer(b"at last"))
        await writer.drain()

    return hanging, release


def counted(count: int) -> tuple[Reply, asyncio.Event]:
    """A receiver that answers at once, and tells when it has done so so often."""
    reached = asyncio.Event()
    seen = iter(range(1, count + 1))

    async def prompt(writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await writer.drain()
        if next(seen, None) == count:
            reached.set()

    return prompt, reached


async def test_a_slow_tenant_holds_up_nobody(bench: Bench) -> None:
    """However much of its waits: another tenant's messages are sent meanwhile, and its own share is bounded."""
    slow, quick = await bench.tenant(), await bench.tenant()
    hanging, release = held_back()
    prompt, all_told = counted(3)
    async with serving(hanging) as tar, serving(prompt) as site:
        for path in ("/1", "/2", "/3"):
            await bench.endpoint(slow, tar.url(path))
        for _ in range(10):
            await bench.happen(slow)
        stop = asyncio.Event()
        running = asyncio.create_task(bench.webhooks.run(stop))
        await bench.endpoint(quick, site.url())
        for _ in range(3):
            await bench.happen(quick)
        await all_told.wait()
        assert tar.open <= OF_A_TENANT
        stop.set()
        release.set()
        await running
    assert tar.most_open <= OF_A_TENANT


async def test_a_dead_endpoint_does_not_take_all_of_its_tenants_places(bench: Bench) -> None:
    """Another endpoint of the same tenant is told beside it."""
    tenant_id = await bench.tenant()
    hanging, release = held_back()
    prompt, all_told = counted(6)
    async with serving(hanging) as tar, serving(prompt) as site:
        await bench.endpoint(tenant_id, tar.url())
        await bench.endpoint(tenant_id, site.url())
        for _ in range(6):
            await bench.happen(tenant_id)
        stop = asyncio.Event()
        running = asyncio.create_task(bench.webhooks.run(stop))
        await all_told.wait()
        assert tar.most_open == OF_AN_ENDPOINT
        stop.set()
        release.set()
        await running


async def test_slow_endpoints_share_half_of_the_places(bench: Bench) -> None:
    """Once they are known to be slow, there is always room for those that answer, however many tenants have them."""
    tenants = [await bench.tenant() for _ in range(12)]
    hanging, release = held_back()
    replies: dict[str, Reply] = {"/": answer(status="500 No")}
    async with serving(replies) as tar:
        for tenant_id in tenants:
            for _ in range(2):
                await bench.endpoint(tenant_id, tar.url())
            await bench.happen(tenant_id)
        await bench.send()
        replies["/"], tar.most_open = hanging, 0
        for tenant_id in tenants:
            for _ in range(4):
                await bench.happen(tenant_id)
        while await bench.webhooks.step():
            pass
        prompt, all_told = counted(1)
        async with serving(prompt) as site:
            quick = await bench.tenant()
            await bench.endpoint(quick, site.url())
            await bench.happen(quick)
            assert await bench.webhooks.step() == 1
            await all_told.wait()
        release.set()
        await bench.webhooks.settle()
    assert tar.most_open <= AT_ONCE // 2


async def test_two_workers_send_once(bench: Bench) -> None:
    """What one has in hand the other does not claim."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        await bench.endpoint(tenant_id, site.url())
        for _ in range(12):
            await bench.happen(tenant_id)
        other = bench.worker()
        while sum(await asyncio.gather(bench.webhooks.step(), other.step())):
            await asyncio.gather(bench.webhooks.settle(), other.settle())
        assert len(site.requests) == 12
        assert len({headers_of(site, at)["webhook-id"] for at in range(12)}) == 12


async def test_of_a_deleted_shop_nothing_is_sent_until_it_is_had_back(bench: Bench) -> None:
    """Neither by who looks who waits, nor by who has looked before; nor does it count as waiting."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        async with bench.database.system_session(reason="test look") as conn:
            before = await count_pending(conn)
        async with bench.database.tenant_session(tenant_id) as conn:
            await delete_tenant(conn, tenant_id, now=bench.clock(), grace=timedelta(days=7))
        assert await bench.webhooks.step() == 0
        assert await _claim(bench, tenant_id) is None
        async with bench.database.system_session(reason="test look") as conn:
            assert await count_pending(conn) == before - 1
        deletion = await find_deletion(bench.database, str(tenant_id), now=bench.clock())
        async with bench.database.tenant_session(tenant_id) as conn:
            await undelete_tenant(conn, deletion, now=bench.clock())
        await bench.send()
        assert len(site.requests) == 1


async def _claim(bench: Bench, tenant_id: TenantId) -> Claimed | None:
    async with bench.database.tenant_session(tenant_id) as conn:
        return await claim_delivery(conn, tenant_id, bench.clock())


async def _record(bench: Bench, claimed: Claimed, status_code: int) -> None:
    async with bench.database.tenant_session(claimed.tenant_id) as conn:
        await record_attempt(
            conn,
            claimed,
            judge(claimed.tries + 1, status_code, luck=0.0),
            now=bench.clock(),
            status_code=status_code,
            error=None,
            answer="",
            duration_ms=1,
        )


async def test_a_worker_that_wakes_up_late_changes_nothing(bench: Bench) -> None:
    """Its claim has run out, another has sent the message: the log tells that one's attempt, once."""
    tenant_id = await bench.tenant()
    made = await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    await bench.happen(tenant_id)
    late = await _claim(bench, tenant_id)
    assert late is not None
    assert await _claim(bench, tenant_id) is None
    bench.clock.advance(LEASE.total_seconds())
    second = await _claim(bench, tenant_id)
    assert second is not None
    assert second.event_id == late.event_id
    await _record(bench, second, 200)
    await _record(bench, second, 200)
    await _record(bench, late, 500)
    (delivery,) = await bench.log(tenant_id, made)
    assert delivery.status == "delivered"
    assert [attempt.status_code for attempt in delivery.attempts] == [200]
    assert (await bench.shown(tenant_id, made)).failing_since is None


async def test_disabling_gives_up_what_waits(bench: Bench) -> None:
    """Also what is in hand; enabled again, it can be replayed."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        made = await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        in_hand = await _claim(bench, tenant_id)
        assert in_hand is not None
        for enabled in (False, True):
            async with bench.database.tenant_session(tenant_id) as conn:
                change = WebhookChange(enabled=enabled)
                await endpoints.change_webhook(
                    conn, tenant_id, made.webhook.id, change, policy=POLICY, now=bench.clock()
                )
        await _record(bench, in_hand, 200)
        await bench.send()
        assert site.requests == []
        async with bench.database.tenant_session(tenant_id) as conn:
            since = bench.clock() - timedelta(hours=1)
            count = await deliveries.replay_failed(conn, tenant_id, made.webhook.id, since=since, now=bench.clock())
        assert count == 1
        await bench.send()
        assert headers_of(site)["webhook-id"] == str(in_hand.event_id)


async def test_a_deleted_endpoint_is_told_nothing(bench: Bench, query: Any) -> None:
    """Neither what waits nor what is in hand, and nothing of its log is left."""
    tenant_id = await bench.tenant()
    made = await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    await bench.happen(tenant_id)
    in_hand = await _claim(bench, tenant_id)
    assert in_hand is not None
    await bench.happen(tenant_id)
    async with bench.database.tenant_session(tenant_id) as conn:
        await endpoints.delete_webhook(conn, tenant_id, made.webhook.id)
    await _record(bench, in_hand, 200)
    await bench.send()
    for table in ("webhook_endpoints", "webhook_deliveries", "webhook_attempts"):
        assert await query(tenant_id, f"select count(*) from {table} where tenant_id = $1") == [(0,)]


async def test_deliveries_are_forgotten_after_thirty_days(bench: Bench, blobs: FolderBlobs, query: Any) -> None:
    """With their events and attempts; those of yesterday stay."""
    tenant_id = await bench.tenant()
    async with serving(answer()) as site:
        await bench.endpoint(tenant_id, site.url())
        await bench.happen(tenant_id)
        await bench.send()
        bench.clock.advance(29 * 86_400)
        await bench.happen(tenant_id)
        await bench.send()
        bench.clock.advance(86_400 + 1)
        await Upkeep(bench.database, blobs, clock=bench.clock).prune()
    for table in ("webhook_events", "webhook_deliveries", "webhook_attempts"):
        assert await query(tenant_id, f"select count(*) from {table} where tenant_id = $1") == [(1,)]


async def test_what_waits_is_counted(bench: Bench, blobs: FolderBlobs) -> None:
    """The gauge shows a backlog."""
    from infra.telemetry import REGISTRY

    tenant_id = await bench.tenant()
    await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    for _ in range(3):
        await bench.happen(tenant_id)
    await Upkeep(bench.database, blobs, clock=bench.clock).count()
    assert REGISTRY.get_sample_value("webhook_deliveries_pending") == 3


# What tells


@pytest.fixture
def told(bench: Bench, query: Any) -> Callable[[TenantId], Awaitable[list[tuple[str, dict[str, Any]]]]]:
    """Type and data of what a tenant was told, in order."""

    async def told(tenant_id: TenantId) -> list[tuple[str, dict[str, Any]]]:
        rows = await query(
            tenant_id, "select type, data::text from webhook_events where tenant_id = $1 order by event_id"
        )
        return [(type_, msgspec.json.decode(data)) for type_, data in rows]

    return told


def _feed(count: int) -> bytes:
    return b"".join(b'{"id": "i%d", "title": "red shoe %d"}\n' % (at, at) for at in range(count))


async def test_imports_tell_that_they_are_held_and_that_they_end(
    bench: Bench, make_shop: Any, blobs: FolderBlobs, told: Any
) -> None:
    """Done, held, cancelled: each once, in the transaction in which it is so."""
    tenant_id = await make_shop()
    await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    ids = []
    imports = Imports(bench.database, blobs, None, clock=bench.clock)
    for count in (10, 2):
        bench.clock.advance(1)
        key = upload_key(tenant_id, f"{count}.feed")
        await blobs.put(key, _feed(count))
        async with bench.database.tenant_session(tenant_id) as conn:
            ids.append(str(await start_import(conn, tenant_id, BlobSource(key=key), mode="full")))
        loop = JobLoop(bench.database, {"import": imports}, clock=bench.clock)
        while await loop.step():
            pass
    await imports.close()
    async with bench.database.tenant_session(tenant_id) as conn:
        await cancel_import(conn, tenant_id, UUID(ids[1]), now=bench.clock())
    first, held, cancelled = await told(tenant_id)
    done = {"kind": "import", "status": "done", "total": 10, "done": 10, "failed": 0, "error": None}
    assert first == ("job.finished", {"job_id": ids[0], **done})
    assert held == ("import.held", {"job_id": ids[1], "items": 10, "would_remove": 8})
    ended = {"kind": "import", "status": "cancelled", "total": 2, "done": 2, "failed": 0, "error": None}
    assert cancelled == ("job.finished", {"job_id": ids[1], **ended})


async def test_jobs_of_our_own_tell_nothing(bench: Bench, told: Any) -> None:
    """Neighbours are built anew whenever a catalogue has moved."""
    assert {NEIGHBOURS_JOB} == QUIET
    tenant_id = await bench.tenant()
    await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    for kind in (NEIGHBOURS_JOB, "train"):
        async with bench.database.tenant_session(tenant_id) as conn:
            await create_job(conn, tenant_id, kind, NEAR)
        async with bench.database.system_session(reason="test") as conn:
            job = await claim_job(conn, [kind], bench.clock())
        assert job is not None
        async with bench.database.tenant_session(tenant_id) as conn:
            await finish(conn, job, "failed", now=bench.clock(), error="too little")
    assert [(type_, data["kind"], data["error"]) for type_, data in await told(tenant_id)] == [
        ("job.finished", "train", "too little")
    ]


async def test_a_model_that_serves_is_told(bench: Bench, make_shop: Any, told: Any, query: Any) -> None:
    """With its number and the generation that it serves from."""
    tenant_id = await make_shop()
    await bench.endpoint(tenant_id, "http://127.0.0.1:1/")
    await query(
        tenant_id,
        "insert into behaviour_models (tenant_id, model, status, code_version) values ($1, 3, 'ready', 'x') "
        "returning 1",
    )
    async with bench.database.tenant_session(tenant_id) as conn:
        gen = await serve_model(conn, tenant_id, 3, reason="asked for")
    assert await told(tenant_id) == [("model.activated", {"model": 3, "generation": gen, "reason": "asked for"})]


# The process


@pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True)
async def test_a_killed_worker_loses_no_message(bench: Bench, start_worker: Any, clock: Any, query: Any) -> None:
    """kill -9 while receivers hold their answers back: the next worker sends each again, under its own id."""
    tenant_id = await bench.tenant()
    hold, held = asyncio.Event(), asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        if site.open == OF_AN_ENDPOINT:
            held.set()
        await hold.wait()
        writer.write(answer(b"ok"))
        await writer.drain()

    async with serving(slow) as site:
        made = await bench.endpoint(tenant_id, site.url())
        expected = {str(await bench.happen(tenant_id)) for _ in range(6)}
        allow = f"127.0.0.1:{site.port}"
        environment = {"KINDRED_FETCH_ALLOW": allow, "KINDRED_SECRET_KEY": SECRET.decode()}
        first = await asyncio.to_thread(start_worker, "webhooks", **environment)
        await held.wait()
        assert await asyncio.to_thread(first.end, signal.SIGKILL) == -signal.SIGKILL
        hold.set()
        cut_off = {headers_of(site, at)["webhook-id"] for at in range(len(site.requests))}
        assert cut_off
        # As if the leases of the dead worker had run out: the test need not wait for that.
        due = "update webhook_deliveries set due = '-infinity' where tenant_id = $1 and status = 'pending' returning 1"
        assert len(await query(tenant_id, due)) == 6
        second = await asyncio.to_thread(start_worker, "webhooks", **environment)
        async with asyncio.timeout(60):
            while {each.status for each in await bench.log(tenant_id, made)} != {"delivered"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await asyncio.to_thread(second.end, signal.SIGTERM) == 0
        received = [headers_of(site, at)["webhook-id"] for at in range(len(site.requests))]
    assert set(received) == expected
    assert len(received) == 6 + len(cut_off)


async def test_the_sender_reaches_nothing_inside() -> None:
    """As the worker opens it, where the operator has allowed nothing."""
    from infra.addresses import BlockedAddress

    async with open_sender(()) as sender:
        with pytest.raises(BlockedAddress):
            await sender.post("http://127.0.0.1/", content=b"", headers={}, max_bytes=1, timeout_s=5.0)

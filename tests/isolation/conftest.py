"""Two shops of one application; one of them is full of things that the other must never see."""

from datetime import date
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from msgspec import Struct

from api.app import Application
from infra.db import TenantId, driver
from tenants.audit.sealing import seal
from tenants.webhooks.deliveries import claim_delivery, record_attempt
from tenants.webhooks.schedule import judge
from tests.integration.api.conftest import MakeShop, Shop, anonymous, app, make_shop

__all__ = ["anonymous", "app", "make_shop"]

MARK = "ofthevictim"
"""Part of every text that the victim has stored."""

SYSTEM_ONLY = {"erasure_certificates", "shards", "stranger_buckets"}
"""Tables that the application role may not touch at all."""

ADDED_TO_ONLY = {"audit", "audit_seals", "audit_unsealed"}
"""Tables whose rows the application role can neither change nor take away."""

OF_PEOPLE = {
    "address_changes",
    "attempts",
    "identities",
    "invitations",
    "mails",
    "members",
    "one_time_tokens",
    "organisations",
    "people",
    "recovery_codes",
    "second_steps",
    "sessions",
    "signups",
    "sso_departures",
    "sso_organisations",
}
"""Tables of people and organisations; test_people.py looks at them."""


class Victim(Struct, frozen=True, kw_only=True):
    """A shop with something in every table, and what its things are called."""

    shop: Shop
    item_id: str
    job_id: str
    key_id: str
    answer_id: str
    event_id: str
    user_id: str
    segment_id: str
    webhook_id: str
    delivery_id: str
    shop_name: str
    export_id: str


@pytest.fixture
async def attacker(app: Application, make_shop: MakeShop) -> Shop:
    """A shop with a key that may do everything, which has something in every table too."""
    return (await _furnish(app, await make_shop(), "mine")).shop


@pytest.fixture
async def twin(app: Application, make_shop: MakeShop) -> Shop:
    """A shop with the same as the attacker's: to do the same with other words."""
    return (await _furnish(app, await make_shop(), "mine")).shop


@pytest.fixture
async def victim(app: Application, make_shop: MakeShop) -> Victim:
    """The other shop; it has an item of the same id as one of the attacker's."""
    return await _furnish(app, await make_shop(), MARK)


async def _furnish(app: Application, shop: Shop, mark: str) -> Victim:
    client = shop.client
    only = f"only-{uuid4()}"
    items = [
        {
            "id": name,
            "title": f"lamp {mark}",
            "brand": mark,
            "group_id": mark + name,
            "attributes": {"colour": mark},
            "categories": [mark],
        }
        for name in ("same", only)
    ]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == 2
    photo = b"\xff\xd8\xff " + mark.encode()
    headers = {"content-type": "image/jpeg"}
    assert (await client.put(f"/v1/items/{only}/images/0", content=photo, headers=headers)).status_code == 200
    feed = {"url": f"https://{mark}.example/f.csv"}
    job_id = (await client.post("/v1/imports", json=feed, headers={"idempotency-key": "same"})).json()["job_id"]
    key_id = (await client.post("/v1/keys", json={"name": mark})).json()["info"]["key_id"]
    event_id, user_id = f"event-{uuid4()}", f"user-{uuid4()}"
    events = [
        {"event_id": event_id, "type": "view", "item_id": only, "user_id": user_id, "context": {"of": mark}},
        {"type": "view", "item_id": "same", "user_id": "same"},
    ]
    assert (await client.post("/v1/events", json={"events": events})).json()["accepted"] == 2
    segment_id = f"segment-{uuid4()}"
    for name in ("same", user_id):
        assert (await client.put(f"/v1/users/{name}", json={"attributes": {"of": mark}})).is_success
    for name in ("same", segment_id):
        tree = {"eq": ["attributes.of", mark]}
        assert (await client.put(f"/v1/segments/{name}", json={"filter": tree})).is_success
    assert (await client.put("/v1/users/gone", json={})).is_success
    assert (await client.delete("/v1/users/gone")).status_code == 204
    hook = {"url": f"https://{mark}.example/hook", "events": ["job.finished"], "description": mark}
    webhook_id = (await client.post("/v1/webhooks", json=hook)).json()["webhook"]["id"]
    delivery_id = (await client.post(f"/v1/webhooks/{webhook_id}/test")).json()["delivery_id"]
    await _fill(app, shop.tenant_id, UUID(job_id), mark)
    await _attempt(app, shop.tenant_id, UUID(webhook_id), mark)
    for name in ("same", mark):
        body = {"defaults": {"filter": {"eq": ["brand", mark]}}}
        assert (await client.put(f"/v1/placements/{name}", json=body)).status_code == 201
    answered = (await client.post("/v1/recommend", json={"placement": mark})).json()
    await app.services.answer_log.close()
    export_id = (await client.post("/v1/exports")).json()["export_id"]
    await app.services.blobs.put(f"tenants/{shop.tenant_id}/exports/{export_id}", mark.encode())
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        raw = await driver(conn)
        shop_name = await raw.fetchval("select name from tenants where tenant_id = $1", shop.tenant_id)
        await raw.execute(
            "update jobs set status = 'done', finished_at = now(), report = $3::text::jsonb "
            "where tenant_id = $1 and job_id = $2",
            shop.tenant_id,
            UUID(export_id),
            '{"bytes": 11, "sha256": "' + mark + '", "rows": {}}',
        )
    return Victim(
        shop=shop,
        item_id=only,
        job_id=job_id,
        key_id=key_id,
        answer_id=answered["recommendation_id"],
        event_id=event_id,
        user_id=user_id,
        segment_id=segment_id,
        webhook_id=webhook_id,
        delivery_id=delivery_id,
        shop_name=shop_name,
        export_id=export_id,
    )


async def _fill(app: Application, tenant_id: TenantId, job_id: UUID, mark: str) -> None:
    """What no route writes: vectors, a generation, faults, what an import has seen."""
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        layout, text, image = await raw.fetchrow("select layout_id, text_space, image_space from layouts limit 1")
        halfvec = "[" + ",".join(["0.0625"] * 640) + "]"
        await raw.execute(
            "insert into generations (tenant_id, gen, layout_id, calibration, weights, status, reason) "
            "values ($1, 1, $2, '{}', '{\"text\": 0.5, \"image\": 0.5}', 'ready', 'test')",
            tenant_id,
            layout,
        )
        for item_no in (1, 2):
            await raw.execute(
                "insert into item_vectors (tenant_id, space_id, item_no, content_hash, vec) "
                "values ($1, $2, $3, $4, $5::text::halfvec)",
                tenant_id,
                text,
                item_no,
                b"hash",
                "[" + ",".join(["0.0625"] * 384) + "]",
            )
            await raw.execute(
                "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
                "values (0, $1, $2, $3, $4, $5, $6::text::halfvec)",
                tenant_id,
                layout,
                item_no,
                text,
                image,
                halfvec,
            )
        await raw.execute(
            "insert into job_faults (tenant_id, job_id, seq, severity, code, pointer, message) "
            "values ($1, $2, 0, 'error', 'x', '/x', $3)",
            tenant_id,
            job_id,
            mark,
        )
        await raw.execute("insert into import_seen (tenant_id, job_id, item_no) values ($1, $2, 1)", tenant_id, job_id)
        await raw.execute("insert into changes (tenant_id, kind, ref) values ($1, 'key', $2)", tenant_id, mark)
        await raw.execute(
            "insert into visitor_secrets (tenant_id, secret_no, derived_under, created_at) values ($1, 1, $2, now())",
            tenant_id,
            mark,
        )
        await raw.execute(
            "insert into rate_buckets (tenant_id, bucket, full_at, since) values ($1, $2, 0, 0)", tenant_id, mark
        )
        month = date(2020, 1, 1)
        await raw.execute(
            "insert into usage_months (tenant_id, period, meter, used) values ($1, $2, $3, 7)", tenant_id, month, mark
        )
        await raw.execute(
            "insert into quota_notices (tenant_id, period, meter, percent, used, quota, at) "
            "values ($1, $2, $3, 80, 8, 10, now())",
            tenant_id,
            month,
            mark,
        )
        await _learn(raw, tenant_id, layout, mark)
    assert await seal(app.services.database, tenant_id, now=app.services.clock())


async def _attempt(app: Application, tenant_id: TenantId, endpoint_id: UUID, mark: str) -> None:
    """An attempt to tell the webhook, and a notice that it was disabled."""
    async with app.services.database.tenant_session(tenant_id) as conn:
        claimed = await claim_delivery(conn, tenant_id, app.services.clock())
        assert claimed is not None
        await record_attempt(
            conn,
            claimed,
            judge(1, 500, luck=0.0),
            now=app.services.clock(),
            status_code=500,
            error=mark,
            answer=mark,
            duration_ms=1,
        )
        await (await driver(conn)).execute(
            "insert into webhook_notices (tenant_id, notice_id, endpoint_id, reason, at) "
            "values ($1, $2, $2, 'failing', now())",
            tenant_id,
            endpoint_id,
        )


async def _learn(raw: Any, tenant_id: TenantId, layout: int, mark: str) -> None:
    """A model, a build of neighbours, and a row of each kind that is learned."""
    settings = '{"of": "' + mark + '"}'
    vector = "[" + ",".join(["0.5"] * 8) + "]"
    for statement, *values in (
        (
            "insert into behaviour_models (tenant_id, model, status, code_version, settings, counts) "
            "values ($1, 1, 'ready', $2, $3::text::jsonb, $3::text::jsonb)",
            mark,
            settings,
        ),
        (
            "insert into neighbour_builds (tenant_id, build, layout_id, recipe, watermark, items, status) "
            "values ($1, 1, $2, 'x', now(), 2, 'ready')",
            layout,
        ),
        (
            "insert into item_neighbours (tenant_id, kind, build, item_no, others, scores) "
            "values ($1, 1, 1, 1, '{2}', '{9}'), ($1, 3, 1, 1, '{2}', '{9}')",
        ),
        (
            "insert into behaviour_vectors (tenant_id, model, item_no, own, vec) "
            "values ($1, 1, 1, 0, $2::text::halfvec)",
            vector,
        ),
        (
            "insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events) "
            "values ($1, 1, $2, 1, 1, 0, 1)",
            mark,
        ),
        (
            "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) "
            "values ($1, 1, 1, '{2}', '{9}')",
        ),
    ):
        await raw.execute(statement, tenant_id, *values)


async def rows_of(app: Application, tenant_id: TenantId) -> dict[str, list[str]]:
    """Every row of a tenant in every table that has tenants, as text."""
    found = {}
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table in await tenant_tables(raw):
            records = await raw.fetch(f"select t::text as row from {table} t where tenant_id = $1", tenant_id)
            found[table] = sorted(record["row"] for record in records)
    return found


async def tenant_tables(raw: object) -> list[str]:
    """The tables with a tenant_id that the application may touch, without partitions."""
    records = await raw.fetch(  # type: ignore[attr-defined]
        "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' "
        "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition "
        "order by 1"
    )
    return [record["relname"] for record in records if record["relname"] not in SYSTEM_ONLY]


def assert_nothing_leaked(answer: httpx.Response, victim: Victim) -> None:
    """Nothing of the victim is in the answer: no text, no id that the attacker has not said itself."""
    told = answer.text + str(answer.headers)
    said = str(answer.request.url) + answer.request.content.decode(errors="replace")
    others = (
        victim.answer_id,
        victim.event_id,
        victim.user_id,
        victim.segment_id,
        victim.webhook_id,
        victim.delivery_id,
        victim.export_id,
    )
    for secret in (MARK, str(victim.shop.tenant_id), victim.item_id, victim.job_id, victim.key_id, *others):
        assert secret not in told or secret in said, told

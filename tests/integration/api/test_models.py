"""/v1/models: what is learned, training on demand, and going back to a model."""

from typing import Any

import pytest

from api.app import Application
from infra.db import driver
from tenants.vectors.generations import ensure_generation
from tests.integration.api.conftest import MakeShop, Shop

pytestmark = pytest.mark.anyio


async def _model(app: Application, shop: Shop, model: int, status: str, **settings: Any) -> None:
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        raw = await driver(conn)
        layout = await raw.fetchval("select layout_id from layouts limit 1")
        await ensure_generation(conn, shop.tenant_id, layout, {})
        await raw.execute(
            "insert into behaviour_models (tenant_id, model, status, code_version, settings) "
            "values ($1, $2, $3, 'test', jsonb_build_object('blend', jsonb_build_object('graph', $4::float8)))",
            shop.tenant_id,
            model,
            status,
            settings.get("graph", 1.0),
        )


async def test_a_new_shop_has_no_models(make_shop: MakeShop) -> None:
    """An empty list, not an error."""
    shop = await make_shop()
    assert (await shop.client.get("/v1/models")).json() == {"models": []}


async def test_training_is_asked_for_once(make_shop: MakeShop) -> None:
    """A second call answers the job that waits, which /v1/jobs shows."""
    shop = await make_shop()
    answers = [await shop.client.post("/v1/models/train") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    job_id = answers[0].json()["job_id"]
    assert answers[1].json()["job_id"] == job_id
    job = (await shop.client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["kind"], job["status"]) == ("train", "queued")


async def test_a_model_is_activated_and_undone(app: Application, make_shop: MakeShop) -> None:
    """At once, with the blend that was fitted with it."""
    shop = await make_shop()
    await _model(app, shop, 1, "ready", graph=0.25)
    await _model(app, shop, 2, "ready", graph=0.5)
    for model, weight in ((2, 0.5), (1, 0.25)):
        assert (await shop.client.post(f"/v1/models/{model}/activate")).json()["model"] == model
        generation = (await app.services.directory.get(shop.tenant_id)).generation
        assert (generation.behaviour_model, generation.blend) == (model, {"graph": weight})
        listed = (await shop.client.get("/v1/models")).json()["models"]
        assert [each["model"] for each in listed if each["active"]] == [model]


@pytest.mark.parametrize("status", ["training", "waiting", "failed", "retired"])
async def test_only_a_ready_model_can_serve(app: Application, make_shop: MakeShop, status: str) -> None:
    """409 says what it is."""
    shop = await make_shop()
    await _model(app, shop, 1, status)
    answer = await shop.client.post("/v1/models/1/activate")
    assert (answer.status_code, answer.json()["code"]) == (409, "model_not_ready")
    assert status in answer.json()["detail"]


@pytest.mark.parametrize("name", ["7", "0", "-1", "x", "1e3", "99999999999", "²"])
async def test_an_unknown_model_is_not_found(make_shop: MakeShop, name: str) -> None:
    """Whatever stands in the address."""
    shop = await make_shop()
    answer = await shop.client.post(f"/v1/models/{name}/activate")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")

"""What a generation takes from behaviour: kept by a new one, changed by a model, and undone."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from infra.db import Database, TenantId, driver
from tenants.lifecycle import create_tenant, load_tenant
from tenants.vectors.generations import (
    Calibration,
    GenerationNotFound,
    activate,
    activate_model,
    ensure_generation,
    ensure_layout,
    ensure_space,
    open_generation,
)

pytestmark = pytest.mark.anyio

NewLayout = Callable[[], Awaitable[tuple[int, Calibration]]]


@pytest.fixture
def new_layout(database: Database) -> NewLayout:
    """Make a layout of its own; its number and a calibration."""

    async def make() -> tuple[int, Calibration]:
        mark = uuid4().hex[:8]
        async with database.system_session(reason="test set-up") as conn:
            text = await ensure_space(conn, name=f"text-{mark}", kind="text", dim=16)
            image = await ensure_space(conn, name=f"image-{mark}", kind="image", dim=8)
            return await ensure_layout(conn, text, image), {text: (0.1, 0.2), image: (0.3, 0.4)}

    return make


@pytest.fixture
async def layout(new_layout: NewLayout) -> tuple[int, Calibration]:
    """The layout that serves."""
    return await new_layout()


@pytest.fixture
async def tenant_id(database: Database, layout: tuple[int, Calibration]) -> TenantId:
    """A tenant with its first generation."""
    made = await create_tenant(database, f"shop {uuid4()}")
    async with database.tenant_session(made) as conn:
        await ensure_generation(conn, made, *layout)
    return made


async def _serving(database: Database, tenant_id: TenantId) -> tuple[Any, ...]:
    generation = (await load_tenant(database, tenant_id)).generation
    return generation.behaviour_model, generation.neighbours_build, generation.blend, generation.layout_id


async def test_a_model_serves_from_its_activation_on(
    database: Database, tenant_id: TenantId, layout: tuple[int, Calibration]
) -> None:
    """The model, the build and the blend, in the layout that serves; what is not named stays."""
    assert await _serving(database, tenant_id) == (None, None, {}, layout[0])
    async with database.tenant_session(tenant_id) as conn:
        await activate_model(conn, tenant_id, reason="test", neighbours_build=4)
        gen = await activate_model(conn, tenant_id, reason="test", behaviour_model=7, blend={"graph": 0.75})
    assert gen == 3
    assert await _serving(database, tenant_id) == (7, 4, {"graph": 0.75}, layout[0])
    assert (await load_tenant(database, tenant_id)).generation.text_weight == 0.5


async def test_an_activation_is_undone_by_the_generation_before(
    database: Database, tenant_id: TenantId, layout: tuple[int, Calibration]
) -> None:
    """Everything it changed at once."""
    async with database.tenant_session(tenant_id) as conn:
        before = await activate_model(conn, tenant_id, reason="test", behaviour_model=1, blend={"graph": 0.5})
        await activate_model(conn, tenant_id, reason="test", behaviour_model=2, blend={})
        assert (
            await (await driver(conn)).fetchval(
                "select count(*) from changes where tenant_id = $1 and kind = 'tenant'", tenant_id
            )
            == 3
        )
        await activate(conn, tenant_id, before)
    assert await _serving(database, tenant_id) == (1, None, {"graph": 0.5}, layout[0])


async def test_a_model_can_be_taken_out_of_service(database: Database, tenant_id: TenantId) -> None:
    """None is a value of its own: nothing learned serves."""
    async with database.tenant_session(tenant_id) as conn:
        await activate_model(conn, tenant_id, reason="test", behaviour_model=1)
        await activate_model(conn, tenant_id, reason="test", behaviour_model=None)
    assert (await _serving(database, tenant_id))[0] is None


async def test_another_calibration_keeps_what_was_learned(
    database: Database, tenant_id: TenantId, layout: tuple[int, Calibration]
) -> None:
    """The layout is the same, so the neighbours are kept too."""
    async with database.tenant_session(tenant_id) as conn:
        await activate_model(conn, tenant_id, reason="test", behaviour_model=1, neighbours_build=2, blend={"als": 1.0})
        gen = await open_generation(conn, tenant_id, layout[0], reason="test", calibration=layout[1])
        await activate(conn, tenant_id, gen)
    assert await _serving(database, tenant_id) == (1, 2, {"als": 1.0}, layout[0])


async def test_another_encoder_keeps_the_model_and_drops_the_neighbours(
    database: Database, tenant_id: TenantId, new_layout: NewLayout
) -> None:
    """Behaviour does not depend on the encoder, nearness does; what is learned while it fills counts."""
    async with database.tenant_session(tenant_id) as conn:
        await activate_model(conn, tenant_id, reason="test", behaviour_model=1, neighbours_build=2)
        layout_id, calibration = await new_layout()
        gen = await open_generation(conn, tenant_id, layout_id, reason="test", calibration=calibration)
        await activate_model(conn, tenant_id, reason="test", behaviour_model=3, blend={"graph": 0.25})
        await activate(conn, tenant_id, gen)
    assert await _serving(database, tenant_id) == (3, None, {"graph": 0.25}, layout_id)


async def test_a_tenant_that_no_worker_has_seen_has_nothing_to_activate(database: Database) -> None:
    """There is no layout yet that a model could go with."""
    new = await create_tenant(database, f"shop {uuid4()}")
    async with database.tenant_session(new) as conn:
        with pytest.raises(GenerationNotFound):
            await activate_model(conn, new, reason="test", behaviour_model=1)

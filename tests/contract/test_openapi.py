"""The OpenAPI document is the contract: made-up requests to the real server keep to it, good and bad ones."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from litestar import Litestar
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import ROUTES
from api.openapi import document
from infra.clock import utc_now
from infra.db import Database
from tenants.keys import SCOPES, KeyRequest, create_key
from tenants.lifecycle import create_tenant
from tenants.vectors.generations import ensure_layout, ensure_space
from tests.integration.api.server import SECRET, Server, running

# What the routes say is the same on every PostgreSQL.
pytestmark = pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True, scope="session")

DOCUMENT = document(Litestar(ROUTES, openapi_config=None))
OPERATIONS = [
    pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    # Where nothing is sent, nothing can be wrong.
    if mode is GenerationMode.POSITIVE or operation["parameters"] or "requestBody" in operation
]
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(database_url, tmp_path_factory.mktemp("api")) as started:
        yield started


@pytest.fixture(scope="module")
def key(database_url: str) -> str:
    """The key of a shop that may do everything."""

    async def make() -> str:
        database = Database(database_url, hot=0)
        tenant_id = await create_tenant(database, f"contract {uuid4()}")
        async with database.tenant_session(tenant_id) as conn:
            made = await create_key(
                conn,
                tenant_id,
                KeyRequest(name="contract"),
                scopes=SCOPES,
                secret=SECRET.encode(),
                cell="00",
                now=utc_now(),
            )
        async with database.system_session(reason="test set-up") as conn:
            text = await ensure_space(conn, name="test-text", kind="text", dim=384)
            image = await ensure_space(conn, name="test-image", kind="image", dim=256)
            await ensure_layout(conn, text, image)  # without encoders the server is not ready
        await database.close()
        return made.key

    return asyncio.run(make())


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_every_answer_is_one_of_the_document(
    server: Server, key: str, schema: Any, method: str, path: str, mode: GenerationMode
) -> None:
    """Whatever is sent, the status is listed, the body has its form, and nothing of ours breaks."""
    operation = schema[path][method]

    @settings(
        max_examples=8,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {key}"})
        # Beyond 64 KB of address the server itself refuses, before the application is asked.
        if len(answer.request.url or "") < 60_000:
            case.validate_response(answer, checks=CHECKS)

    call()

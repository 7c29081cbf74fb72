"""A real application over a real database, called over ASGI; shops with keys to call it with."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from msgspec import Struct

from api.app import Application, create_app
from api.recommend import recall, sampling
from infra.blob_folder import FolderBlobs
from infra.clock import Clock, ServerClock, utc_now
from infra.db import Database, TenantId
from infra.settings import Settings
from tenants.keys import SCOPES, KeyRequest, create_key
from tenants.lifecycle import create_tenant
from tenants.vectors.generations import ensure_layout, ensure_space

SECRET = "0123456789abcdef0123456789abcdef"


class Shop(Struct, frozen=True, kw_only=True):
    """A tenant and a client that signs with its secret key."""

    tenant_id: TenantId
    secret_key: str
    client: httpx.AsyncClient


MakeShop = Callable[[], Awaitable[Shop]]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No list falls back, and none is logged without its candidates, for the load of the machine."""
    monkeypatch.setattr(recall, "BUDGET_S", 30.0)
    monkeypatch.setattr(sampling, "BUDGET_S", 30.0)


@asynccontextmanager
async def started(
    database_url: str, folder: Path, *, machine: Clock = utc_now, **settings: Any
) -> AsyncIterator[Application]:
    """An application over this database, following the changes; what it writes by and by it writes when told.

    `machine`: the clock of the machine that it is on.
    """
    chosen = Settings(data_dir=folder, secret_key=SECRET, database_url=database_url, **settings)
    database = Database(database_url, hot=2, sessions=3, ingest=1, fair=True)
    clock = ServerClock(database, machine=machine)
    made = create_app(chosen, database, FolderBlobs(folder / "blobs"), clock=clock)
    await database.open()
    await clock.measure()
    async with database.system_session(reason="test set-up") as conn:
        text = await ensure_space(conn, name="test-text", kind="text", dim=384)
        await ensure_layout(conn, text, await ensure_space(conn, name="test-image", kind="image", dim=256))
    await made.services.feed.poll()
    await made.services.feed.start()
    made.services.answer_log.start()
    yield made
    await made.services.answering.close()
    await made.services.answer_log.close()
    await made.services.usage.close()
    await made.services.leases.close()
    await made.services.feed.close()
    await database.close()


@pytest.fixture
async def app(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Application]:
    """The application, started."""
    async with started(database_url, tmp_path) as made:
        yield made


@pytest.fixture
async def anonymous(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://kindred") as client:
        yield client


@pytest.fixture
async def make_shop(app: Application) -> AsyncIterator[MakeShop]:
    """Makes a tenant with a key that may do everything."""
    clients: list[httpx.AsyncClient] = []

    async def make() -> Shop:
        services = app.services
        tenant_id = await create_tenant(services.database, f"shop {uuid4()}", currency="EUR")
        async with services.database.tenant_session(tenant_id) as conn:
            made = await create_key(
                conn,
                tenant_id,
                KeyRequest(name="test"),
                scopes=SCOPES,
                secret=services.secret.current,
                cell="00",
                now=services.clock(),
            )
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://kindred",
            headers={"Authorization": f"Bearer {made.key}"},
        )
        clients.append(client)
        return Shop(tenant_id=tenant_id, secret_key=made.key, client=client)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def shop(make_shop: MakeShop) -> Shop:
    """One shop, empty."""
    return await make_shop()


@pytest.fixture
def client(shop: Shop) -> httpx.AsyncClient:
    """A client of one empty shop, signed with a key that may do everything."""
    return shop.client

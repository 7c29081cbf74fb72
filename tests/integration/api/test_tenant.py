"""DELETE /v1/tenant: shut off at once, had back within the grace, erased and certified afterwards."""

from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from api.app import Application
from api.auth import Authenticator, KeyUnknown
from infra.changes import ChangeFeed
from infra.db import Database, driver
from tenants.catalog.photos import photo_path
from tenants.certificates import CertificateInvalid, CertificateNotFound, get_certificate, verify
from tenants.deletion import find_deletion, undelete_tenant
from tenants.lifecycle import TenantNameTaken, TenantNotFound, create_tenant
from tests.integration.api.conftest import MakeShop, Shop
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio

GRACE = timedelta(days=7)


async def _name(app: Application, shop: Shop) -> str:
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        name: str = await (await driver(conn)).fetchval("select name from tenants where tenant_id = $1", shop.tenant_id)
    return name


async def _delete(shop: Shop, body: Any) -> httpx.Response:
    return await shop.client.request("DELETE", "/v1/tenant", json=body)


async def _upkeep(app: Application, *, days: float) -> int:
    now = app.services.clock() + timedelta(days=days)
    return await Upkeep(
        app.services.database, app.services.blobs, clock=lambda: now, secret=app.services.secret
    ).erase()


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x\n"}, {"name": 7}, {"name": "a", "now": True}, []])
async def test_a_deletion_without_the_name_is_refused(shop: Shop, body: Any) -> None:
    """422, and everything stays."""
    assert (await _delete(shop, body)).status_code == 422
    assert (await shop.client.get("/v1/items")).status_code == 200


async def test_another_name_deletes_nothing(app: Application, shop: Shop) -> None:
    """Neither one that is nearly right."""
    refused = await _delete(shop, {"name": (await _name(app, shop)) + " "})
    assert (refused.status_code, refused.json()["code"]) == (422, "tenant_name_differs")
    assert (await shop.client.get("/v1/items")).status_code == 200


async def test_only_an_admin_deletes(app: Application, shop: Shop, anonymous: httpx.AsyncClient) -> None:
    """A key without the scope is told so."""
    made = (await shop.client.post("/v1/keys", json={"name": "k"})).json()
    body = {"name": await _name(app, shop)}
    refused = await anonymous.request("DELETE", "/v1/tenant", json=body, headers={"x-api-key": made["key"]})
    assert refused.json()["code"] == "scope_missing"


async def test_the_keys_stop_everywhere_at_once(app: Application, shop: Shop, database: Database) -> None:
    """Here with the next request, elsewhere with the next poll of the feed, which comes every 50 ms."""
    feed = ChangeFeed(database)
    await feed.poll()
    other = Authenticator(database, feed, secret=app.services.secret, clock=app.services.clock)
    assert (await other.authenticate(shop.secret_key, None)).tenant_id == shop.tenant_id
    answer = await _delete(shop, {"name": await _name(app, shop)})
    assert answer.status_code == 202, answer.text
    assert (await shop.client.get("/v1/items")).json()["code"] == "key_unknown"
    await feed.poll()
    with pytest.raises(KeyUnknown):
        await other.authenticate(shop.secret_key, None)
    await feed.close()


async def test_the_photos_of_a_deleted_shop_are_on_no_page(app: Application, shop: Shop) -> None:
    """Also where the process has shown them before; with the shop they are back."""
    jpeg = b"\xff\xd8\xff x"
    await shop.client.put("/v1/items/a", json={"title": "Lamp"})
    await shop.client.put("/v1/items/a/images/0", content=jpeg, headers={"content-type": "image/jpeg"})
    path = photo_path(app.services.secret.current, shop.tenant_id, sha256(jpeg).hexdigest())
    assert (await shop.client.get(path)).content == jpeg
    await _delete(shop, {"name": await _name(app, shop)})
    gone = await shop.client.get(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "photo_not_found")
    deletion = await find_deletion(app.services.database, str(shop.tenant_id), now=app.services.clock())
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        await undelete_tenant(conn, deletion, now=app.services.clock())
    assert (await shop.client.get(path)).content == jpeg


async def test_photos_are_shown_while_the_database_is_away(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whether the shop was deleted; whoever has the address was given it."""

    async def away(*_: object) -> None:
        raise ConnectionRefusedError

    jpeg = b"\xff\xd8\xff x"
    await shop.client.put("/v1/items/a", json={"title": "Lamp"})
    await shop.client.put("/v1/items/a/images/0", content=jpeg, headers={"content-type": "image/jpeg"})
    path = photo_path(app.services.secret.current, shop.tenant_id, sha256(jpeg).hexdigest())
    monkeypatch.setattr(app.services.database, "fetch_scoped", away)
    assert (await shop.client.get(path)).content == jpeg


async def test_a_deletion_can_be_undone(app: Application, shop: Shop) -> None:
    """Within the grace, upkeep or not: the same keys, the same items, the same name."""
    name = await _name(app, shop)
    await shop.client.put("/v1/items/a", json={"title": "Lamp"})
    await _delete(shop, {"name": name})
    await _upkeep(app, days=6.9)
    now = app.services.clock()
    deletion = await find_deletion(app.services.database, name, now=now)
    assert deletion.erase_after - deletion.deleted_at == GRACE
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        noted = await (await driver(conn)).fetch(
            "select actor_kind, subject from audit where tenant_id = $1 and action = 'tenant.delete'", shop.tenant_id
        )
    assert [tuple(record) for record in noted] == [("key", str(shop.tenant_id))]
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        assert await undelete_tenant(conn, deletion, now=now) == name
    assert (await shop.client.get("/v1/items/a")).json()["title"] == "Lamp"
    with pytest.raises(TenantNotFound):
        async with app.services.database.tenant_session(shop.tenant_id) as conn:
            await undelete_tenant(conn, deletion, now=now)


async def test_a_name_taken_meanwhile_is_said(app: Application, shop: Shop) -> None:
    """Another name has it back all the same."""
    name = await _name(app, shop)
    await _delete(shop, {"name": name})
    await create_tenant(app.services.database, name)
    now = app.services.clock()
    deletion = await find_deletion(app.services.database, str(shop.tenant_id), now=now)
    with pytest.raises(TenantNameTaken):
        async with app.services.database.tenant_session(shop.tenant_id) as conn:
            await undelete_tenant(conn, deletion, now=now)
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        assert await undelete_tenant(conn, deletion, now=now, name=name + " again") == name + " again"
    assert (await shop.client.get("/v1/items")).status_code == 200


async def test_what_was_erased_is_certified(app: Application, make_shop: MakeShop) -> None:
    """Rows by table, files and bytes, signed; it names nobody, and nothing is left to have back."""
    shop = await make_shop()
    name = await _name(app, shop)
    await shop.client.post("/v1/items/bulk", json=[{"id": f"i{n}", "title": "Lamp"} for n in range(7)])
    await shop.client.put("/v1/users/mary@shop.example", json={"attributes": {"city": "Riga"}})
    await app.services.blobs.put(f"tenants/{shop.tenant_id}/imports/feed", b"12345")
    await _delete(shop, {"name": name})
    now = app.services.clock()
    deletion = await find_deletion(app.services.database, name, now=now)
    with pytest.raises(CertificateNotFound):
        await get_certificate(app.services.database, shop.tenant_id)
    assert await _upkeep(app, days=7.1) >= 1
    certificate = await get_certificate(app.services.database, shop.tenant_id)
    file = msgspec.json.format(msgspec.json.encode(certificate))
    erasure = verify(file, secrets=app.services.secret.every)
    assert (erasure.tenant_id, erasure.files, erasure.bytes) == (shop.tenant_id, 1, 5)
    assert (erasure.rows["items"], erasure.rows["users"], erasure.rows["tenants"]) == (7, 1, 1)
    assert (erasure.rows["api_keys"], erasure.deleted_at) == (1, deletion.deleted_at)
    for word in ("mary", "Riga", "Lamp", name):
        assert word not in file.decode()
    with pytest.raises(TenantNotFound):
        await find_deletion(app.services.database, str(shop.tenant_id), now=now)
    with pytest.raises(TenantNotFound):
        async with app.services.database.tenant_session(shop.tenant_id) as conn:
            await undelete_tenant(conn, deletion, now=now)


async def test_a_changed_certificate_does_not_hold(app: Application, shop: Shop, tmp_path: Path) -> None:
    """Not one digit, not another secret, and nothing that is none."""
    await _delete(shop, {"name": await _name(app, shop)})
    await _upkeep(app, days=8)
    good = msgspec.json.encode(await get_certificate(app.services.database, shop.tenant_id))
    assert verify(good, secrets=app.services.secret.every).tenant_id == shop.tenant_id
    for bad in (good.replace(b'\\"files\\":0', b'\\"files\\":1'), good[:-3], b"", b"[]", b"\xff", good.upper()):
        assert bad != good
        with pytest.raises(CertificateInvalid):
            verify(bad, secrets=app.services.secret.every)
    with pytest.raises(CertificateInvalid):
        verify(good, secrets=[b"x" * 32])

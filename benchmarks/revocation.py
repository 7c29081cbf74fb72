"""How long after it was acknowledged a change of what somebody may do still has not reached a process.

    python -m benchmarks.revocation [--rounds 30]

Three API processes, whose caches know the key or session from the call before. A key is revoked, or loses a scope, by a
call to the first; a member becomes one who only sees bills. Each process is asked, again and again, until it refuses.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import uvloop

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, percentile
from infra.db import Database, TenantId, driver
from infra.ids import uuid7
from infra.secret import load_secret
from tenants.accounts.email import hash_email
from tenants.accounts.organisations import add_organisation
from tenants.accounts.people import add_person
from tenants.accounts.sessions import SignedIn, begin_session
from tenants.accounts.signup import make_shop
from tenants.audit.log import SYSTEM

Headers = dict[str, str]
_PATH = "/v1/items?limit=1"


async def _until_refused(client: httpx.AsyncClient, headers: Headers, status: int, since: float) -> float:
    """Seconds from `since` to the sending of the first call that was refused."""
    while True:
        sent = time.perf_counter()
        answer = await client.get(_PATH, headers=headers)
        if answer.status_code == status:
            return sent - since
        assert answer.is_success, answer.text


async def _measure(
    replicas: list[httpx.AsyncClient], headers: Headers, status: int, change: Callable[[], Awaitable[object]]
) -> float:
    """The seconds of the slowest process."""
    for replica in replicas:
        (await replica.get(_PATH, headers=headers)).raise_for_status()
    await change()
    since = time.perf_counter()
    return max(await asyncio.gather(*(_until_refused(each, headers, status, since) for each in replicas)))


async def _keys(replicas: list[httpx.AsyncClient], admin: Headers, rounds: int) -> tuple[list[float], list[float]]:
    revoked, narrowed = [], []
    for _ in range(rounds):
        for found, status in ((revoked, 401), (narrowed, 403)):
            wanted = {"name": "short", "scopes": ["catalog:read", "recommend"]}
            made = (await replicas[0].post("/v1/keys", json=wanted, headers=admin)).raise_for_status().json()
            address = f"/v1/keys/{made['info']['key_id']}"

            async def change(status: int = status, address: str = address) -> None:
                less = {"scopes": ["recommend"]}
                answer = await (
                    replicas[0].delete(address, headers=admin)
                    if status == 401
                    else replicas[0].patch(address, json=less, headers=admin)
                )
                answer.raise_for_status()

            own = {"Authorization": f"Bearer {made['key']}"}
            found.append(await _measure(replicas, own, status, change))
    return revoked, narrowed


async def _session(database: Database, secret: bytes, now: datetime) -> tuple[UUID, Headers]:
    """A person with a shop, and a session of theirs."""
    person_id, org_id, tenant_id = uuid7(), uuid7(), TenantId(uuid7())
    email = f"{uuid4().hex}@shop.example"
    async with database.person_session(person_id, org_id=org_id, tenant_id=tenant_id) as conn:
        await add_person(conn, person_id, email, hash_email(secret, email), None, now=now)
        await add_organisation(conn, org_id, "Lumen", person_id, now=now)
        await make_shop(conn, org_id, tenant_id, email, currency="EUR", secret=secret, cell="00", now=now, actor=SYSTEM)
        signed_in = SignedIn(person_id=person_id, method="password", credentials=0)
        cookie = await begin_session(conn, signed_in, browser="", now=now)
    return person_id, {"Cookie": f"kindred={cookie}", "Kindred-Shop": str(tenant_id)}


async def _roles(replicas: list[httpx.AsyncClient], database: Database, secret: bytes, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        person_id, headers = await _session(database, secret, datetime.now(UTC))

        async def change(person_id: UUID = person_id) -> None:
            async with database.system_session(reason="change a role") as conn:
                await (await driver(conn)).execute(
                    "update members set role = 'billing' where person_id = $1", person_id
                )

        found.append(await _measure(replicas, headers, 403, change))
    return found


async def _run(rounds: int) -> list[Line]:
    with Stage(workers=False) as stage:
        tenant = stage.make_tenant()
        admin = {"Authorization": f"Bearer {tenant.secret_key}"}
        ports = [stage.settings.port, stage.start_second_api(), stage.start_second_api()]
        replicas = [
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) for port in ports
        ]
        database = stage.database(hot=0)
        revoked, narrowed = await _keys(replicas, admin, rounds)
        roles = await _roles(replicas, database, load_secret(stage.settings).current, rounds)
        await database.close()
        for replica in replicas:
            await replica.aclose()
    return [
        Line(
            f"{what}: the slowest of three processes, p50 · longest of {rounds}",
            f"{percentile(found, 0.5) * 1000:.0f} · {max(found) * 1000:.0f} ms",
            "≤ 1 s",
            max(found) <= 1,
        )
        for what, found in (("key revoked", revoked), ("scope taken away", narrowed), ("role changed", roles))
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    print_report("revocation", uvloop.run(_run(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()

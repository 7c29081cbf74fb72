"""What is taken out of reports and segments when a person is erased, and what stays as it is."""

from typing import Any, Final
from uuid import uuid4

import msgspec
import pytest

from infra.db import Database, TenantId, driver
from tenants.audience.traces import scrub
from tenants.catalog.imports import HISTORY_JOB
from tenants.jobs import create_job
from tenants.lifecycle import create_tenant
from tenants.portability.exports import ExportRequest

pytestmark = pytest.mark.anyio

REPORT: Final[dict[str, Any]] = {
    "stored": 7,
    "format": "csv",
    "types": {"view": 3, "quiz": 4},
    "columns": {"type": {"use": "field", "field": "type"}, "e": {"use": "dropped", "reason": "No such field."}},
}
STATE: Final = {"taken": 7, "claim": 1, "problem": "There is no field `e`.", "types": {"view": 3, "quiz": 4}}
FAULTS: Final = (
    ("/ts", "The line is not one JSON object."),
    ("/items/3", "Expected `object`, got `str`"),
    ("/e", "There is no field `e`."),
    ("/context/e", "Expected `str`, got `int`"),
    ("/ts", '"e" is not a time, but "eve" is.'),
)


async def left(database: Database, *ids: str) -> tuple[dict[str, Any], dict[str, Any], str, list[tuple[str, str]]]:
    """Report, state, error and faults of a shop's job after the erasure of these ids."""
    shop: TenantId = await create_tenant(database, f"shop {uuid4()}", currency="EUR")
    async with database.tenant_session(shop) as conn:
        raw = await driver(conn)
        job_id = await create_job(conn, shop, HISTORY_JOB, ExportRequest())
        await raw.execute(
            "update jobs set report = $2::text::jsonb, state = $3::text::jsonb, error = $4 where tenant_id = $1",
            shop,
            msgspec.json.encode(REPORT).decode(),
            msgspec.json.encode(STATE).decode(),
            STATE["problem"],
        )
        for seq, (pointer, message) in enumerate(FAULTS):
            await raw.execute(
                "insert into job_faults (tenant_id, job_id, seq, severity, code, pointer, message) "
                "values ($1, $2, $3, 'error', 'x', $4, $5)",
                shop,
                job_id,
                seq,
                pointer,
                message,
            )
        await scrub(raw, shop, ids)
        job = await raw.fetchrow("select report::text, state::text, error from jobs where tenant_id = $1", shop)
        faults = await raw.fetch("select pointer, message from job_faults where tenant_id = $1 order by seq", shop)
    return msgspec.json.decode(job[0]), msgspec.json.decode(job[1]), job[2], [tuple(fault) for fault in faults]


@pytest.mark.parametrize("user_id", ["stored", "csv", "view", "ts", "type", "3", "object", "claim", "a", "The line"])
async def test_a_report_is_not_of_who_is_called_as_a_word_in_it(database: Database, user_id: str) -> None:
    """Nor of whose id is a part of one."""
    assert await left(database, user_id) == (REPORT, STATE, STATE["problem"], list(FAULTS))


async def test_a_whole_id_is_taken_out_of_every_place_of_a_report(database: Database) -> None:
    """As the name of a column, a field or a type, and where a sentence quotes it."""
    report, state, error, faults = await left(database, "e", "quiz", "view")
    assert report == {
        **REPORT,
        "types": {"view": 3, "[erased]": 4},
        "columns": {"type": REPORT["columns"]["type"], "[erased]": REPORT["columns"]["e"]},
    }
    assert state == {**STATE, "problem": "There is no field `[erased]`.", "types": {"view": 3, "[erased]": 4}}
    assert error == "There is no field `[erased]`."
    assert faults == [
        *FAULTS[:2],
        ("/[erased]", "There is no field `[erased]`."),
        ("/context/[erased]", "Expected `str`, got `int`"),
        ("/ts", '"[erased]" is not a time, but "eve" is.'),
    ]

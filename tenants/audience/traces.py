"""What names a person beside the person's own rows: filters of segments, and reports on files of events.

Rewritten rather than removed, so that a shop keeps its segment and its report. Only whole ids are looked for: an id
inside a longer text of the shop's own (a note, an item's attribute) is the shop's to know of.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from infra.db import TenantId
from tenants.catalog.imports import HISTORY_JOB

ERASED: Final = "[erased]"
"""Stands where an id was; no shopper has it, for it is written into filters alone."""

# A fault quotes what it could not read, in its own words; the column's name may be an id where a file has no header.
_FAULTS: Final = """
update job_faults f set message = replace(f.message, $2, $3), pointer = replace(f.pointer, $2, $3),
    item_id = replace(f.item_id, $2, $3)
from jobs j where j.tenant_id = $1 and j.kind = $4 and f.tenant_id = $1 and f.job_id = j.job_id
and (strpos(f.message, $2) > 0 or strpos(f.pointer, $2) > 0 or strpos(f.item_id, $2) > 0)
"""

# In JSON an id stands between quotation marks: a part of a number, or of a longer text, is none.
_REPORTS: Final = """
update jobs set error = replace(error, $2, $5), report = replace(report::text, $3, $6)::jsonb,
    state = replace(state::text, $3, $6)::jsonb
where tenant_id = $1 and kind = $4 and (strpos(error, $2) > 0 or strpos(report::text, $3) > 0
    or strpos(state::text, $3) > 0)
"""


async def scrub(raw: Any, tenant_id: TenantId, ids: Sequence[str]) -> None:
    """Take these ids of erased shoppers out of what else names them. `raw` is of the tenant's session."""
    for external_id in ids:
        await raw.execute(_FAULTS, tenant_id, external_id, ERASED, HISTORY_JOB)
        quoted, erased = (msgspec.json.encode(text).decode() for text in (external_id, ERASED))
        await raw.execute(_REPORTS, tenant_id, external_id, quoted, HISTORY_JOB, ERASED, erased)
    for record in await raw.fetch(
        "select segment_id, filter::text as filter from segments where tenant_id = $1", tenant_id
    ):
        tree = msgspec.json.decode(record["filter"])
        if _take_out(tree, frozenset(ids)):
            await raw.execute(
                "update segments set filter = $3::text::jsonb where tenant_id = $1 and segment_id = $2",
                tenant_id,
                record["segment_id"],
                msgspec.json.encode(tree).decode(),
            )


def _take_out(tree: Any, ids: frozenset[str]) -> bool:
    """Replace the ids in every condition on `id`; whether there were any."""
    found = False
    if isinstance(tree, dict):
        for operator, operands in tree.items():
            if isinstance(operands, list) and operands[:1] == ["id"]:
                values = operands[1] if len(operands) > 1 else None
                if isinstance(values, list):
                    kept = [value for value in values if value not in ids]
                    if len(kept) < len(values):
                        # A filter names at least one value.
                        tree[operator] = ["id", kept or [ERASED]]
                        found = True
                elif values in ids:
                    tree[operator] = ["id", ERASED]
                    found = True
            elif operator in ("and", "or", "not"):
                found = _take_out(operands, ids) or found
    elif isinstance(tree, list):
        for each in tree:
            found = _take_out(each, ids) or found
    return found

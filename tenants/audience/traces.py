"""What names a person beside the person's own rows: filters of segments, and reports on files of events.

Rewritten rather than removed, so that a shop keeps its segment and its report. Only whole ids are looked for: an id
inside a longer text of the shop's own (a note, an item's attribute) is the shop's to know of. In a report an id stands
where a file had it in the place of a name (a column, a field, a type), or is quoted by a sentence.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from infra.db import TenantId
from infra.decode import pointer_part
from tenants.catalog.imports import HISTORY_JOB
from tenants.events.event import TYPES, Event, EventLine

ERASED: Final = "[erased]"
"""Stands where an id was; no shopper has it, for it is written into filters alone."""

_OURS: Final = TYPES.union(Event.__struct_fields__, EventLine.__struct_fields__)
"""Words that stand in every report: who is called so is not named by them."""

_QUOTED: Final = ('"{}"', "field `{}`")
"""How a sentence quotes a value, which it does no more, and a field that is not known."""

# The last part of a pointer is a name ($3, as a pointer spells it), or the place of an item.
_FAULTS: Final = """
update job_faults f set message = replace(replace(f.message, $4, $5), $6, $7),
    pointer = case when f.pointer = $2 then $8
        when right(f.pointer, length($3)) = $3 and f.pointer !~ '^/items/[0-9]+$'
        then left(f.pointer, -length($3)) || '/' || $8 else f.pointer end
from jobs j where j.tenant_id = $1 and j.kind = $9 and f.tenant_id = $1 and f.job_id = j.job_id
and (strpos(f.message, $4) > 0 or strpos(f.message, $6) > 0 or f.pointer = $2 or right(f.pointer, length($3)) = $3)
"""

# Held: the worker that reads the file writes to the row, too.
_JOBS: Final = """
select j.job_id, j.error, j.report::text as report, j.state::text as state from jobs j
where j.tenant_id = $1 and j.kind = $2 and exists (select 1 from unnest($3::text[], $4::text[]) g(id, in_json)
    where strpos(j.error, g.id) > 0 or strpos(j.report::text, g.in_json) > 0 or strpos(j.state::text, g.in_json) > 0)
order by j.job_id for update of j
"""


async def scrub(raw: Any, tenant_id: TenantId, ids: Sequence[str]) -> None:
    """Take these ids of erased shoppers out of what else names them. `raw` is of the tenant's session."""
    await _scrub_reports(raw, tenant_id, frozenset(ids) - _OURS)
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


async def _scrub_reports(raw: Any, tenant_id: TenantId, ids: frozenset[str]) -> None:
    for each in ids:
        pairs = [form.format(word) for form in _QUOTED for word in (each, ERASED)]
        await raw.execute(_FAULTS, tenant_id, each, "/" + pointer_part(each), *pairs, ERASED, HISTORY_JOB)
    in_json = [msgspec.json.encode(each).decode()[1:-1] for each in ids]
    for record in await raw.fetch(_JOBS, tenant_id, HISTORY_JOB, list(ids), in_json):
        report, state = msgspec.json.decode(record["report"]), msgspec.json.decode(record["state"])
        for each in (report, state):
            for names in ("columns", "types"):
                if names in each:
                    each[names] = _renamed(each[names], ids)
        if "problem" in state:
            state["problem"] = _reworded(state["problem"], ids)
        await raw.execute(
            "update jobs set error = $3, report = $4::text::jsonb, state = $5::text::jsonb "
            "where tenant_id = $1 and job_id = $2",
            tenant_id,
            record["job_id"],
            _reworded(record["error"], ids),
            msgspec.json.encode(report).decode(),
            msgspec.json.encode(state).decode(),
        )


def _renamed(named: dict[str, Any], ids: Collection[str]) -> dict[str, Any]:
    """The same with every name that is an id replaced; of counts, which may meet so, the sum."""
    made: dict[str, Any] = {}
    for name, value in named.items():
        key = ERASED if name in ids else name
        made[key] = made[key] + value if key in made and isinstance(value, int) else value
    return made


def _reworded(text: str | None, ids: Collection[str]) -> str | None:
    for each in ids if text else ():
        for form in _QUOTED:
            text = text and text.replace(form.format(each), form.format(ERASED))
    return text


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

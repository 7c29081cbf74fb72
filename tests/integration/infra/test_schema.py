"""The schema that the migrations make is the one that is written down in schema.txt.

`alembic check` compares with table classes, of which there are none. A change of the schema is seen in the diff of
schema.txt instead, and none is made unseen: a lost index or policy, a column that became nullable.
"""

import difflib
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from infra.roles import SYSTEM, role_url

pytestmark = pytest.mark.anyio

_SNAPSHOT: Final = Path(__file__).with_name("schema.txt")

# The partitions that are there are those of the day on which the database was made; their parents say the rest.
_TABLES: Final = """
select c.oid, c.relname, c.relrowsecurity, c.relforcerowsecurity, pg_get_userbyid(c.relowner) as owner,
    coalesce(pg_get_partkeydef(c.oid), '') as partitions
from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
order by c.relname
"""
_COLUMNS: Final = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as never_null,
    a.attidentity <> '' as numbered, pg_get_expr(d.adbin, d.adrelid) as value,
    case when a.attcollation <> t.typcollation then l.collname end as collation,
    case when a.attstorage <> t.typstorage then a.attstorage::text end as storage
from pg_attribute a join pg_type t on t.oid = a.atttypid
left join pg_collation l on l.oid = a.attcollation
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
# From version 18 on a column that is not null has a constraint that says so.
_CONSTRAINTS: Final = """
select conname as name, pg_get_constraintdef(oid) as definition from pg_constraint
where conrelid = $1 and contype <> 'n' order by 1
"""
_INDEXES: Final = """
select c.relname as name, pg_get_indexdef(i.indexrelid) as definition from pg_index i
join pg_class c on c.oid = i.indexrelid
where i.indrelid = $1 and not exists (select 1 from pg_constraint o where o.conindid = i.indexrelid) order by 1
"""
_POLICIES: Final = """
select policyname as name, cmd, array_to_string(roles, ', ') as roles, qual, with_check from pg_policies
where schemaname = 'public' and tablename = $1 order by 1
"""
_TRIGGERS: Final = """
select tgname as name, pg_get_triggerdef(oid) as definition from pg_trigger
where tgrelid = $1 and not tgisinternal order by 1
"""
_GRANTS: Final = """
select pg_get_userbyid(grantee) as role, string_agg(lower(privilege_type), ', ' order by privilege_type) as rights
from pg_class c cross join aclexplode(c.relacl)
where c.oid = $1 and grantee not in (0, c.relowner) group by grantee order by 1
"""
_FUNCTIONS: Final = """
select p.oid::regprocedure::text as name, pg_get_function_result(p.oid) as result, p.prosecdef as as_owner,
    l.lanname as language, md5(p.prosrc) as body,
    (select string_agg(pg_get_userbyid(grantee), ', ' order by pg_get_userbyid(grantee)) from aclexplode(p.proacl)
        where grantee <> p.proowner) as roles
from pg_proc p join pg_language l on l.oid = p.prolang
where p.pronamespace = 'public'::regnamespace
and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e') order by 1
"""


async def _schema(conn: Any) -> list[str]:
    lines: list[str] = []
    for table in await conn.fetch(_TABLES):
        secured = {(True, True): "forced", (True, False): "enabled"}.get(
            (table["relrowsecurity"], table["relforcerowsecurity"]), "off"
        )
        lines.append(f"table {table['relname']}  owner {table['owner']}, row-level security {secured}")
        if table["partitions"]:
            lines.append(f"    partition by {table['partitions']}")
        lines += [f"    {_column(column)}" for column in await conn.fetch(_COLUMNS, table["oid"])]
        for kind, query in (("constraint", _CONSTRAINTS), ("index", _INDEXES)):
            lines += [f"    {kind} {r['name']}: {r['definition']}" for r in await conn.fetch(query, table["oid"])]
        for policy in await conn.fetch(_POLICIES, table["relname"]):
            lines.append(f"    policy {policy['name']} for {policy['cmd'].lower()} to {policy['roles']}")
            for what, condition in (("using", policy["qual"]), ("with check", policy["with_check"])):
                if condition:
                    lines.append(f"        {what} {' '.join(condition.split())}")
        lines += [f"    trigger {r['name']}: {r['definition']}" for r in await conn.fetch(_TRIGGERS, table["oid"])]
        lines += [f"    grant {r['rights']} to {r['role']}" for r in await conn.fetch(_GRANTS, table["oid"])]
        lines.append("")
    for function in await conn.fetch(_FUNCTIONS):
        rights = "its owner's" if function["as_owner"] else "the caller's"
        lines.append(f"function {function['name']}  {function['language']}, with {rights} rights")
        lines.append(f"    returns {function['result']}")
        lines.append(f"    body {function['body']}, may be called by {function['roles'] or 'everybody'}")
    return lines


def _column(column: Any) -> str:
    parts = [column["name"], column["type"]]
    if column["collation"]:
        parts.append(f'collate "{column["collation"]}"')
    if column["storage"]:
        parts.append(f"storage {column['storage']}")
    if column["never_null"]:
        parts.append("not null")
    if column["numbered"]:
        parts.append("numbered")
    if column["value"]:
        parts.append(f"default {column['value']}")
    return " ".join(parts)


async def test_the_migrations_make_the_schema_that_is_written_down(fresh_database_url: str, tmp_path: Path) -> None:
    """In both versions of PostgreSQL; where it differs the message shows how, and where to find the new text."""
    conn = await asyncpg.connect(role_url(fresh_database_url, SYSTEM))
    try:
        made = "\n".join(await _schema(conn)) + "\n"
    finally:
        await conn.close()
    written = _SNAPSHOT.read_text() if _SNAPSHOT.exists() else ""
    if made != written:
        copy = tmp_path / "schema.txt"
        copy.write_text(made)
        diff = "\n".join(difflib.unified_diff(written.splitlines(), made.splitlines(), "written", "made", lineterm=""))
        pytest.fail(f"If the change is meant, replace tests/integration/infra/schema.txt by {copy}.\n{diff}")

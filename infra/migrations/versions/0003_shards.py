"""Which tenant has which shard of its own, how far its move got, and the lock that keeps writers in one shard."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "set local lock_timeout = '5s'",
    # Without a foreign key: the row outlives the tenant until its tables are dropped.
    # copied_from: the oldest transaction whose writes the copy may have missed; null until the copy is whole.
    """
    create table shards (
        shard smallint primary key generated always as identity (maxvalue 32767),
        tenant_id uuid not null unique,
        copied_from xid8,
        started_at timestamptz not null default now(),
        moved_at timestamptz,
        cleaned_at timestamptz
    )
    """,
    "alter table shards enable row level security",
    "alter table shards force row level security",
    "create policy every_row on shards to kindred_system using (true) with check (true)",
    "grant select, insert, update, delete on shards to kindred_system",
    # Not SELECT … FOR SHARE of the tenant's row: a stream of sharers lets nobody else in, and each marks the row.
    # Volatile plpgsql, so that the second statement sees what was committed while the first one waited.
    """
    create function hold_shard(tenant uuid, alone boolean default false) returns smallint
    language plpgsql volatile set search_path = pg_catalog, public
    as $$
    declare
        key constant bigint := hashtextextended('shard of ' || tenant::text, 0);
        held smallint;
    begin
        if alone then
            perform pg_advisory_xact_lock(key);
        else
            perform pg_advisory_xact_lock_shared(key);
        end if;
        select t.shard into held from public.tenants t where t.tenant_id = tenant;
        return held;
    end
    $$
    """,
    "revoke all on function hold_shard(uuid, boolean) from public",
    "grant execute on function hold_shard(uuid, boolean) to kindred_app, kindred_system",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)

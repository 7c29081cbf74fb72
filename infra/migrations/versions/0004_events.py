"""Shoppers, their events, and what is counted of them."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = """
alter table tenant_counters add column next_shopper_no int8 not null default 1;

-- kind: 0 a visitor, 1 a user. An unknown id in an event gets a row here. bucket_key: set at first sight, decides the
-- variant; on a merge the side first exposed wins. merged_into: the user that a visitor turned out to be.
create table shopper_ids (
    tenant_id uuid not null,
    shopper_no int8 not null,
    kind smallint not null,
    external_id text collate "C" not null,
    bucket_key int8 not null,
    merged_into int8,
    created_at timestamptz not null default now(),
    primary key (tenant_id, shopper_no),
    unique (tenant_id, kind, external_id)
);
create index shopper_ids_merged on shopper_ids (tenant_id, merged_into) where merged_into is not null;

create table users (
    tenant_id uuid not null,
    shopper_no int8 not null,
    segments text[] not null default '{}',
    attributes jsonb not null default '{}',
    seller_id text collate "C",
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant_id, shopper_no)
);

-- Saved filters over user fields and event counts.
create table segments (
    tenant_id uuid not null,
    segment_id text collate "C" not null,
    filter jsonb not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant_id, segment_id)
);

-- Keyed hashes of those who were erased; replayed after a restore.
create table erasures (
    tenant_id uuid not null,
    subject bytea not null,
    erased_at timestamptz not null default now(),
    primary key (tenant_id, subject)
);

-- One row per item of an event (line). event_no is a UUIDv7 of when it was received. flags: 1 a bot's.
create table events (
    tenant_id uuid not null,
    ts timestamptz not null,
    event_no uuid not null,
    line smallint not null default 0,
    type text collate "C" not null,
    shopper_no int8,
    item_no int,
    quantity real,
    price int8,
    value int8,
    currency text collate "C",
    order_id text collate "C",
    answer_id uuid,
    position smallint,
    placement text collate "C",
    session_id text collate "C",
    event_id text collate "C",
    rating real,
    flags smallint not null default 0,
    context jsonb
) partition by range (ts);
create index events_shopper on events (tenant_id, shopper_no, ts desc);
create index events_time on events (tenant_id, ts);

-- Which event ids were taken; week is the Monday of the week they came in. A repeat is looked for in two weeks.
create table event_seen (
    tenant_id uuid not null,
    event_id text collate "C" not null,
    week date not null,
    body_hash bytea not null,
    ts timestamptz not null,
    event_no uuid not null,
    primary key (tenant_id, event_id, week)
) partition by range (week);

-- What happened to an item in one minute.
create table item_minutes (
    tenant_id uuid not null,
    minute timestamptz not null,
    item_no int not null,
    impressions int not null default 0,
    clicks int not null default 0,
    views int not null default 0,
    carts int not null default 0,
    purchases int not null default 0,
    primary key (tenant_id, minute, item_no)
) partition by range (minute)
"""

_PARTITIONS = (
    # The smallest UUIDv7 of a moment: its milliseconds in the first 48 bits (RFC 9562).
    """
    create function first_uuid7(moment timestamptz) returns uuid
    language sql immutable set search_path = pg_catalog
    as $$ select rpad(lpad(to_hex((extract(epoch from moment) * 1000)::int8), 12, '0'), 32, '0')::uuid $$
    """,
    # DDL is the owner's; the function makes partitions of these tables and nothing else.
    """
    create function make_partition(parent text, first timestamptz, next timestamptz) returns boolean
    language plpgsql security definer set search_path = pg_catalog, public
    as $$
    declare
        part constant text := parent || '_' || to_char(first at time zone 'UTC', 'YYYYMMDD');
        key constant text := format_type(atttypid, null) from pg_attribute a join pg_partitioned_table p
            on p.partrelid = a.attrelid and a.attnum = p.partattrs[0]
            where a.attrelid = ('public.' || quote_ident(parent))::regclass;
    begin
        if parent not in ('events', 'event_seen', 'item_minutes', 'answers') then
            raise exception 'no partitions are made of %', parent;
        end if;
        if to_regclass('public.' || quote_ident(part)) is not null then
            return false;
        end if;
        execute format('create table public.%I partition of public.%I for values from (%s) to (%s)', part, parent,
            case when key = 'uuid' then quote_literal(first_uuid7(first)) else quote_literal(first) end,
            case when key = 'uuid' then quote_literal(first_uuid7(next)) else quote_literal(next) end);
        return true;
    end
    $$
    """,
    """
    create function drop_partition(parent text, first timestamptz) returns boolean
    language plpgsql security definer set search_path = pg_catalog, public
    as $$
    declare
        part constant text := parent || '_' || to_char(first at time zone 'UTC', 'YYYYMMDD');
    begin
        if parent not in ('events', 'event_seen', 'item_minutes', 'answers') then
            raise exception 'no partitions are dropped of %', parent;
        end if;
        if to_regclass('public.' || quote_ident(part)) is null then
            return false;
        end if;
        execute format('drop table public.%I', part);
        return true;
    end
    $$
    """,
    "revoke all on function first_uuid7(timestamptz) from public",
    "revoke all on function make_partition(text, timestamptz, timestamptz) from public",
    "revoke all on function drop_partition(text, timestamptz) from public",
    "grant execute on function make_partition(text, timestamptz, timestamptz) to kindred_system",
    "grant execute on function drop_partition(text, timestamptz) to kindred_system",
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table in ("shopper_ids", "users", "segments", "erasures", "events", "event_seen", "item_minutes"):
        for statement in own_rows(table):
            op.execute(statement)
    for statement in _PARTITIONS:
        op.execute(statement)

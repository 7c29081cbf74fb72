"""Shoppers, their events, and what is counted of them."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = """
-- Not in tenant_counters, whose row a bulk write of items locks for as long as it takes: a new visitor must not wait.
create table shopper_counters (
    tenant_id uuid primary key references tenants on delete cascade,
    next_shopper_no int8 not null default 1
);

-- kind: 0 a visitor, 1 a user. An unknown id in an event gets a row here. bucket_key: set at first sight, decides the
-- variant; on a merge the side first seen wins. merged_into: the user that a visitor turned out to be; the visitor's
-- events and answers were moved to that number in the same transaction, and late ones are by upkeep.
create table shopper_ids (
    tenant_id uuid not null,
    shopper_no int8 not null,
    kind smallint not null,
    external_id text collate "C" not null,
    bucket_key int8 not null,
    merged_into int8,
    merged_at timestamptz,
    created_at timestamptz not null default now(),
    primary key (tenant_id, shopper_no),
    unique (tenant_id, kind, external_id)
);
create index shopper_ids_merged on shopper_ids (tenant_id, merged_into) where merged_into is not null;
create index shopper_ids_merged_at on shopper_ids (merged_at) where merged_at is not null;

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

-- Keyed hashes of those who were erased; replayed after a restore. shopper_no: the number that stood for them, by
-- which upkeep finds what was written in the very moment of the erasure.
create table erasures (
    tenant_id uuid not null,
    subject bytea not null,
    shopper_no int8 not null,
    erased_at timestamptz not null default now(),
    primary key (tenant_id, subject)
);
create index erasures_late on erasures (erased_at);

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
-- body_hash is keyed, so that it tells nobody what it was of.
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
    # DDL is the owner's; the function makes partitions of these tables and nothing else. Made apart and attached:
    # `create table … partition of` would lock the parent against every reader.
    """
    create function make_partition(parent text, first timestamptz, next timestamptz) returns boolean
    language plpgsql security definer set search_path = pg_catalog, public set lock_timeout = '3s'
        set timezone = 'UTC' set datestyle = 'ISO'
    as $$
    declare
        part constant text := parent || '_' || to_char(first, 'YYYYMMDD');
        key constant text := format_type(atttypid, null) from pg_attribute a join pg_partitioned_table p
            on p.partrelid = a.attrelid and a.attnum = p.partattrs[0]
            where a.attrelid = ('public.' || quote_ident(parent))::regclass;
    begin
        if parent not in ('events', 'event_seen', 'item_minutes', 'answers') then
            raise exception 'no partitions are made of %', parent;
        end if;
        perform pg_advisory_xact_lock(hashtext('kindred partitions'));
        if to_regclass('public.' || quote_ident(part)) is not null then
            return false;
        end if;
        execute format('create table public.%I (like public.%I including all)', part, parent);
        execute format('alter table public.%I attach partition public.%I for values from (%L) to (%L)', parent, part,
            case key when 'uuid' then first_uuid7(first)::text when 'date' then first::date::text else first::text end,
            case key when 'uuid' then first_uuid7(next)::text when 'date' then next::date::text else next::text end);
        return true;
    end
    $$
    """,
    """
    create function drop_partition(parent text, first timestamptz) returns boolean
    language plpgsql security definer set search_path = pg_catalog, public set lock_timeout = '3s'
        set timezone = 'UTC'
    as $$
    declare
        part constant text := parent || '_' || to_char(first, 'YYYYMMDD');
    begin
        if parent not in ('events', 'event_seen', 'item_minutes', 'answers') then
            raise exception 'no partitions are dropped of %', parent;
        end if;
        perform pg_advisory_xact_lock(hashtext('kindred partitions'));
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


_INGEST = (
    # The ingest role may call this and touch no table: what it can do to other tenants' rows is what stands here.
    "create policy take on events for insert to kindred_owner with check (true)",
    "create policy take on event_seen to kindred_owner using (true) with check (true)",
    "create policy take on item_minutes to kindred_owner using (true) with check (true)",
    # One row per line of an event, of any tenants: t tenant, e event_no, l line, y type, m moment, s shopper, i item,
    # q quantity, p price, v value, c currency, o order, a answer, x position, w placement, z session, d event_id,
    # h hash of the body, g rating, f flags, k context. Returns the repeats of an event_id that were not taken, with
    # whether the body is that of the first. In the order of keys, so that two calls wait instead of dead-locking;
    # lateral with a limit, so that the look-up is an index probe whatever the statistics say; the plan is made once.
    """
    create function take_events(batch jsonb, moment timestamptz) returns table (event_no uuid, same_body boolean)
    language plpgsql security definer set search_path = pg_catalog, public set plan_cache_mode = force_generic_plan
    as $$
    #variable_conflict use_column
    declare
        this_week constant date := date_trunc('week', moment at time zone 'UTC')::date;
        last_week constant date := this_week - 7;
        repeats boolean;
    begin
        with r as materialized (
            select * from jsonb_to_recordset(batch) as r(
                t uuid, e uuid, l int2, y text, m timestamptz, s int8, i int, q real, p int8, v int8, c text, o text,
                a uuid, x int2, w text, z text, d text, h text, g real, f int2, k jsonb)
        ), firsts as (
            select distinct on (t, d) t, d, e, h, m from r where d is not null and l is null order by t, d, e
        ), seen as (
            insert into event_seen (tenant_id, event_id, week, body_hash, ts, event_no)
            select f.t, f.d, this_week, decode(f.h, 'hex'), f.m, f.e
            from firsts f left join lateral (
                select 1 as found from event_seen o
                where o.tenant_id = f.t and o.event_id = f.d and o.week = last_week limit 1) o on true
            where o.found is null order by f.t, f.d
            on conflict do nothing returning event_no
        ), kept as materialized (
            select r.* from r left join seen on seen.event_no = r.e where r.d is null or seen.event_no is not null
        ), stored as (
            insert into events (tenant_id, ts, event_no, line, type, shopper_no, item_no, quantity, price, value,
                currency, order_id, answer_id, position, placement, session_id, event_id, rating, flags, context)
            select t, m, e, coalesce(l, 0), y, s, i, q, p, v, c, o, a, x, w, z, d, g, coalesce(f, 0), k from kept
        ), counted as (
            insert into item_minutes as n (tenant_id, minute, item_no, impressions, clicks, views, carts, purchases)
            select t, date_trunc('minute', m), i, count(*) filter (where y = 'impression'),
                count(*) filter (where y = 'click'), count(*) filter (where y = 'view'),
                count(*) filter (where y = 'add_to_cart'), count(*) filter (where y = 'purchase')
            from kept where i is not null and f is null and m > moment - interval '1 day'
                and y in ('impression', 'click', 'view', 'add_to_cart', 'purchase')
            group by 1, 2, 3 order by 1, 2, 3
            on conflict (tenant_id, minute, item_no) do update set impressions = n.impressions + excluded.impressions,
                clicks = n.clicks + excluded.clicks, views = n.views + excluded.views,
                carts = n.carts + excluded.carts, purchases = n.purchases + excluded.purchases
        )
        select (select count(*) from r where d is not null and l is null) > (select count(*) from seen) into repeats;
        if repeats then
            -- Whose id was noted with another number than its own was not taken.
            return query
                select distinct on (r.e) r.e, o.body_hash = decode(r.h, 'hex')
                from jsonb_to_recordset(batch) as r(t uuid, e uuid, l int2, d text, h text)
                join lateral (select o.event_no, o.body_hash, o.week from event_seen o
                    where o.tenant_id = r.t and o.event_id = r.d and o.week in (this_week, last_week)) o on true
                where r.l is null and r.d is not null and o.event_no <> r.e order by r.e, o.week;
        end if;
    end
    $$
    """,
    "revoke all on function take_events(jsonb, timestamptz) from public",
    "grant execute on function take_events(jsonb, timestamptz) to kindred_ingest",
    # The caller's rights: row-level security holds, for the tenant that is set first, inside the same round trip.
    """
    create function number_ids(tenant uuid, kinds int2[], shoppers text[], buckets int8[], items text[])
    returns table (shopper_nos int8[], item_nos int4[])
    language plpgsql set search_path = pg_catalog, public
    as $$
    declare
        many int;
        first int8;
    begin
        perform set_config('app.tenant_id', tenant::text, true);
        select count(*) into many from unnest(kinds, shoppers) g(kind, id)
            left join lateral (select 1 as found from shopper_ids s
                where s.tenant_id = tenant and s.kind = g.kind and s.external_id = g.id limit 1) s on true
            where s.found is null;
        if many > 0 then
            insert into shopper_counters as c (tenant_id, next_shopper_no) values (tenant, 1 + many)
            on conflict (tenant_id) do update set next_shopper_no = c.next_shopper_no + many
            returning next_shopper_no - many into first;
            insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key)
            select tenant, first - 1 + row_number() over (order by g.kind, g.id), g.kind, g.id, g.bucket
            from unnest(kinds, shoppers, buckets) g(kind, id, bucket)
            left join lateral (select 1 as found from shopper_ids s
                where s.tenant_id = tenant and s.kind = g.kind and s.external_id = g.id limit 1) s on true
            where s.found is null
            order by g.kind, g.id on conflict do nothing;
        end if;
        select count(*) into many from unnest(items) g(id)
            left join lateral (select 1 as found from item_ids d
                where d.tenant_id = tenant and d.external_id = g.id limit 1) d on true
            where d.found is null;
        if many > 0 then
            update tenant_counters set next_item_no = next_item_no + many where tenant_id = tenant
            returning next_item_no - many into first;
            insert into item_ids (tenant_id, item_no, external_id)
            select tenant, first - 1 + row_number() over (order by g.id), g.id from unnest(items) g(id)
            left join lateral (select 1 as found from item_ids d
                where d.tenant_id = tenant and d.external_id = g.id limit 1) d on true
            where d.found is null
            order by g.id on conflict do nothing;
        end if;
        return query select
            array(select s.no from unnest(kinds, shoppers) with ordinality g(kind, id, at)
                left join lateral (select coalesce(s.merged_into, s.shopper_no) as no from shopper_ids s
                    where s.tenant_id = tenant and s.kind = g.kind and s.external_id = g.id limit 1) s on true
                order by g.at),
            array(select d.item_no from unnest(items) with ordinality g(id, at)
                left join lateral (select d.item_no from item_ids d
                    where d.tenant_id = tenant and d.external_id = g.id limit 1) d on true
                order by g.at);
    end
    $$
    """,
    "revoke all on function number_ids(uuid, int2[], text[], int8[], text[]) from public",
    "grant execute on function number_ids(uuid, int2[], text[], int8[], text[]) to kindred_app",
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table in (
        "shopper_counters",
        "shopper_ids",
        "users",
        "segments",
        "erasures",
        "events",
        "event_seen",
        "item_minutes",
    ):
        for statement in own_rows(table):
            op.execute(statement)
    for statement in (*_PARTITIONS, *_INGEST):
        op.execute(statement)

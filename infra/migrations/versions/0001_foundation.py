"""Tenants, keys, the catalogue, vectors, jobs and the change feed."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Every table that holds a tenant's rows. The policy is made with the table.
_TENANT_TABLES = (
    "tenants",
    "tenant_counters",
    "api_keys",
    "item_ids",
    "items",
    "item_facets",
    "item_attrs",
    "item_photos",
    "item_text",
    "item_vectors",
    "fused_vectors",
    "generations",
    "jobs",
    "job_faults",
    "import_seen",
    "changes",
)

_TABLES = """
create table tenants (
    tenant_id uuid primary key,
    name text collate "C" not null unique,
    plan text not null default 'free',
    currency text not null default 'USD',
    shard smallint not null default 0,
    active_gen int not null default 1,
    settings jsonb not null default '{}',
    created_at timestamptz not null default now(),
    deleted_at timestamptz
);

-- Numbers are handed out under this row's lock and never reused.
create table tenant_counters (
    tenant_id uuid primary key references tenants on delete cascade,
    next_item_no int not null default 1
);

create table api_keys (
    tenant_id uuid not null references tenants on delete cascade,
    key_id text collate "C" not null,
    kind text not null check (kind in ('secret', 'publishable')),
    name text not null,
    key_hash bytea not null unique,
    scopes text[] not null,
    placements text[],
    allowed_origins text[],
    rate_per_min int,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    primary key (tenant_id, key_id)
);

-- No foreign key from here to the items: a check per row costs a bulk write a third of its time, every writer goes
-- through tenants/catalog/store.py, and tenants/lifecycle.py removes a tenant's rows table by table.
create table item_ids (
    tenant_id uuid not null,
    item_no int not null,
    external_id text collate "C" not null,
    primary key (tenant_id, item_no),
    unique (tenant_id, external_id)
);

-- The document as the shop gave it, and where its encoding stands.
-- state: 0 pending, 1 done, 2 failed, 3 absent. due: not to be claimed before.
create table items (
    tenant_id uuid not null,
    item_no int not null,
    doc jsonb not null,
    content_hash bytea not null,
    text_hash bytea not null,
    image_hash bytea not null,
    text_version int not null default 1,
    image_version int not null default 1,
    text_state smallint not null,
    image_state smallint not null,
    text_attempts smallint not null default 0,
    image_attempts smallint not null default 0,
    text_due timestamptz not null default '-infinity',
    image_due timestamptz not null default '-infinity',
    text_reason text,
    image_reason text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, item_no)
);
create index items_text_pending on items (tenant_id, item_no) where text_state = 0;
create index items_image_pending on items (tenant_id, item_no) where image_state = 0;

-- The narrow row that filters and serving read; derived from the document.
create table item_facets (
    tenant_id uuid not null,
    item_no int not null,
    group_id text collate "C",
    brand text collate "C",
    seller_id text collate "C",
    price int8,
    sale_price int8,
    currency text collate "C" not null,
    availability smallint not null,
    hidden boolean not null,
    available_from timestamptz not null,
    expires_at timestamptz not null,
    language text collate "C",
    gtin text collate "C",
    created_at timestamptz not null,
    primary key (tenant_id, item_no)
);
create index item_facets_new on item_facets (tenant_id, created_at desc, item_no desc);
create index item_facets_brand on item_facets (tenant_id, brand, item_no) where brand is not null;
create index item_facets_seller on item_facets (tenant_id, seller_id, item_no) where seller_id is not null;
create index item_facets_price on item_facets (tenant_id, price, item_no) where price is not null;
create index item_facets_group on item_facets (tenant_id, group_id, item_no) where group_id is not null;

-- Many-valued fields: categories (every ancestor too), tags, attributes.x.
create table item_attrs (
    tenant_id uuid not null,
    item_no int not null,
    name text collate "C" not null,
    value_text text collate "C",
    value_num float8
);
create index item_attrs_item on item_attrs (tenant_id, item_no);
create index item_attrs_text on item_attrs (tenant_id, name, value_text, item_no) where value_text is not null;
create index item_attrs_num on item_attrs (tenant_id, name, value_num, item_no) where value_num is not null;

create table item_photos (
    tenant_id uuid not null,
    item_no int not null,
    position smallint not null,
    sha256 bytea not null,
    content_type text not null,
    size int not null,
    primary key (tenant_id, item_no, position),
    foreign key (tenant_id, item_no) references items on delete cascade
);

create table item_text (
    shard smallint not null default 0,
    tenant_id uuid not null,
    item_no int not null,
    words tsvector not null,
    primary key (tenant_id, item_no, shard)
) partition by list (shard);
create table item_text_shard_0 partition of item_text for values in (0);

-- Rows, so that a new encoder needs no DDL.
create table spaces (
    space_id smallint primary key generated always as identity,
    name text collate "C" not null unique,
    kind text not null check (kind in ('text', 'image')),
    dim smallint not null,
    created_at timestamptz not null default now()
);

-- What the halves of a fused row are.
create table layouts (
    layout_id smallint primary key generated always as identity,
    text_space smallint not null references spaces,
    image_space smallint not null references spaces,
    unique (text_space, image_space)
);

create table generations (
    tenant_id uuid not null references tenants on delete cascade,
    gen int not null,
    layout_id smallint not null references layouts,
    calibration jsonb not null,
    weights jsonb not null,
    status text not null check (status in ('filling', 'ready')),
    reason text not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, gen)
);

-- One raw vector per item and space: the source of truth.
create table item_vectors (
    tenant_id uuid not null,
    space_id smallint not null references spaces,
    item_no int not null,
    content_hash bytea not null,
    vec halfvec not null,
    encoded_at timestamptz not null default now(),
    primary key (tenant_id, space_id, item_no)
);
alter table item_vectors alter column vec set storage plain;

-- text || image of one item: one row serves every weight of the two.
create table fused_vectors (
    shard smallint not null default 0,
    tenant_id uuid not null,
    layout_id smallint not null,
    item_no int not null,
    text_space smallint not null,
    image_space smallint not null,
    vec halfvec not null,
    primary key (tenant_id, layout_id, item_no, shard)
) partition by list (shard);
create table fused_vectors_shard_0 partition of fused_vectors for values in (0);
alter table fused_vectors_shard_0 alter column vec set storage plain;
alter table fused_vectors alter column vec set storage plain;

create table jobs (
    tenant_id uuid not null references tenants on delete cascade,
    job_id uuid not null,
    kind text not null,
    status text not null check (status in ('queued', 'running', 'held', 'done', 'failed', 'cancelled')),
    total int,
    done int not null default 0,
    failed int not null default 0,
    payload jsonb not null,
    report jsonb not null default '{}',
    error text,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    primary key (tenant_id, job_id)
);

create table job_faults (
    tenant_id uuid not null,
    job_id uuid not null,
    seq int not null,
    line int,
    item_id text,
    severity text not null,
    code text not null,
    pointer text not null,
    message text not null,
    primary key (tenant_id, job_id, seq),
    foreign key (tenant_id, job_id) references jobs on delete cascade
);

-- Which items a full import has named, so that the others can be removed.
create table import_seen (
    tenant_id uuid not null,
    job_id uuid not null,
    item_no int not null,
    primary key (tenant_id, job_id, item_no),
    foreign key (tenant_id, job_id) references jobs on delete cascade
);

-- Written in the transaction of the change, polled by every API process.
create table changes (
    change_id bigint primary key generated always as identity,
    xid xid8 not null default pg_current_xact_id(),
    tenant_id uuid not null,
    kind text not null,
    ref text not null default '',
    at timestamptz not null default now()
);
create index changes_xid on changes (xid);
"""

_POLICIES = """
alter table {table} enable row level security;
alter table {table} force row level security;
create policy own_rows on {table} to kindred_app
    using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
    with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy every_row on {table} to kindred_system using (true) with check (true);
grant select, insert, update, delete on {table} to kindred_app, kindred_system;
"""

# Look-ups before the tenant is known: one row for one exact hash.
_FUNCTIONS = """
create policy look_up on api_keys for select to kindred_owner using (true);
create policy look_up on tenants for select to kindred_owner using (true);

create function find_key(hash bytea)
returns table (
    tenant_id uuid, key_id text, kind text, scopes text[], placements text[], allowed_origins text[],
    rate_per_min int, expires_at timestamptz, revoked_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select k.tenant_id, k.key_id, k.kind, k.scopes, k.placements, k.allowed_origins,
           k.rate_per_min, k.expires_at, k.revoked_at
    from public.api_keys k join public.tenants t on t.tenant_id = k.tenant_id and t.deleted_at is null
    where k.key_hash = hash
$$;
revoke all on function find_key(bytea) from public;
grant execute on function find_key(bytea) to kindred_app;

grant select on spaces, layouts, alembic_version to kindred_app, kindred_system;
grant insert on spaces, layouts to kindred_system;
grant usage on all sequences in schema public to kindred_app, kindred_system;
"""


def upgrade() -> None:
    # asyncpg takes one statement at a time; none of ours has a semicolon inside but the function.
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table in _TENANT_TABLES:
        for statement in _POLICIES.format(table=table).split(";\n"):
            if statement.strip():
                op.execute(statement)
    for statement in _FUNCTIONS.split(";\n"):
        if statement.strip():
            op.execute(statement)

"""Placements, and the log of what was answered."""

from alembic import op

from infra.migrations.tenant_rows import insert_only, own_rows

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = """
create table placements (
    tenant_id uuid not null,
    placement_id text collate "C" not null,
    doc jsonb not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant_id, placement_id)
);

-- One row per answer: the training log, the A/B log and the usage record at once. answer_id is a UUIDv7, the API's
-- recommendation_id. kind: 0 recommend, 1 search, 2 rerank. shopper_no becomes null when the shopper is erased.
-- items, scores (in 1/10,000) and sources are in order of rank; bit 0 of a flag: a fallback.
create table answers (
    answer_id uuid not null,
    tenant_id uuid not null,
    kind smallint not null,
    placement text collate "C",
    strategy text collate "C" not null,
    shopper_no int8,
    key_id text collate "C" not null,
    gen int not null,
    variant text collate "C",
    request jsonb not null,
    items int4[] not null,
    scores int2[] not null,
    sources text[] not null,
    flags int2[] not null,
    candidates jsonb,
    took_us int not null,
    primary key (tenant_id, answer_id)
) partition by range (answer_id);
create index answers_shopper on answers (tenant_id, shopper_no) where shopper_no is not null;

-- The next moment at which an item comes or goes by itself: until then a cached answer may live.
create index item_facets_comes on item_facets (tenant_id, available_from) where available_from > '-infinity';
create index item_facets_goes on item_facets (tenant_id, expires_at) where expires_at < 'infinity'
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table in ("placements", "answers"):
        for statement in own_rows(table):
            op.execute(statement)
    for statement in insert_only("answers"):
        op.execute(statement)

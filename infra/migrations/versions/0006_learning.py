"""What is learned from behaviour: models, neighbours, vectors, popularity."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = """
-- A trained artefact: what it was made from, so that it can be made again, and how good it is. waiting: there was too
-- little to train on. retired: its rows are gone. readiness: what the shop has and lacks.
create table behaviour_models (
    tenant_id uuid not null references tenants on delete cascade,
    model int not null,
    status text not null check (status in ('training', 'ready', 'waiting', 'failed', 'retired')),
    code_version text not null,
    window_from timestamptz,
    window_to timestamptz,
    counts jsonb not null default '{}',
    content_hash bytea,
    sha256 bytea,
    settings jsonb not null default '{}',
    metrics jsonb not null default '{}',
    readiness jsonb not null default '[]',
    created_at timestamptz not null default now(),
    primary key (tenant_id, model)
);

-- What a generation takes from behaviour: the model, and the build of precomputed neighbours. blend: the weight of
-- each source.
alter table generations add column behaviour_model int, add column neighbours_build int;

-- The nearest of each item, in order. kind: 1 content, 2 photos, 3 graph, 4 bought together, 5 also viewed,
-- 6 item_cf. build is the model for what is learned, a number of its own for content. Scores in 1/32767.
create table item_neighbours (
    tenant_id uuid not null,
    kind smallint not null,
    build int not null,
    item_no int not null,
    others int4[] not null,
    scores int2[] not null,
    primary key (tenant_id, kind, build, item_no)
);

-- watermark: items encoded later are not among the neighbours, and are merged in by an exact scan. recipe: a hash of
-- the layout, calibration and weights they were found with; another one asks for another build.
create table neighbour_builds (
    tenant_id uuid not null,
    build int not null,
    layout_id smallint not null,
    recipe bytea not null,
    watermark timestamptz not null,
    items int not null,
    status text not null check (status in ('building', 'ready')),
    created_at timestamptz not null default now(),
    primary key (tenant_id, build)
);

create index item_vectors_encoded on item_vectors (tenant_id, encoded_at, item_no);

-- An item's place in behaviour space, borrowed in part from its likes in content where it has few events of its own.
create table behaviour_vectors (
    tenant_id uuid not null,
    model int not null,
    item_no int not null,
    own real not null,
    vec halfvec not null,
    primary key (tenant_id, model, item_no)
);
alter table behaviour_vectors alter column vec set storage plain;

-- popularity and trend in 0..1; segment '' is everybody. repurchase: days between two purchases of it by one shopper.
create table item_scores (
    tenant_id uuid not null,
    model int not null,
    segment text collate "C" not null default '',
    item_no int not null,
    popularity real not null,
    trend real not null,
    events int not null,
    repurchase_days real,
    primary key (tenant_id, model, segment, item_no)
);
create index item_scores_popular on item_scores (tenant_id, model, segment, popularity desc, item_no);
create index item_scores_trend on item_scores (tenant_id, model, segment, trend desc, item_no);

-- Shoppers of like taste, for user_cf.
create table shopper_neighbours (
    tenant_id uuid not null,
    model int not null,
    shopper_no int8 not null,
    others int8[] not null,
    scores int2[] not null,
    primary key (tenant_id, model, shopper_no)
)
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table in (
        "behaviour_models",
        "item_neighbours",
        "neighbour_builds",
        "behaviour_vectors",
        "item_scores",
        "shopper_neighbours",
    ):
        for statement in own_rows(table):
            op.execute(statement)

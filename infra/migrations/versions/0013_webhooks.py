"""Where tenants want to be told what happened, what happened, and how telling them went."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TABLES = """
-- secret: encrypted (infra/crypt.py); the previous one signs beside it until previous_until. failing_since: the first
-- failure since the last success. disabled_for: why it was disabled by us, and not by its owner.
create table webhook_endpoints (
    tenant_id uuid not null references tenants on delete cascade,
    endpoint_id uuid not null,
    url text collate "C" not null,
    events text[] not null,
    description text not null,
    enabled boolean not null,
    disabled_for text check (disabled_for in ('gone', 'failing')),
    disabled_at timestamptz,
    failing_since timestamptz,
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, endpoint_id)
);

-- What happened, once, to however many endpoints it is told. json, not jsonb: its bytes are what is signed.
create table webhook_events (
    tenant_id uuid not null,
    event_id uuid not null,
    type text collate "C" not null,
    data json not null,
    at timestamptz not null,
    primary key (tenant_id, event_id)
);
create index webhook_events_age on webhook_events (at);

-- That an endpoint is to be told of an event, or was. Without references: an endpoint that is deleted must not fail the
-- work that tells it something in the same moment. due: when it may be claimed; of one in hand, when its worker counts
-- as dead. attempts: all; earlier: those before it was last replayed. claim: numbers the claims.
create table webhook_deliveries (
    tenant_id uuid not null,
    endpoint_id uuid not null,
    event_id uuid not null,
    status text not null default 'pending' check (status in ('pending', 'delivered', 'failed')),
    attempts int not null default 0,
    earlier int not null default 0,
    claim int not null default 0,
    due timestamptz not null,
    created_at timestamptz not null,
    finished_at timestamptz,
    primary key (tenant_id, endpoint_id, event_id)
);
create index webhook_deliveries_due on webhook_deliveries (tenant_id, due, event_id) where status = 'pending';
create index webhook_deliveries_age on webhook_deliveries (created_at);

-- answer: the beginning of the body, as text.
create table webhook_attempts (
    tenant_id uuid not null,
    endpoint_id uuid not null,
    event_id uuid not null,
    attempt int not null,
    at timestamptz not null,
    status_code smallint,
    error text,
    answer text,
    duration_ms int not null,
    primary key (tenant_id, endpoint_id, event_id, attempt)
);
create index webhook_attempts_age on webhook_attempts (at);

-- That we disabled an endpoint. told_at: when somebody wrote to its owner.
create table webhook_notices (
    tenant_id uuid not null,
    notice_id uuid not null,
    endpoint_id uuid not null,
    reason text not null check (reason in ('gone', 'failing')),
    at timestamptz not null,
    told_at timestamptz,
    primary key (tenant_id, notice_id)
);
create index webhook_notices_untold on webhook_notices (at) where told_at is null
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table in (
        "webhook_endpoints",
        "webhook_events",
        "webhook_deliveries",
        "webhook_attempts",
        "webhook_notices",
    ):
        for statement in own_rows(table):
            op.execute(statement)

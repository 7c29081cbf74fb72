"""How much of its limits a tenant has used: rates, quotas of the month, and what it was told of them."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Unlogged: a rate is forgotten within minutes anyway, and its rows are written four times a second.
_TABLES = """
-- Where a rate limit of a tenant stands, for all API processes. full_at: the theoretical arrival time of GCRA, when
-- all of the limit is free again; since: the last use. Both in microseconds since 1970, by this database's clock.
create unlogged table rate_buckets (
    tenant_id uuid not null,
    bucket text collate "C" not null,
    full_at int8 not null,
    since int8 not null,
    primary key (tenant_id, bucket)
) with (fillfactor = 50);

-- The same of who has no key: client networks, and what they try. bucket is a keyed hash, no address.
create unlogged table stranger_buckets (
    bucket bytea primary key,
    full_at int8 not null,
    since int8 not null
) with (fillfactor = 50);

-- What a tenant has used of its plan in a month; period is the month's first day, in UTC. Not the bill, which is made
-- from the answer log: a process that is killed loses the last second of these.
create table usage_months (
    tenant_id uuid not null,
    period date not null,
    meter text collate "C" not null,
    used int8 not null,
    primary key (tenant_id, period, meter)
);

-- That a tenant has reached so many per cent of a quota, once a month and meter. told_at: when somebody wrote to it.
create table quota_notices (
    tenant_id uuid not null,
    period date not null,
    meter text collate "C" not null,
    percent smallint not null,
    used int8 not null,
    quota int8 not null,
    at timestamptz not null,
    told_at timestamptz,
    primary key (tenant_id, period, meter, percent)
);
create index quota_notices_untold on quota_notices (at) where told_at is null
"""

_STRANGERS = (
    "alter table stranger_buckets enable row level security",
    "alter table stranger_buckets force row level security",
    "create policy every_row on stranger_buckets to kindred_system using (true) with check (true)",
    "grant select, insert, update, delete on stranger_buckets to kindred_system",
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table in ("rate_buckets", "usage_months", "quota_notices"):
        for statement in own_rows(table):
            op.execute(statement)
    for statement in _STRANGERS:
        op.execute(statement)

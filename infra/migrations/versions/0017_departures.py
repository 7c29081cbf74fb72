"""What is remembered of people of a provider who deleted their accounts: the role that they come back with."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TABLE = """
-- identity_hash: keyed, of issuer and subject. role: what they were when they left; null where they belonged to the
-- organisation no more. A row goes when they come back, with the organisation, and after a year.
create table sso_departures (
    org_id uuid not null references organisations on delete cascade,
    identity_hash bytea not null,
    role text check (role in ('owner', 'admin', 'developer', 'analyst', 'billing')),
    left_at timestamptz not null,
    primary key (org_id, identity_hash)
);
create index sso_departures_left on sso_departures (left_at)
"""

_ORG = "(select nullif(current_setting('app.org_id', true), '')::uuid)"

_POLICIES = (
    "alter table sso_departures enable row level security",
    "alter table sso_departures force row level security",
    "create policy every_row on sso_departures to kindred_system using (true) with check (true)",
    f"create policy own_organisation on sso_departures to kindred_app "
    f"using (org_id = {_ORG}) with check (org_id = {_ORG})",
    "grant select, insert, update, delete on sso_departures to kindred_app, kindred_system",
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in (*_TABLE.split(";\n"), *_POLICIES):
        op.execute(statement)

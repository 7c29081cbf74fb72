"""Invitations that are open, so that they can be seen, counted and withdrawn; and the plans of an organisation."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TABLES = """
-- A row goes when somebody joins by it and when it is withdrawn. invited_by: null once that account is deleted.
create table invitations (
    invitation_id uuid primary key,
    org_id uuid not null references organisations on delete cascade,
    email text collate "C" not null,
    role text not null check (role in ('owner', 'admin', 'developer', 'analyst', 'billing')),
    invited_by uuid references people on delete set null,
    created_at timestamptz not null,
    expires_at timestamptz not null
);
create index invitations_organisation on invitations (org_id, created_at);
create index invitations_expired on invitations (expires_at);
create index invitations_inviter on invitations (invited_by) where invited_by is not null;

-- Of which invitation a link is. No reference: a link whose invitation is gone says that it was withdrawn.
alter table one_time_tokens add column invitation_id uuid;
create index one_time_tokens_invitation on one_time_tokens (invitation_id) where invitation_id is not null
"""

# Those whose links are out there. Before the table has policies, which would hide it from the owner.
_OPEN = (
    "update one_time_tokens set invitation_id = gen_random_uuid() "
    "where kind = 'invitation' and used_at is null and expires_at > now()",
    "insert into invitations (invitation_id, org_id, email, role, created_at, expires_at) "
    "select invitation_id, org_id, email, role, created_at, expires_at from one_time_tokens "
    "where invitation_id is not null",
)

_ORG = "(select nullif(current_setting('app.org_id', true), '')::uuid)"

_POLICIES = (
    "alter table invitations enable row level security",
    "alter table invitations force row level security",
    "create policy every_row on invitations to kindred_system using (true) with check (true)",
    f"create policy own_organisation on invitations to kindred_app "
    f"using (org_id = {_ORG}) with check (org_id = {_ORG})",
    "grant select, insert, update, delete on invitations to kindred_app, kindred_system",
)

_FUNCTIONS = (
    # With one more column; who reads by name is not disturbed.
    "drop function find_token(bytea)",
    """
create function find_token(hash bytea)
returns table (
    kind text, person_id uuid, signup_id uuid, org_id uuid, role text, email text, expires_at timestamptz,
    used_at timestamptz, invitation_id uuid
)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select t.kind, t.person_id, t.signup_id, t.org_id, t.role, t.email, t.expires_at, t.used_at, t.invitation_id
    from public.one_time_tokens t where t.token_hash = hash
$$
""",
    # An invitation that was sent again has several links, which are used up together.
    """
create or replace function spend_token(hash bytea, at timestamptz)
returns boolean
language sql security definer set search_path = pg_catalog, public
as $$
    with spent as (
        update public.one_time_tokens t set used_at = at
        where t.token_hash = hash and t.used_at is null and t.expires_at > at returning t.invitation_id
    ), others as (
        update public.one_time_tokens t set used_at = at from spent s
        where t.invitation_id = s.invitation_id and t.token_hash <> hash and t.used_at is null
    )
    select exists (select 1 from spent)
$$
""",
    """
create function plans_of_organisation()
returns table (plan text)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select t.plan from public.tenants t
    where t.org_id = nullif(current_setting('app.org_id', true), '')::uuid and t.deleted_at is null
$$
""",
)
_CALLED = ("find_token(bytea)", "plans_of_organisation()")


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for statement in (*_OPEN, *_POLICIES, *_FUNCTIONS):
        op.execute(statement)
    for function in _CALLED:
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to kindred_app")

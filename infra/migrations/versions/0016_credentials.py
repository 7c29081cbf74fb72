"""What a proof is of: the number of a person's credentials, changes of address that can be ended and taken back."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TABLES = """
-- How often the password or the address was replaced: what was proved before the last time opens nothing.
alter table people add column credentials int not null default 0;

-- email: the address that the link of this change makes the account's. While `made` is null that is the new one; from
-- then on, until the row ends, it is the one before. made: people.credentials as the change left them.
create table address_changes (
    change_id uuid primary key,
    person_id uuid not null references people on delete cascade,
    email text collate "C" not null,
    made int,
    asked_at timestamptz not null,
    expires_at timestamptz not null
);
create index address_changes_person on address_changes (person_id);
create index address_changes_expired on address_changes (expires_at);

-- Of which change a link is. No reference: a link whose change is gone says that it has ended.
alter table one_time_tokens add column change_id uuid;
alter table one_time_tokens drop constraint one_time_tokens_kind_check;
alter table one_time_tokens add constraint one_time_tokens_kind_check
    check (kind in ('verify', 'magic_link', 'reset', 'email_change', 'invitation', 'take_back'));

-- The session that gave the password, for one that is not confirmed.
alter table second_steps add column session_id uuid
"""

_PERSON = "(select nullif(current_setting('app.person_id', true), '')::uuid)"

_POLICIES = (
    "alter table address_changes enable row level security",
    "alter table address_changes force row level security",
    "create policy every_row on address_changes to kindred_system using (true) with check (true)",
    f"create policy own_person on address_changes to kindred_app "
    f"using (person_id = {_PERSON}) with check (person_id = {_PERSON})",
    "grant select, insert, update, delete on address_changes to kindred_app, kindred_system",
)

# With one more column, or two; who reads by name is not disturbed.
_FUNCTIONS = (
    "drop function find_person(bytea)",
    """
create function find_person(hash bytea)
returns table (person_id uuid, email text, password_hash text, credentials int)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select p.person_id, p.email, p.password_hash, p.credentials from public.people p where p.email_hash = hash
$$
""",
    "drop function find_token(bytea)",
    # credentials: the person's, in the moment in which the token was good.
    """
create function find_token(hash bytea)
returns table (
    kind text, person_id uuid, signup_id uuid, org_id uuid, role text, email text, expires_at timestamptz,
    used_at timestamptz, invitation_id uuid, change_id uuid, credentials int
)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select t.kind, t.person_id, t.signup_id, t.org_id, t.role, t.email, t.expires_at, t.used_at, t.invitation_id,
           t.change_id, p.credentials
    from public.one_time_tokens t left join public.people p on p.person_id = t.person_id where t.token_hash = hash
$$
""",
)
_CALLED = ("find_person(bytea)", "find_token(bytea)")


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for statement in (*_POLICIES, *_FUNCTIONS):
        op.execute(statement)
    for function in _CALLED:
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to kindred_app")

"""A second step for people who want one, and people whom an OpenID Connect provider vouches for."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TABLES = """
-- RFC 6238. sealed: the secret, encrypted under the installation's. confirmed_at: null until the first right code.
-- last_step: of the newest code that was taken; none of it or before is taken again.
create table second_steps (
    person_id uuid primary key references people on delete cascade,
    sealed bytea not null,
    last_step bigint not null default 0,
    created_at timestamptz not null,
    confirmed_at timestamptz
);

-- For who has lost the phone; each works once. code_hash: keyed.
create table recovery_codes (
    person_id uuid not null references second_steps on delete cascade,
    code_hash bytea not null,
    used_at timestamptz,
    primary key (person_id, code_hash)
);

-- Who a person is at an OpenID Connect provider, which never gives a subject to somebody else.
create table identities (
    issuer text collate "C" not null,
    subject text collate "C" not null,
    person_id uuid not null references people on delete cascade,
    created_at timestamptz not null,
    primary key (issuer, subject),
    unique (person_id, issuer)
);

-- The organisation that was made when the first person of a provider signed in; whoever comes later joins it.
create table sso_organisations (
    issuer text collate "C" primary key,
    org_id uuid not null references organisations on delete cascade,
    created_at timestamptz not null
)
"""

_PERSON = "(select nullif(current_setting('app.person_id', true), '')::uuid)"
_ORG = "(select nullif(current_setting('app.org_id', true), '')::uuid)"

# What a row hangs on that the application role sees and writes.
_OWN = {
    "second_steps": f"person_id = {_PERSON}",
    "recovery_codes": f"person_id = {_PERSON}",
    "identities": f"person_id = {_PERSON}",
    "sso_organisations": f"org_id = {_ORG}",
}

# Before anybody is known: one row for one exact name.
_FUNCTIONS = (
    "create policy look_up on identities for select to kindred_owner using (true)",
    "create policy look_up on sso_organisations for select to kindred_owner using (true)",
    """
create function find_identity(of_issuer text, of_subject text)
returns table (person_id uuid)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select i.person_id from public.identities i where i.issuer = of_issuer and i.subject = of_subject
$$
""",
    """
create function organisation_of_issuer(of_issuer text)
returns uuid
language sql stable security definer set search_path = pg_catalog, public
as $$
    select s.org_id from public.sso_organisations s where s.issuer = of_issuer
$$
""",
)
_CALLED = ("find_identity(text, text)", "organisation_of_issuer(text)")


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table, own in _OWN.items():
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(f"create policy every_row on {table} to kindred_system using (true) with check (true)")
        op.execute(f"create policy own on {table} to kindred_app using ({own}) with check ({own})")
        op.execute(f"grant select, insert, update, delete on {table} to kindred_app, kindred_system")
    for statement in _FUNCTIONS:
        op.execute(statement)
    for function in _CALLED:
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to kindred_app")

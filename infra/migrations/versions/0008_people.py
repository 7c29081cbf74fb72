"""People, the organisations they belong to, their sessions, one-time tokens, and the mails that wait to be sent."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = """
-- email as it was given (mails go there); email_hash: keyed, of its form without case, which makes it unique.
-- Whoever is here has proved that the address is theirs.
create table people (
    person_id uuid primary key,
    email text collate "C" not null,
    email_hash bytea not null unique,
    password_hash text,
    created_at timestamptz not null
);

create table organisations (
    org_id uuid primary key,
    name text not null,
    created_at timestamptz not null
);

create table members (
    org_id uuid not null references organisations on delete cascade,
    person_id uuid not null references people on delete cascade,
    role text not null check (role in ('owner', 'admin', 'developer', 'analyst', 'billing')),
    created_at timestamptz not null,
    primary key (org_id, person_id)
);
create index members_person on members (person_id, org_id);

-- Those of `kindred tenants create` belong to none. A name is of one shop within an organisation.
alter table tenants add column org_id uuid references organisations;
alter table tenants drop constraint tenants_name_key;
create unique index tenants_name on tenants (coalesce(org_id, '00000000-0000-0000-0000-000000000000'::uuid), name);
create index tenants_organisation on tenants (org_id) where org_id is not null;

-- An account that somebody asked for, until the address is proved. browser_hash: of the browser that asked.
create table signups (
    signup_id uuid primary key,
    email text collate "C" not null,
    email_hash bytea not null,
    password_hash text not null,
    shop_name text not null,
    currency text not null,
    browser_hash bytea,
    created_at timestamptz not null,
    expires_at timestamptz not null
);
create index signups_expired on signups (expires_at);

-- previous_hash: the secret before the last rotation, good until previous_until for requests that were under way.
create table sessions (
    session_id uuid primary key,
    person_id uuid not null references people on delete cascade,
    token_hash bytea not null unique,
    previous_hash bytea unique,
    previous_until timestamptz,
    method text not null,
    browser text not null,
    created_at timestamptz not null,
    seen_at timestamptz not null,
    rotated_at timestamptz not null,
    expires_at timestamptz not null
);
create index sessions_person on sessions (person_id, seen_at desc);

-- Made by the worker that sends the mail, so that the token itself is stored nowhere.
create table one_time_tokens (
    token_hash bytea primary key,
    kind text not null check (kind in ('verify', 'magic_link', 'reset', 'email_change', 'invitation')),
    person_id uuid references people on delete cascade,
    signup_id uuid references signups on delete cascade,
    org_id uuid references organisations on delete cascade,
    role text check (role in ('owner', 'admin', 'developer', 'analyst', 'billing')),
    email text collate "C",
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz
);
create index one_time_tokens_expired on one_time_tokens (expires_at);
create index one_time_tokens_person on one_time_tokens (person_id) where person_id is not null;

-- The outbox. about: what the mail's kind needs to know, never a token. due: not to be claimed before.
create table mails (
    mail_id uuid primary key,
    kind text not null,
    address text collate "C" not null,
    about jsonb not null default '{}',
    status text not null default 'queued' check (status in ('queued', 'sent', 'dropped', 'failed')),
    attempts smallint not null default 0,
    due timestamptz not null,
    created_at timestamptz not null,
    finished_at timestamptz
);
create index mails_due on mails (due, mail_id) where status = 'queued';
create index mails_finished on mails (finished_at) where status <> 'queued';

-- How often something was tried, by a keyed hash of who and what; `since` begins the span that is counted.
create table attempts (
    bucket bytea not null,
    since timestamptz not null,
    count int not null,
    primary key (bucket, since)
);
create index attempts_since on attempts (since)
"""

_PERSON = "(select nullif(current_setting('app.person_id', true), '')::uuid)"
_ORG = "(select nullif(current_setting('app.org_id', true), '')::uuid)"

# What the application role may see and write of each table. None: nothing, but for the functions below.
_POLICIES = {
    "people": (
        f"create policy own_person on people to kindred_app "
        f"using (person_id = {_PERSON}) with check (person_id = {_PERSON})",
        "grant select, insert, update, delete on people to kindred_app",
    ),
    "organisations": (
        f"create policy own_organisation on organisations to kindred_app "
        f"using (org_id = {_ORG}) with check (org_id = {_ORG})",
        f"create policy organisations_of_person on organisations for select to kindred_app using "
        f"(org_id in (select m.org_id from members m where m.person_id = {_PERSON}))",
        "grant select, insert, update, delete on organisations to kindred_app",
    ),
    "members": (
        f"create policy own_organisation on members to kindred_app "
        f"using (org_id = {_ORG}) with check (org_id = {_ORG})",
        f"create policy own_person on members for select to kindred_app using (person_id = {_PERSON})",
        "grant select, insert, update, delete on members to kindred_app",
    ),
    "sessions": (
        f"create policy own_person on sessions to kindred_app "
        f"using (person_id = {_PERSON}) with check (person_id = {_PERSON})",
        "grant select, insert, update, delete on sessions to kindred_app",
    ),
    # Anybody may ask for an account and for a mail; nobody of the application reads what others asked for.
    "signups": (
        "create policy ask on signups for insert to kindred_app with check (true)",
        "grant insert on signups to kindred_app",
    ),
    "mails": (
        "create policy ask on mails for insert to kindred_app with check (true)",
        "grant insert on mails to kindred_app",
    ),
    "one_time_tokens": (),
    "attempts": (),
}

# Before anybody is known: one row for one exact hash.
_FUNCTIONS = (
    "create policy look_up on people for select to kindred_owner using (true)",
    "create policy look_up on members for select to kindred_owner using (true)",
    "create policy look_up on signups for select to kindred_owner using (true)",
    "create policy look_up on sessions for select to kindred_owner using (true)",
    "create policy spend on one_time_tokens to kindred_owner using (true) with check (true)",
    "create policy count on attempts to kindred_owner using (true) with check (true)",
    """
create function find_person(hash bytea)
returns table (person_id uuid, email text, password_hash text)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select p.person_id, p.email, p.password_hash from public.people p where p.email_hash = hash
$$
""",
    """
create function find_session(hash bytea, at timestamptz)
returns table (
    session_id uuid, person_id uuid, email text, method text, created_at timestamptz, seen_at timestamptz,
    rotated_at timestamptz, expires_at timestamptz, newest boolean
)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select s.session_id, s.person_id, p.email, s.method, s.created_at, s.seen_at, s.rotated_at, s.expires_at,
           s.token_hash = hash
    from public.sessions s join public.people p on p.person_id = s.person_id
    where s.token_hash = hash or (s.previous_hash = hash and s.previous_until > at)
$$
""",
    """
create function find_token(hash bytea)
returns table (
    kind text, person_id uuid, signup_id uuid, org_id uuid, role text, email text, expires_at timestamptz,
    used_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select t.kind, t.person_id, t.signup_id, t.org_id, t.role, t.email, t.expires_at, t.used_at
    from public.one_time_tokens t where t.token_hash = hash
$$
""",
    """
create function find_signup(hash bytea)
returns table (signup_id uuid, email text, email_hash bytea, password_hash text, shop_name text, currency text,
    browser_hash bytea)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select s.signup_id, s.email, s.email_hash, s.password_hash, s.shop_name, s.currency, s.browser_hash
    from public.one_time_tokens t join public.signups s on s.signup_id = t.signup_id where t.token_hash = hash
$$
""",
    """
create function spend_token(hash bytea, at timestamptz)
returns boolean
language sql security definer set search_path = pg_catalog, public
as $$
    with spent as (
        update public.one_time_tokens t set used_at = at
        where t.token_hash = hash and t.used_at is null and t.expires_at > at returning 1
    )
    select exists (select 1 from spent)
$$
""",
    # A person's tokens of some kinds end with what made them stale: a new password, a new address.
    """
create function void_tokens(kinds text[], at timestamptz)
returns void
language sql security definer set search_path = pg_catalog, public
as $$
    update public.one_time_tokens t set expires_at = at
    where t.person_id = nullif(current_setting('app.person_id', true), '')::uuid and t.kind = any(kinds)
        and t.used_at is null and t.expires_at > at
$$
""",
    """
create function count_attempts(buckets bytea[], since timestamptz[])
returns table (bucket bytea, count int)
language sql security definer set search_path = pg_catalog, public
as $$
    insert into public.attempts as a (bucket, since, count)
    select b, s, 1 from unnest(buckets, since) as asked(b, s) order by b, s
    on conflict (bucket, since) do update set count = a.count + 1
    returning a.bucket, a.count
$$
""",
    """
create function shops_of_organisation()
returns table (tenant_id uuid, name text, currency text, created_at timestamptz)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select t.tenant_id, t.name, t.currency, t.created_at from public.tenants t
    where t.org_id = nullif(current_setting('app.org_id', true), '')::uuid and t.deleted_at is null
$$
""",
    """
create function people_of_organisation()
returns table (person_id uuid, email text, role text, created_at timestamptz)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select p.person_id, p.email, m.role, m.created_at
    from public.members m join public.people p on p.person_id = m.person_id
    where m.org_id = nullif(current_setting('app.org_id', true), '')::uuid
$$
""",
)
_CALLED = (
    "find_person(bytea)",
    "find_session(bytea, timestamptz)",
    "find_token(bytea)",
    "find_signup(bytea)",
    "spend_token(bytea, timestamptz)",
    "void_tokens(text[], timestamptz)",
    "count_attempts(bytea[], timestamptz[])",
    "shops_of_organisation()",
    "people_of_organisation()",
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for table, policies in _POLICIES.items():
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(f"create policy every_row on {table} to kindred_system using (true) with check (true)")
        op.execute(f"grant select, insert, update, delete on {table} to kindred_system")
        for statement in policies:
            op.execute(statement)
    for statement in _FUNCTIONS:
        op.execute(statement)
    for function in _CALLED:
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to kindred_app")

"""Requests that are sent again, and the audit log."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLES = """
-- What a request with an Idempotency-Key was answered, written in the transaction of its effect. request: a keyed hash
-- of the API key's id and that key; fingerprint: one of the method, the address and the body. answer is encrypted with
-- a key that the Idempotency-Key is part of, and that is stored nowhere.
create table idempotency (
    tenant_id uuid not null,
    request bytea not null,
    fingerprint bytea not null,
    answer bytea not null,
    created_at timestamptz not null,
    primary key (tenant_id, request)
);
create index idempotency_age on idempotency (created_at);

-- Who changed what. Shoppers are in it as keyed hashes alone, and so is the network that the caller came from.
create table audit (
    tenant_id uuid not null,
    audit_id uuid not null,
    at timestamptz not null,
    actor_kind text not null check (actor_kind in ('key', 'person', 'command', 'system')),
    actor text collate "C" not null,
    action text collate "C" not null,
    subject text collate "C" not null,
    details jsonb not null,
    network bytea,
    request_id text collate "C",
    primary key (tenant_id, audit_id)
);
create index audit_time on audit (tenant_id, at, audit_id);
create index audit_action on audit (tenant_id, action, at, audit_id);

-- Rows that are in no seal yet: whatever order their transactions commit in, each is sealed once.
create table audit_unsealed (
    tenant_id uuid not null,
    audit_id uuid not null,
    primary key (tenant_id, audit_id)
);

-- The chain. ids and digests (32 bytes each) are of the rows in order; hash is over them and the hash before.
create table audit_seals (
    tenant_id uuid not null,
    seal int not null,
    previous bytea not null,
    ids uuid[] not null,
    digests bytea not null,
    hash bytea not null,
    sealed_at timestamptz not null,
    primary key (tenant_id, seal)
);
create index audit_seals_age on audit_seals (sealed_at);

-- Answers of one request that was sent again carry the same mark, and are billed once.
alter table answers add column once bytea
"""

_TENANT = "(select nullif(current_setting('app.tenant_id', true), '')::uuid)"


def _added_to(table: str, app: str) -> tuple[str, ...]:
    """Rows that nobody changes, and that only the system takes away, with their tenant or after their time."""
    return (
        f"alter table {table} enable row level security",
        f"alter table {table} force row level security",
        f"create policy own_rows on {table} to kindred_app "
        f"using (tenant_id = {_TENANT}) with check (tenant_id = {_TENANT})",
        f"create policy every_row on {table} to kindred_system using (true) with check (true)",
        f"grant {app} on {table} to kindred_app",
        f"grant select, insert, delete on {table} to kindred_system",
        # By statement: row by row it would not fire for the owner, to whom row-level security shows no row.
        f"create trigger added_to_only before update or truncate on {table} "
        "for each statement execute function refuse_change()",
    )


_FUNCTIONS = (
    """
    create function refuse_change() returns trigger language plpgsql set search_path = pg_catalog
    as $$ begin raise exception '% is only ever added to', tg_table_name using errcode = 'restrict_violation'; end $$
    """,
    "revoke all on function refuse_change() from public",
    # The group commit of one tenant alone, inside a transaction of the application's own: what is stored with it,
    # the answer to be repeated, is committed with it.
    """
    create function take_own_events(batch jsonb, moment timestamptz) returns table (event_no uuid, same_body boolean)
    language plpgsql security definer set search_path = pg_catalog, public
    as $$
    begin
        if exists (select 1 from jsonb_to_recordset(batch) as r(t uuid)
            where r.t is distinct from nullif(current_setting('app.tenant_id', true), '')::uuid) then
            raise exception 'these events are of another tenant' using errcode = 'insufficient_privilege';
        end if;
        return query select * from take_events(batch, moment);
    end
    $$
    """,
    "revoke all on function take_own_events(jsonb, timestamptz) from public",
    "grant execute on function take_own_events(jsonb, timestamptz) to kindred_app",
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for statement in _FUNCTIONS:
        op.execute(statement)
    for statement in (
        *own_rows("idempotency"),
        *_added_to("audit", "select, insert"),
        *_added_to("audit_unsealed", "select, insert"),
        *_added_to("audit_seals", "select"),
    ):
        op.execute(statement)

"""Keys: which secret they are hashed under, when and from where they were last used; secrets of visitor tokens."""

from alembic import op

from infra.migrations.tenant_rows import own_rows

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = """
-- hashed_under: the mark of the secret that key_hash is keyed with, so that a secret can be changed; null: of before.
-- last_used_at: by the hour. last_used_from: the host of a page, or the hash of a network.
alter table api_keys add column hashed_under text, add column last_used_at timestamptz, add column last_used_from text;

-- What a shop's server signs visitor tokens with. The secret itself is derived from the installation's (derived_under
-- says from which), the tenant and the number, and is stored nowhere; numbers are never reused.
create table visitor_secrets (
    tenant_id uuid not null references tenants on delete cascade,
    secret_no int not null,
    derived_under text not null,
    created_at timestamptz not null,
    revoked_at timestamptz,
    primary key (tenant_id, secret_no)
)
"""

_FIND_KEY = """
create function find_key(hash bytea)
returns table (
    tenant_id uuid, key_id text, kind text, scopes text[], placements text[], allowed_origins text[],
    rate_per_min int, expires_at timestamptz, revoked_at timestamptz, hashed_under text
)
language sql stable security definer set search_path = pg_catalog, public
as $$
    select k.tenant_id, k.key_id, k.kind, k.scopes, k.placements, k.allowed_origins,
           k.rate_per_min, k.expires_at, k.revoked_at, k.hashed_under
    from public.api_keys k join public.tenants t on t.tenant_id = k.tenant_id and t.deleted_at is null
    where k.key_hash = hash
$$
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
    for statement in own_rows("visitor_secrets"):
        op.execute(statement)
    op.execute("drop function find_key(bytea)")
    op.execute(_FIND_KEY)
    op.execute("revoke all on function find_key(bytea) from public")
    op.execute("grant execute on function find_key(bytea) to kindred_app")

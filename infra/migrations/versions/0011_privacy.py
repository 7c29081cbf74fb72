"""Deleted tenants that can be had back for some days, and certificates of what was erased."""

from alembic import op

from infra.migrations.tenant_rows import system_rows

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# erase_after: of a deleted tenant, when its rows and files begin to go. former_name: what it is called again when the
# deletion is undone; null of one that a restore is filling, or was when it was killed.
# Without a foreign key: a certificate outlives its tenant. document is null until the last row is gone; files, bytes
# and counts (rows by table) grow in the transactions that erase.
_STATEMENTS = (
    "set local lock_timeout = '5s'",
    "alter table tenants add column erase_after timestamptz, add column former_name text",
    """
    create table erasure_certificates (
        tenant_id uuid primary key,
        deleted_at timestamptz not null,
        began_at timestamptz not null,
        counts jsonb not null default '{}',
        files int8 not null default 0,
        bytes int8 not null default 0,
        document text,
        signature bytea
    )
    """,
    *system_rows("erasure_certificates"),
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)

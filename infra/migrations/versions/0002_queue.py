"""What a worker needs to claim jobs: when one is due, how often it was tried, how far it got."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# due: not to be claimed before; of a running job, when its worker counts as dead.
# state: how far the job got, for whoever goes on with it; shown to nobody.
_STATEMENTS = (
    "set local lock_timeout = '5s'",
    "alter table jobs add column due timestamptz not null default '-infinity',"
    " add column attempts smallint not null default 0,"
    " add column fault_count int not null default 0,"
    " add column state jsonb not null default '{}'",
    "create index jobs_open on jobs (due, job_id) where status in ('queued', 'running')",
    "create index jobs_open_of_tenant on jobs (tenant_id, kind, job_id) where status in ('queued', 'running')",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)

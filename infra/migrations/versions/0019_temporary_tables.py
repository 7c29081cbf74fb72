"""Functions look into temporary tables last: in those of a caller, what runs is the caller's."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Where pg_temp is not named it comes first, for tables and types: a caller's temporary `event_seen`, with a trigger,
# ran as the owner. All of ours, the caller's too: what the owner's call is run by the owner. Not those of extensions.
_STATEMENT = """
do $$
declare
    each regprocedure;
begin
    for each in select p.oid from pg_proc p where p.pronamespace = 'public'::regnamespace
        and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    loop
        execute format('alter function %s set search_path = pg_catalog, public, pg_temp', each);
    end loop;
end
$$
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute(_STATEMENT)

"""Attempts that are not let in count for their network alone, not against the address that they name."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# The first `firm` buckets count every attempt. The others, in order of their names, count one that all buckets allow:
# each row is locked until then, so that no two attempts take one place. The counts are told with this attempt.
_ADMIT = """
create function admit_attempt(buckets bytea[], begins timestamptz[], allowed int[], firm int)
returns int[]
language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
    counts int[] := array_fill(1, array[cardinality(buckets)]);
    number int;
    passes boolean := true;
begin
    for i in 1 .. firm loop
        insert into public.attempts as a (bucket, since, count) values (buckets[i], begins[i], 1)
        on conflict (bucket, since) do update set count = a.count + 1
        returning a.count into number;
        counts[i] := number;
        passes := passes and number <= allowed[i];
    end loop;
    for i in firm + 1 .. cardinality(buckets) loop
        if passes then
            insert into public.attempts (bucket, since, count) values (buckets[i], begins[i], 0)
            on conflict (bucket, since) do nothing;
            select a.count + 1 into number from public.attempts a
            where a.bucket = buckets[i] and a.since = begins[i] for update;
        else
            number := 1 + coalesce(
                (select a.count from public.attempts a where a.bucket = buckets[i] and a.since = begins[i]), 0
            );
        end if;
        counts[i] := number;
        passes := passes and number <= allowed[i];
    end loop;
    if passes then
        update public.attempts a set count = a.count + 1
        from unnest(buckets[firm + 1 :], begins[firm + 1 :]) asked(bucket, begins)
        where a.bucket = asked.bucket and a.since = asked.begins;
    end if;
    return counts;
end
$$
"""
_SIGNATURE = "admit_attempt(bytea[], timestamptz[], int[], int)"


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute("drop function count_attempts(bytea[], timestamptz[])")
    op.execute(_ADMIT)
    op.execute(f"revoke all on function {_SIGNATURE} from public")
    op.execute(f"grant execute on function {_SIGNATURE} to kindred_app")

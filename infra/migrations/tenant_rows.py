"""The policies of a table that holds tenants' rows. Part of history: a changed form gets a function of its own."""

from collections.abc import Iterator

_TENANT = "(select nullif(current_setting('app.tenant_id', true), '')::uuid)"


def own_rows(table: str) -> Iterator[str]:
    """The statements that show a tenant its own rows alone, and the system role every row."""
    yield f"alter table {table} enable row level security"
    yield f"alter table {table} force row level security"
    yield (
        f"create policy own_rows on {table} to kindred_app "
        f"using (tenant_id = {_TENANT}) with check (tenant_id = {_TENANT})"
    )
    yield f"create policy every_row on {table} to kindred_system using (true) with check (true)"
    yield f"grant select, insert, update, delete on {table} to kindred_app, kindred_system"


def insert_only(table: str) -> Iterator[str]:
    """The statements that let the ingest role write rows of any tenant, and read none."""
    yield f"create policy insert_any on {table} for insert to kindred_ingest with check (true)"
    yield f"grant insert on {table} to kindred_ingest"


def system_rows(table: str) -> Iterator[str]:
    """The statements that show every row to the system role, and nothing to anybody else."""
    yield f"alter table {table} enable row level security"
    yield f"alter table {table} force row level security"
    yield f"create policy every_row on {table} to kindred_system using (true) with check (true)"
    yield f"grant select, insert, update, delete on {table} to kindred_system"

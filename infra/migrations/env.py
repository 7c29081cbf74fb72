"""Alembic's entry: runs migrations on the connection that infra/migrate.py hands over."""

from alembic import context

connection = context.config.attributes["connection"]
metadata = context.config.attributes.get("metadata")


def _ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
    """Partitions and the queue's own tables are not declared in tenants/models.py."""
    return not (kind == "table" and name is not None and (name.startswith("pgqueuer") or "_shard_" in name))


context.configure(
    connection=connection,
    target_metadata=metadata,
    include_object=_ours,
    transaction_per_migration=True,
    version_table="alembic_version",
)
with context.begin_transaction():
    context.run_migrations()

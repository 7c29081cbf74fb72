"""Migrations."""

from alembic.script import ScriptDirectory

from infra.migrate import config, head


def test_the_newest_revision_is_that_of_the_last_file() -> None:
    """Which Alembic finds by reading all of them, and an API process by their names."""
    assert head() == ScriptDirectory.from_config(config()).get_current_head()

"""docs/settings.md says what the code does."""

import re
from pathlib import Path

import pytest

from infra.settings import SETTINGS, BadSettings, Settings

_ROW = re.compile(r"^\| `([A-Z0-9_]+)` \| (?:`(.*)`|–) \| (.*) \|$", re.M)
_ROOT = Path(__file__).parents[2]


def test_the_table_is_the_code() -> None:
    """Every setting stands in the table with its default and what it does, and no other."""
    rows = _ROW.findall((_ROOT / "docs" / "settings.md").read_text())
    assert {name: (default, doc) for name, default, doc in rows} == dict(SETTINGS)


def test_unknown_and_malformed_settings_are_all_named() -> None:
    """One start tells every mistake."""
    with pytest.raises(BadSettings) as caught:
        Settings.from_env(
            {
                "KINDRED_PROT": "8000",
                "KINDRED_PORT": "eighty",
                "KINDRED_SECRET_KEY": "short",
                "DATABASE_URL": "mysql://x",
                "KINDRED_FETCH_ALLOW": "10.0.0.0/99",
                "PATH": "/bin",
            }
        )
    assert {fault.pointer for fault in caught.value.errors} == {
        "KINDRED_PROT",
        "KINDRED_PORT",
        "KINDRED_SECRET_KEY",
        "DATABASE_URL",
        "KINDRED_FETCH_ALLOW",
    }


def test_an_empty_value_counts_as_unset() -> None:
    """Compose files and charts pass empty strings for what nobody set."""
    assert Settings.from_env({"KINDRED_PORT": "", "DATABASE_URL": ""}) == Settings()

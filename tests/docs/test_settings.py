"""docs/settings.md says what the code does."""

import re
from pathlib import Path

import pytest

from infra.settings import SECRETS, SETTINGS, BadSettings, Settings

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


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_may_stand_in_a_file(name: str, tmp_path: Path) -> None:
    """As containers mount them, with a newline at the end."""
    scheme = "smtp" if "SMTP" in name else "postgresql"
    value = f"{scheme}://kindred@127.0.0.1/kindred" if "URL" in name else "s" * 32
    (tmp_path / "it").write_text(value + "\n")
    assert Settings.from_env({name + "_FILE": str(tmp_path / "it")}) == Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("content", "also", "said"),
    [(None, "", "cannot be read"), ("", "", "is empty"), ("short", "", "32 characters"), ("s" * 32, "t" * 32, "both")],
)
def test_a_bad_secret_file_is_named(tmp_path: Path, content: str | None, also: str, said: str) -> None:
    """By the setting, and without what stands in it."""
    if content is not None:
        (tmp_path / "it").write_text(content)
    environ = {"KINDRED_SECRET_KEY_FILE": str(tmp_path / "it"), "KINDRED_SECRET_KEY": also}
    with pytest.raises(BadSettings, match=said) as caught:
        Settings.from_env(environ)
    assert [fault.pointer for fault in caught.value.errors] == ["KINDRED_SECRET_KEY"]
    assert not content or content not in str(caught.value)


def test_only_secrets_have_files() -> None:
    """A typing error is not taken for one."""
    with pytest.raises(BadSettings, match="KINDRED_PORT_FILE is not a setting"):
        Settings.from_env({"KINDRED_PORT_FILE": "/x"})

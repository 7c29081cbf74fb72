"""SECURITY.md and docs/threat-model.md name what is there."""

import ast
import re
from typing import Final

from tests.installation import REPOSITORY

_MODEL: Final = (REPOSITORY / "docs" / "threat-model.md").read_text()
_NAMED: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _tests_of(path: str) -> set[str]:
    tree = ast.parse((REPOSITORY / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_proves_something_exists() -> None:
    """A renamed test is renamed on the page."""
    named = set(_NAMED.findall(_MODEL))
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if name not in _tests_of(path)]
    assert missing == []


def test_every_line_is_proved() -> None:
    """Each threat, and each of the ten of OWASP, has a test beside it."""
    proved, _, _ = _MODEL.partition("\n## What is not stopped")
    rows = [row for row in proved.splitlines() if row.startswith("| ") and "proved by" not in row]
    assert len(rows) > 25
    assert [row for row in rows if not _NAMED.search(row)] == []
    assert [number for number in range(1, 11) if f"| API{number} " not in proved] == []


def test_every_link_leads_somewhere() -> None:
    """Of both pages, within the repository."""
    for page in (REPOSITORY / "SECURITY.md", REPOSITORY / "docs" / "threat-model.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)

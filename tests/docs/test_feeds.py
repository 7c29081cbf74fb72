"""docs/feeds.md tells what the feed readers do."""

import re
from pathlib import Path

from workers.feeds.types import FORMATS

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "feeds.md").read_text(encoding="utf-8")
SOURCE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "workers" / "feeds").glob("*.py")))


def test_every_fault_code_is_documented() -> None:
    """A code that a reader gives stands in the table of what is rejected."""
    given = set(re.findall(r'\b(?:error|warning|fail|warn)\(\s*(?:[\w.\[\]]+,\s*)?"([a-z_]+)"', SOURCE))
    given |= set(re.findall(r'code="([a-z_]+)"', SOURCE)) | set(re.findall(r'"(bad_[a-z]+)"', SOURCE))
    assert len(given) > 30
    assert sorted(code for code in given if f"`{code}`" not in DOCS) == []


def test_every_format_is_documented() -> None:
    """A format that can be asked for has its row."""
    assert [name for name in FORMATS if f"`{name}`" not in DOCS] == []

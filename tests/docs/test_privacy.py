"""docs/privacy.md shows the table that upkeep enforces."""

import re
from pathlib import Path

from tenants.portability.dump import LEFT_OUT
from tenants.retention import CLASSES, markdown

_PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"


def test_the_page_shows_how_long_each_class_is_kept() -> None:
    """What fails here is ready to be pasted between the two marks."""
    (shown,) = re.findall(r"<!-- retention:[^\n]*-->\n(.*?)<!-- /retention -->", _PAGE.read_text(), re.DOTALL)
    assert shown.strip() == markdown().strip(), markdown()


def test_every_class_says_until_when() -> None:
    """By days, or in words."""
    assert [each.name for each in CLASSES if each.days is None and not each.note] == []
    assert [each.name for each in CLASSES if each.days is not None and not each.since] == []


def test_what_is_left_out_of_bundles_has_a_reason() -> None:
    """In words."""
    assert [table for table, reason in LEFT_OUT.items() if len(reason.split()) < 3] == []

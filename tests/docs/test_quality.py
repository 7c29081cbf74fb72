"""The figures of docs/quality.md are those of the committed cards."""

import importlib.util
from pathlib import Path

import pytest

from workers.evaluation.card import decode_card
from workers.evaluation.page import render_page

_FOLDER = Path(__file__).parents[2] / "docs" / "quality"
_CARDS = sorted(_FOLDER.glob("*.json"))


def test_every_table_was_made_from_the_cards() -> None:
    """After a new card, `python docs/quality/make.py tables` writes them anew."""
    spec = importlib.util.spec_from_file_location("quality_make", _FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    page = (_FOLDER.parent / "quality.md").read_text(encoding="utf-8")
    assert make.tables().strip() == page.split(make.BEGIN)[1].split(make.END)[0].strip()


@pytest.mark.parametrize("path", _CARDS, ids=lambda path: path.stem)
def test_a_card_can_be_read_and_drawn(path: Path) -> None:
    """With its split, its baselines and no path of the machine that made it."""
    card = decode_card(path.read_bytes())
    assert {"popularity", "random", "item_knn"} <= card.models.keys()
    assert "/" not in card.command
    assert "<svg" in render_page(card)

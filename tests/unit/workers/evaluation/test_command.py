"""`kindred evaluate`: its arguments, and what it leaves behind."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from infra.arguments import make_parser
from infra.settings import Settings
from workers.evaluation.card import decode_card
from workers.evaluation.command import BadEvaluation, options_of, run_command


def _parse(*words: str) -> object:
    return make_parser().parse_args(["evaluate", *words])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A small file of events."""
    path = tmp_path / "log.csv"
    lines = [f"u{s},i{(s + n) % 9},1,{1_600_000_000 + 1000 * n}" for s in range(30) for n in range(6)]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--interactions", "LOG", "--train", "LOG"],
        ["--train", "LOG"],
        ["--interactions", "/nowhere.csv"],
        ["--interactions", "LOG", "--k", "ten"],
        ["--interactions", "LOG", "--k", "0"],
        ["--interactions", "LOG", "--k", "201"],
        ["--interactions", "LOG", "--test-share", "1"],
        ["--interactions", "LOG", "--images-dir", "/nowhere"],
        ["--interactions", "LOG", "--out", "LOG"],
    ],
)
def test_contradictions_are_refused(log: Path, words: list[str]) -> None:
    """Before anything is read."""
    with pytest.raises(BadEvaluation):
        options_of(_parse(*[str(log) if word == "LOG" else word for word in words]))  # type: ignore[arg-type]


def test_a_card_and_a_page_are_written(log: Path, tmp_path: Path) -> None:
    """Into the folder asked for; the card's command names no folder of this machine."""
    words = ["--interactions", str(log), "--models", "graph", "--k", "5", "--out", str(tmp_path / "out")]
    console = Console(file=io.StringIO())
    assert run_command(Settings(), _parse(*words), console, ["--data-dir", "/d", "evaluate", *words]) == 0  # type: ignore[arg-type]
    card = decode_card((tmp_path / "out" / "card.json").read_bytes())
    assert card.models.keys() == {"graph", "popularity", "random", "item_knn"}
    assert card.command == "kindred evaluate --interactions log.csv --models graph --k 5 --out out"
    assert (tmp_path / "out" / "card.html").read_text().startswith("<!doctype html>")

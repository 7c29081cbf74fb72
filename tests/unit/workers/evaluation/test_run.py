"""A whole evaluation of a small shop with two tastes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from infra.settings import Settings
from tenants.learned.interactions import ItemVectors
from tenants.sources.statement import SOURCES
from workers.evaluation.card import Card, decode_card, encode_card
from workers.evaluation.page import render_page
from workers.evaluation.run import Options, UnknownModel, evaluate
from workers.evaluation.splits import CannotSplit


def _shop(folder: Path, *, times: bool = True) -> Path:
    """120 shoppers of two tastes over 40 items."""
    rng = np.random.default_rng(0)
    lines = []
    for shopper in range(120):
        own = rng.permutation(20)[:9] + 20 * (shopper % 2)
        for place, item in enumerate([*own, rng.integers(40)]):
            when = f"\t1\t{1_600_000_000 + 86_400 * (shopper % 7 + 10 * place)}" if times else ""
            lines.append(f"u{shopper}\ti{item}{when}")
    path = folder / "log.tsv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """By time, with repeats excluded."""
    folder = tmp_path_factory.mktemp("shop")
    return evaluate(Options(interactions=_shop(folder), out=folder / "out"), Settings())


def test_tastes_are_found(card: Card) -> None:
    """What shoppers have in common beats what sells, and the blend is not below chance of the best."""
    recall = {name: metrics["recall@10"].value for name, metrics in card.models.items()}
    assert recall["graph"] > 1.3 * recall["popularity"]
    assert recall["blend"] > 0.9 * max(recall.values())


def test_every_figure_has_its_interval_and_its_baselines(card: Card) -> None:
    """The mean lies inside; popularity, random and item-kNN stand beside it."""
    assert {"popularity", "random", "item_knn", "blend"} <= card.models.keys()
    for metrics in card.models.values():
        assert {"recall@10", "recall@20", "ndcg@20", "precision@10", "mrr@20", "hit@20"} <= metrics.keys()
        for found in metrics.values():
            assert found.low <= found.value <= found.high
    assert {claim.against for claim in card.claims if claim.model == "blend"} == card.models.keys() - {"blend"}


def test_a_card_says_what_it_is_of(card: Card) -> None:
    """Split with its dates, repeats, counts, versions; and reads back as it was written."""
    plain = json.loads(encode_card(card))
    assert set(plain["models"]["graph"]["recall@20"]) == {"value", "low", "high"}
    assert plain["split"]["kind"] == "time"
    assert plain["split"]["train_to"] < plain["split"]["test_from"]
    assert plain["repeats"] == "excluded"
    assert plain["counts"]["candidates"] == 40
    assert plain["code"]["kindred"]
    assert encode_card(decode_card(encode_card(card))) == encode_card(card)


def test_the_page_is_whole_and_fetches_nothing(card: Card) -> None:
    """Well formed plots, every placeholder filled, no address and no script."""
    page = render_page(card)
    assert "{{" not in page
    assert "http" not in page
    assert "<script" not in page
    assert all(words in page for words in card.about.values() if "α" not in words)
    assert "-0 %" not in page
    for plot in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")  # noqa: S314


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    """A card can be made again."""
    options = Options(interactions=_shop(tmp_path), out=tmp_path, models=("graph",), split="random")
    assert evaluate(options, Settings()).models == evaluate(options, Settings()).models


def test_a_given_split_is_taken_as_it_is(tmp_path: Path) -> None:
    """Items of the test that the shopper had met are not asked for; without times nothing is asked of them."""
    (tmp_path / "train.txt").write_text("0 1 2 3 4 5\n1 1 2 3 4 5 6\n2 1 2\n")
    (tmp_path / "test.txt").write_text("0 6 1 7 8 9\n2 3\n")
    options = Options(train=tmp_path / "train.txt", test=tmp_path / "test.txt", out=tmp_path, models=("graph",))
    found = evaluate(options, Settings())
    assert found.split.kind == "given"
    assert found.counts.shoppers_asked == 2
    assert found.counts.items_asked_for == 5
    assert found.models["graph"]["recall@20"].value == 1.0


def test_items_without_times_are_not_split_by_time(tmp_path: Path) -> None:
    """The error names the way out."""
    with pytest.raises(CannotSplit, match="--split random"):
        evaluate(Options(interactions=_shop(tmp_path, times=False), out=tmp_path), Settings())


@pytest.mark.parametrize("name", ["text", "repeat", "nonsense"])
def test_a_model_without_its_data_is_refused(tmp_path: Path, name: str) -> None:
    """By name, with what it needs."""
    with pytest.raises(UnknownModel, match=name):
        evaluate(Options(interactions=_shop(tmp_path), out=tmp_path, models=(name,)), Settings())


def test_a_single_shopper_is_refused(tmp_path: Path) -> None:
    """There is nothing to take an interval of."""
    path = tmp_path / "log.csv"
    path.write_text("user,item,ts\n" + "".join(f"u,i{n},{n}\n" for n in range(10)))
    with pytest.raises(CannotSplit, match="single shopper"):
        evaluate(Options(interactions=path, out=tmp_path), Settings())


def test_the_blend_draws_on_what_is_served_alone(card: Card) -> None:
    """Every weight is that of a source of the service, once."""
    assert card.blend is not None
    named = [card.blend["sources"][model] for model in card.blend["weights"]]
    assert set(named) <= SOURCES.keys()
    assert len(set(named)) == len(named)


def test_vectors_that_a_shop_holds_are_not_encoded_again(tmp_path: Path) -> None:
    """Text, photos and both are measured by them; items that are not encoded have none."""
    rng = np.random.default_rng(2)
    taste = np.repeat(np.eye(2), 20, axis=0)
    rows = (taste @ rng.normal(size=(2, 8)) + 0.3 * rng.normal(size=(40, 8))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stored = ItemVectors(
        ids=[f"i{n}" for n in range(40)] + ["unknown"],
        text=np.vstack([rows, rows[:1]]),
        image=np.vstack([rows[:, ::-1], rows[:1]]),
        text_weight=0.5,
        spaces={"text": "letters", "image": "looks"},
    )
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"id": f"i{n}", "title": f"item {n}"}) + "\n" for n in range(40)))
    options = Options(
        interactions=_shop(tmp_path), items=items, out=tmp_path, models=("text", "image", "fused"), stored=stored
    )
    found = evaluate(options, Settings(models_text="nowhere", models_image="nowhere"))
    for name in ("text", "image", "fused"):
        assert found.models[name]["recall@10"].value > 1.2 * found.models["random"]["recall@10"].value
    assert found.code["text space"] == "letters"
    assert found.code["image space"] == "looks"

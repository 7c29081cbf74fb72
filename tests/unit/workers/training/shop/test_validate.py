"""The choice of the space and the fit of the blend, on shops whose answer is known."""

import numpy as np
import pytest

from workers.training.behaviour.interactions import Interactions
from workers.training.shop.likes import Likes, lent_to, matrix_of
from workers.training.shop.validate import validate

DAY = 86_400


def taste_shop(shoppers: int, items: int, each: int, *, tastes: int) -> Interactions:
    """Shoppers who meet items of their taste alone, over 30 days."""
    rng = np.random.default_rng(1)
    shopper = np.repeat(np.arange(shoppers, dtype=np.int64), each)
    width = items // tastes
    item = shopper % tastes * width + rng.integers(0, width, len(shopper))
    return Interactions(
        shopper=shopper,
        item=item.astype(np.int32),
        weight=np.ones(len(shopper), np.float32),
        ts=rng.integers(0, 30 * DAY, len(shopper)),
    )


def test_where_taste_decides_behaviour_is_found_and_weighted() -> None:
    """Popularity, which knows no taste, finds less, and gets less weight."""
    found = validate(taste_shop(300, 80, 10, tastes=4), np.arange(80, dtype=np.int32), None)
    assert found is not None
    assert found.asked > 50
    assert found.recall[found.space] > 1.5 * found.recall["popular"]
    assert found.recall["blend"] >= 0.95 * max(found.recall[found.space], found.recall["popular"])
    assert found.blend[found.space] > found.blend.get("popular", 0)
    assert set(found.blend) <= {"graph", found.space, "popular"}


def test_further_models_are_sources_where_the_shop_is_ready_for_them() -> None:
    """Each with its recall, and in the blend by what it adds."""
    shop = taste_shop(300, 80, 10, tastes=4)
    found = validate(shop, np.arange(80, dtype=np.int32), None, {"item_cf", "user_cf"})
    assert found is not None
    assert {"item_cf", "user_cf"} <= found.recall.keys()
    assert found.recall["blend"] >= 0.95 * max(found.recall.values())


@pytest.mark.parametrize("each", [0, 1])
def test_nobody_to_ask_is_no_validation(each: int) -> None:
    """No events, or one of each shopper."""
    assert validate(taste_shop(30, 20, each, tastes=2), np.arange(20, dtype=np.int32), None) is None


def test_likes_lend_from_the_warm_alone() -> None:
    """The likest items with enough shoppers, weights that sum to 1, the likest most."""
    likes = Likes(
        item=np.array([5, 5, 5, 7], np.int32),
        other=np.array([6, 7, 8, 5], np.int32),
        score=np.array([0.9, 0.8, 0.6, 0.8], np.float32),
    )
    items = np.array([5, 6, 7, 8], np.int32)
    lent = lent_to(likes, items, np.array([0, 2, 9, 30], np.float32))
    assert lent.ids[0, :3].tolist() == [2, 3, -1]
    assert lent.scores[0].sum() == pytest.approx(1)
    assert lent.scores[0, 0] > lent.scores[0, 1] > 0
    assert not lent.scores[1].any()
    assert matrix_of(likes, items).toarray()[0].tolist() == pytest.approx([0, 0.9, 0.8, 0.6])

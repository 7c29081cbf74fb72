"""What a shopper met, bought or put into the cart stays out, however much and however long ago it was."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from infra.db import Database, driver
from infra.partitions import floor_to, make_partition
from tenants.sources.shopper import ShopperKey
from tests.integration.tenants.sources.conftest import NOW, Floor, floor, make_tenant, places

pytestmark = pytest.mark.anyio
__all__ = ["floor", "make_tenant"]

USER = ShopperKey(kind=1, id="ann")
LONG_AGO = 500.0
"""Days; longer than a year, shorter than events are kept."""


@pytest.fixture
async def old(floor: Floor, database: Database) -> Floor:
    """The shop, with a place for events of long ago."""
    async with database.system_session(reason="test set-up") as connection:
        month = floor_to("month", NOW - timedelta(days=LONG_AGO))
        await make_partition(await driver(connection), "events", "month", month)
    return floor


async def _popular(floor: Floor) -> None:
    await floor.scores({place: (1 - place / 100, 0.0, None) for place in range(40)})


async def test_more_than_a_history_that_was_bought_stays_out(floor: Floor) -> None:
    """Of 36 items bought, six more than count as history, none is in the list that leaves the history out."""
    await _popular(floor)
    await floor.events(USER, [("purchase", place, 1.0) for place in range(36)])
    found = await floor.find(["popular"], shopper=USER, leave_out="history", limit=40)
    assert places(found) == [36, 37, 38, 39]


async def test_what_was_bought_long_ago_stays_out(old: Floor) -> None:
    """So does its variant; what was only looked at as long ago is news again."""
    await _popular(old)
    await old.execute(
        "update item_facets set group_id = 'g' where tenant_id = $1 and item_no = any($2)",
        [old.numbers[0], old.numbers[1]],
    )
    await old.events(USER, [("purchase", 0, LONG_AGO), ("view", 2, LONG_AGO), ("view", 3, 2.0)])
    found = await old.find(["popular"], shopper=USER, leave_out="history", limit=40)
    assert places(found) == [2, *range(4, 40)]


async def test_what_is_due_to_be_bought_again_comes(floor: Floor) -> None:
    """Known to be bought again, after half the usual days; neither earlier, nor on a guess."""
    await _popular(floor)
    await floor.scores({5: (0.1, 0.0, 20.0), 6: (0.1, 0.0, 20.0)}, model=8)
    await floor.execute(
        "update item_scores set repurchase_days = 20 where tenant_id = $1 and item_no = any($2)",
        [floor.numbers[5], floor.numbers[6]],
    )
    bought = [("purchase", 5, 15.0), ("purchase", 6, 5.0), ("purchase", 7, 15.0)]
    await floor.events(USER, [*bought, ("purchase", 8, 15.0), ("purchase", 8, 30.0)])
    found = await floor.find(["popular", "buy_again"], shopper=USER, leave_out="history", limit=40)
    assert set(places(found)) == set(range(40)) - {6, 7}
    without = await floor.find(["popular"], shopper=USER, leave_out="history", limit=40)
    assert set(places(without)) == set(range(40)) - {5, 6, 7, 8}


async def test_the_item_asked_about_is_never_due(floor: Floor) -> None:
    """A list about an item does not answer with it."""
    await _popular(floor)
    await floor.events(USER, [("purchase", 8, 15.0), ("purchase", 8, 30.0)])
    asked = {"shopper": USER, "leave_out": "history", "limit": 40}
    assert 8 in places(await floor.find(["popular", "buy_again"], **asked))
    assert 8 not in places(await floor.find(["popular", "buy_again"], seeds=["8"], **asked))


@pytest.mark.parametrize(
    ("exclude", "left_out"),
    [("purchased", {1, 4}), ("in_cart", {2, 5}), ("seen", {1, 2, 3, 4, 5, 6})],
)
async def test_an_exclusion_holds_for_the_whole_history(old: Floor, exclude: str, left_out: set[int]) -> None:
    """However long ago, and however many impressions and views came since; in the fallback too."""
    await _popular(old)
    await old.events(USER, [("purchase", 1, LONG_AGO), ("add_to_cart", 2, LONG_AGO), ("view", 3, LONG_AGO)])
    await old.events(USER, [("purchase", 4, 40.0), ("add_to_cart", 5, 40.0), ("add_to_cart", 1, LONG_AGO + 1)])
    since: Sequence[tuple[str, int, float]] = [("view", 6, day / 100) for day in range(1200)]
    await old.events(USER, [*since, *(("impression", 7, day / 200) for day in range(3000))])
    asked = {"shopper": USER, "leave_out": "nothing", "limit": 40, exclude: True}
    for sources, fallback in ((["popular"], False), (["bought_together"], True)):
        found = await old.find(sources, fallback=fallback, **asked)
        assert set(places(found)) == set(range(40)) - left_out


@pytest.mark.parametrize("leave_out", ["nothing", "history"])
async def test_a_dislike_holds_for_a_year(old: Floor, leave_out: str) -> None:
    """However much was done since; after that the item may come again, in every list."""
    await old.events(USER, [("dislike", 3, LONG_AGO), ("dislike", 4, 40.0)])
    await old.events(USER, [("view", 6, day / 100) for day in range(1200)])
    found = await old.find(["popular"], shopper=USER, leave_out=leave_out, limit=40)
    assert {3, 4} & set(places(found)) == {3}


async def test_what_a_bot_bought_counts_as_nothing(floor: Floor) -> None:
    """A flagged purchase keeps nothing out."""
    await floor.events(USER, [("purchase", 3, 1.0)], flags=1)
    found = await floor.find(["popular"], shopper=USER, leave_out="history", purchased=True, limit=40)
    assert 3 in places(found)

"""The caches, against a shop that is written and read at random."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.recommend.cache import ADDED_S, LIFE_S, AnswerCache, Card, pieces
from api.recommend.log import Shown
from api.recommend.types import Answer, RecommendedItem
from infra.changes import ANY_ITEM, Change
from infra.db import TenantId
from tenants.sources.shopper import Mark

TENANT: Final = TenantId(UUID(int=1))
OTHER: Final = TenantId(UUID(int=2))
START: Final = datetime(2026, 1, 15, 12, tzinfo=UTC)
KEY: Final = (TENANT, 1, b"{}")


class Feed:
    """A change feed of which tests say what it tells."""

    def __init__(self) -> None:
        self.fresh = True
        self.tell: Callable[[Change], None] = lambda _: None
        self.reset: Callable[[], None] = lambda: None

    def subscribe(self, on_change: Callable[[Change], None], on_reset: Callable[[], None]) -> None:
        """As `ChangeFeed.subscribe`."""
        self.tell, self.reset = on_change, on_reset


class Bench:
    """A cache, its feed and its two clocks."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.feed = Feed()
        self.at = 1000.0
        self.cache = AnswerCache(self.feed, max_bytes=max_bytes, clock=lambda: self.at)  # type: ignore[arg-type]

    @property
    def now(self) -> datetime:
        """The wall clock."""
        return START + timedelta(seconds=self.at)

    def keep(
        self,
        listed: list[int],
        *,
        seeds: list[int] | None = None,
        until: datetime | None = None,
        key: tuple[TenantId, int, bytes] = KEY,
        version: int | None = None,
        mark: Mark | None = None,
    ) -> None:
        """Put a list in, as if it had just been made."""
        entry = self.cache.entry(
            encoded(listed),
            Shown(key[0], b"{"),
            level="answers",
            listed=listed,
            groups=[],
            seeds=seeds or [],
            until=until,
            mark=mark,
        )
        self.cache.put(key, entry, version=self.cache.version(key[0]) if version is None else version)

    def held(self, key: tuple[TenantId, int, bytes] = KEY) -> bool:
        """Whether the list would be given."""
        return self.cache.get(key, self.now, level="answers") is not None

    def change(self, ref: str, kind: str = "items", tenant_id: TenantId = TENANT) -> None:
        """A write is acknowledged."""
        self.feed.tell(Change(kind=kind, tenant_id=tenant_id, ref=ref))

    async def held_for(self, mark: Mark) -> bool:
        """Whether the list would be given to a shopper whose mark is this."""

        async def read(_: Mark) -> Mark:
            return mark

        return await self.cache.get_marked(KEY, self.now, read) is not None


def encoded(listed: list[int]) -> bytes:
    """An answer of these items."""
    items = [
        RecommendedItem(id=str(number), score=0.5, rank=rank, source="new", fallback=False, fields={"took_ms": 1.5})
        for rank, number in enumerate(listed, 1)
    ]
    answer = Answer(
        recommendation_id="x" * 36,
        items=items,
        model_version="g1",
        fallback_used=False,
        took_ms=3.25,
        cursor='"took_ms":9',
        warnings=['"took_ms":7'],
    )
    return msgspec.json.encode(answer)


def test_an_answer_is_put_together_again() -> None:
    """Only its id and its time change, whatever its texts look like."""
    bench = Bench()
    bench.keep([1, 2])
    entry = bench.cache.get(KEY, bench.now, level="answers")
    assert entry is not None
    again = msgspec.json.decode(entry.render("an-id", 0.5), type=Answer)
    first = msgspec.json.decode(encoded([1, 2]), type=Answer)
    assert again == msgspec.structs.replace(first, recommendation_id="an-id", took_ms=0.5)


def test_pieces_of_an_answer_that_ends_with_its_time() -> None:
    """Without cursor and warnings."""
    middle, tail = pieces(b'{"recommendation_id":"x","items":[],"took_ms":1.5}')
    assert (middle, tail) == (b'","items":[],"took_ms":', b"}")


@pytest.mark.parametrize("ref", ["2", "7", "5,2", ANY_ITEM])
def test_a_change_of_a_shown_item_or_seed_drops_the_answer(ref: str) -> None:
    """At once."""
    bench = Bench()
    bench.keep([1, 2, 3], seeds=[7])
    bench.change(ref)
    assert not bench.held()
    assert bench.cache.held_bytes == 0


def test_a_change_of_another_item_leaves_a_moment() -> None:
    """It might fit now."""
    bench = Bench()
    bench.keep([1, 2, 3])
    bench.at += 5
    bench.change("4")
    bench.at += ADDED_S - 1
    assert bench.held()
    bench.at += 1
    assert not bench.held()


def test_a_change_of_another_shop_changes_nothing() -> None:
    """Numbers are of one shop."""
    bench = Bench()
    bench.keep([1])
    for ref in ("1", ANY_ITEM, ""):
        bench.change(ref, tenant_id=OTHER)
    bench.at += 2 * ADDED_S
    assert bench.held()


@pytest.mark.parametrize("kind", ["tenant", "placement"])
def test_a_change_of_the_shop_drops_everything_of_it(kind: str) -> None:
    """And nothing of others."""
    bench = Bench()
    other = (OTHER, 1, b"{}")
    bench.keep([1])
    bench.keep([1], key=other)
    bench.change("", kind=kind)
    assert (bench.held(), bench.held(other)) == (False, True)


def test_what_was_read_before_a_change_is_not_kept() -> None:
    """The version is read before the data."""
    bench = Bench()
    version = bench.cache.version(TENANT)
    bench.change("9")
    bench.keep([1], version=version)
    assert not bench.held()


def test_an_answer_dies_of_age_and_at_its_boundary() -> None:
    """Whichever comes first."""
    bench = Bench()
    bench.keep([1], until=bench.now + timedelta(seconds=2))
    bench.at += 1.9
    assert bench.held()
    bench.at += 0.1
    assert not bench.held()
    bench.keep([1])
    bench.at += LIFE_S["answers"]
    assert not bench.held()


def test_nothing_is_believed_while_the_feed_is_old() -> None:
    """And after a reset there is nothing left."""
    bench = Bench()
    bench.keep([1])
    bench.feed.fresh = False
    assert not bench.held()
    bench.feed.fresh = True
    assert bench.held()
    bench.feed.reset()
    assert not bench.held()
    assert bench.cache.held_bytes == 0


def test_the_cache_stays_within_its_bytes() -> None:
    """The least recently used answer goes first."""
    bench = Bench(max_bytes=400_000)
    keys = [(TENANT, 1, b"%d" % number) for number in range(100)]
    for key in keys:
        bench.keep(list(range(10)), key=key)
        bench.held(keys[0])
    assert 0 < bench.cache.held_bytes <= 200_000
    assert bench.held(keys[0])
    assert not bench.held(keys[1])
    assert bench.held(keys[-1])


def test_a_card_goes_when_its_item_changes() -> None:
    """Others stay."""
    bench = Bench()
    cards = {number: Card(doc="{}", photos=None) for number in (1, 2)}
    bench.cache.put_cards(TENANT, cards, version=bench.cache.version(TENANT))
    bench.change("1")
    assert list(bench.cache.cards(TENANT, [1, 2])) == [2]


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3)),
        st.tuples(st.just("change"), st.integers(0, 9)),
        st.tuples(st.just("withdraw"), st.integers(0, 9)),
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("many"), st.integers(0, 9)),
        st.tuples(st.just("expire"), st.integers(1, 20)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 4, 11])),
    ),
    max_size=60,
)


@given(steps=_STEPS)
def test_no_answer_shows_what_is_no_longer_so(steps: list[tuple[str, int]]) -> None:
    """A shown item is there and as it is; what is missing was added a moment ago; whatever is written and read."""
    bench = Bench()
    price = dict.fromkeys(range(5), 0)
    added: dict[int, float] = {}
    gone_at: dict[int, float] = {}
    answers: dict[tuple[TenantId, int, bytes], dict[int, int]] = {}

    def shop() -> dict[int, int]:
        return {number: price[number] for number in price if bench.at < gone_at.get(number, float("inf"))}

    for step, value in steps:
        if step == "ask":
            key = (TENANT, 1, b"%d" % value)
            if not bench.held(key):
                answers[key] = {number: cost for number, cost in shop().items() if number % 4 <= value}
                boundaries = [moment for moment in gone_at.values() if moment > bench.at]
                until = START + timedelta(seconds=min(boundaries)) if boundaries else None
                bench.keep(list(answers[key]), key=key, until=until)
            now = {number: cost for number, cost in shop().items() if number % 4 <= value}
            assert all(now.get(number) == cost for number, cost in answers[key].items())
            missing = now.keys() - answers[key].keys()
            assert all(bench.at - added.get(number, 0.0) <= ADDED_S for number in missing)
        elif step == "change" and value in price:
            price[value] += 1
            bench.change(str(value))
        elif step == "withdraw" and value in price:
            del price[value]
            bench.change(str(value))
        elif step == "add" and value not in price:
            price[value], added[value] = 0, bench.at
            gone_at.pop(value, None)
            bench.change("")
        elif step == "many":
            for number in price:
                price[number] += 1
            bench.change(ANY_ITEM)
        elif step == "expire" and price:
            number = min(price)
            gone_at[number] = bench.at + value
            bench.change(str(number))
        elif step == "wait":
            bench.at += value


@pytest.mark.anyio
async def test_a_shoppers_list_lives_as_long_as_the_mark_stays() -> None:
    """Whatever the shopper did changes the mark."""
    bench = Bench()
    bench.keep([1], mark=Mark(5, "5|2 events", "purchases"))
    assert await bench.held_for(Mark(5, "5|2 events", "purchases"))
    assert not await bench.held_for(Mark(5, "5|3 events", "purchases"))


@pytest.mark.anyio
async def test_an_erased_shopper_is_in_no_memory() -> None:
    """Nor is a list kept that was being made meanwhile."""
    bench = Bench()
    mark = Mark(5, "5|2 events", "purchases")
    version = bench.cache.version(TENANT)
    bench.keep([1], mark=mark)
    bench.change("6", kind="shopper")
    assert len(bench.cache) == 1
    bench.change("5", kind="shopper")
    assert len(bench.cache) == 0
    bench.keep([1], mark=mark, version=version)
    assert len(bench.cache) == 0

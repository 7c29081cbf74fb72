"""Was my event taken, joined, ignored, and why."""

from typing import Any

import pytest

from tests.integration.api.conftest import Shop

pytestmark = pytest.mark.anyio

VISITOR = "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61"


async def events(shop: Shop, **query: Any) -> list[dict[str, Any]]:
    """What the inspector shows."""
    answer = await shop.client.get("/v1/events", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


async def send(shop: Shop, *given: dict[str, Any]) -> None:
    """Events that are all taken."""
    answer = await shop.client.post("/v1/events", json={"events": list(given)})
    assert answer.json()["accepted"] == len(given), answer.text


async def test_an_event_is_found_by_its_id(shop: Shop) -> None:
    """With all that it said, and when it came."""
    await shop.client.put("/v1/items/i", json={"title": "lamp"})
    sent = {"event_id": "e", "type": "view", "item_id": "i", "user_id": "u", "position": 3, "context": {"page": "home"}}
    await send(shop, sent)
    (seen,) = await events(shop, event_id="e")
    assert {name: seen[name] for name in sent} == sent
    assert (seen["item_known"], seen["learned"], seen["notes"]) == (True, True, [])


async def test_it_says_what_is_not_joined_or_not_learned_from(shop: Shop) -> None:
    """An item that is to come, nobody's event, a type of the shop's own, a bot."""
    await send(
        shop,
        {"event_id": "1", "type": "quiz_done", "item_id": "unknown"},
        {"event_id": "2", "type": "view", "item_id": "i", "user_id": "u", "context": {"user_agent": "Googlebot"}},
    )
    (one,) = await events(shop, event_id="1")
    assert (one["item_known"], one["learned"], len(one["notes"])) == (False, True, 3)
    (two,) = await events(shop, event_id="2")
    assert not two["learned"]
    assert "bot" in two["notes"][0]


async def test_an_event_that_is_not_there_is_explained(shop: Shop) -> None:
    """The list is empty, and the note says what that means."""
    answer = (await shop.client.get("/v1/events?event_id=never")).json()
    assert answer["events"] == []
    assert "POST" in answer["note"]


async def test_events_of_a_shopper_and_of_an_item(shop: Shop) -> None:
    """A merged visitor's are the user's; both names find them."""
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR}, {"type": "view", "item_id": "j"})
    await shop.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    assert [each["item_id"] for each in await events(shop, user_id="u")] == ["i"]
    assert [each["user_id"] for each in await events(shop, visitor_id=VISITOR)] == ["u"]
    assert [each["item_id"] for each in await events(shop, item_id="j")] == ["j"]
    assert await events(shop, user_id="nobody") == []


async def test_pages_repeat_nothing_and_lose_nothing(shop: Shop) -> None:
    """Newest first, lines of one event included."""
    items = [{"id": str(n)} for n in range(5)]
    await send(shop, *({"type": "purchase", "items": items} for _ in range(3)))
    seen, cursor = [], None
    while True:
        answer = (
            await shop.client.get("/v1/events", params={"limit": 4, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += [(each["event_no"], each["line"]) for each in answer["events"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 15
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("query", ["cursor=x", "cursor=W10", "limit=0", "user_id=a&item_id=b", "colour=red"])
async def test_a_bad_question_is_named(shop: Shop, query: str) -> None:
    """As everywhere."""
    assert (await shop.client.get(f"/v1/events?{query}")).status_code == 422


async def test_weights_are_the_defaults_until_they_are_set(shop: Shop) -> None:
    """0, negative and own types; what is left out goes back."""
    assert (await shop.client.get("/v1/events/weights")).json()["weights"]["purchase"] == 10
    await shop.client.put("/v1/events/weights", json={"weights": {"view": 0, "quiz_done": -2, "purchase": 12}})
    weights = (await shop.client.get("/v1/events/weights")).json()["weights"]
    assert (weights["view"], weights["quiz_done"], weights["purchase"], weights["click"]) == (0, -2, 12, 0.5)
    await shop.client.put("/v1/events/weights", json={"weights": {}})
    assert (await shop.client.get("/v1/events/weights")).json()["weights"]["purchase"] == 10


async def test_weights_have_limits(shop: Shop) -> None:
    """A type's form and a number's size."""
    answer = await shop.client.put("/v1/events/weights", json={"weights": {"Bad Type": 1, "view": 1e9}})
    assert len(answer.json()["errors"]) == 2

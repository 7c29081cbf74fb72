"""The demo shop's shoppers."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from infra.demo.catalogue import plan
from infra.demo.shoppers import PERSONAS, Event, demo_events, visitor_id
from infra.demo.studio import KINDS

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def some() -> list[Event]:
    return list(demo_events(NOW, shoppers=60))


def test_the_same_seed_gives_the_same_week() -> None:
    """A demo can be loaded twice: the second time every event is a repeat."""
    assert some() == some()


def test_every_event_is_young_enough_to_be_taken_live() -> None:
    """Within the last seven days, and none in the future."""
    moments = [datetime.fromisoformat(event["ts"]) for event in some()]
    assert NOW - timedelta(days=7) < min(moments)
    assert max(moments) < NOW


def test_every_event_has_an_id_of_its_own() -> None:
    """Two events of one id would be one event."""
    assert max(Counter(event["event_id"] for event in some()).values()) == 1


def test_every_event_is_about_products_of_the_shop() -> None:
    """Nobody looks at what is not there."""
    ids = {planned.item["id"] for planned in plan()}
    for event in some():
        assert {event["item_id"]} <= ids if "item_id" in event else {line["id"] for line in event["items"]} <= ids


def test_a_persona_looks_at_what_it_likes() -> None:
    """Most of what each looks at is of its two favourite families."""
    family = {planned.item["id"]: KINDS[planned.look.kind].family for planned in plan()}
    for number, persona in enumerate(PERSONAS):
        seen = [family[e["item_id"]] for e in some() if e["visitor_id"] == visitor_id(number) and e["type"] == "view"]
        favourites = sorted(persona.families, key=lambda name: -persona.families[name])[:2]
        assert sum(name in favourites for name in seen) > len(seen) / 2, persona.name

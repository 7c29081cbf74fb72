"""The demo shop's shoppers: a few thousand people with tastes, and what they did in the last week.

Each has favourite families, colours, materials and a purse. A visit follows one wish: it looks at products that suit
the taste, and sometimes puts one into the cart and buys it with something that goes with it. So behaviour holds what
the catalogue's texts and photos do not say.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from msgspec import Struct

from infra.demo.catalogue import plan
from infra.demo.look import Look
from infra.demo.studio import KINDS

Event = dict[str, Any]
"""An event as `POST /v1/events` takes it."""

SHOPPERS: Final = 2_000
_DAYS: Final = 6.5
"""Live events may be seven days old."""

# Who buys the one looks for the other: what no text and no photo says.
GOES_WITH: Final[Mapping[str, tuple[str, ...]]] = {
    "garments": ("shoes", "bags"),
    "shoes": ("garments", "bags"),
    "bags": ("shoes", "garments"),
    "lamps": ("chairs",),
    "chairs": ("lamps",),
    "mugs": ("lamps", "mugs"),
}


class Taste(Struct, frozen=True, kw_only=True):
    """What somebody likes, each as a factor on how often such a product is looked at, and what they can pay.

    `purse` is a price in minor units; dearer things are looked at less.
    """

    name: str
    families: Mapping[str, float]
    colours: Mapping[str, float]
    materials: Mapping[str, float]
    language: str
    purse: int


PERSONAS: Final = (
    Taste(
        name="Vera, who dresses in dark colours",
        families={"garments": 5, "shoes": 4, "bags": 1},
        colours={"black": 6, "navy": 4, "charcoal": 5, "burgundy": 2},
        materials={"wool": 2, "leather": 2},
        language="en",
        purse=12_000,
    ),
    Taste(
        name="Jonas, who furnishes a flat",
        families={"lamps": 5, "chairs": 5, "mugs": 1},
        colours={"cream": 2, "olive": 2, "sand": 2},
        materials={"linen": 3, "velvet": 4, "steel": 2},
        language="de",
        purse=30_000,
    ),
    Taste(
        name="Camille, who loves bright things",
        families={"bags": 4, "mugs": 4, "garments": 2},
        colours={"red": 5, "yellow": 5, "coral": 4, "orange": 4, "teal": 3},
        materials={},
        language="fr",
        purse=8_000,
    ),
    Taste(
        name="Ilya, who wants boots and backpacks",
        families={"shoes": 5, "bags": 4, "garments": 1},
        colours={"brown": 5, "camel": 5, "olive": 3},
        materials={"leather": 6, "canvas": 3, "suede": 4},
        language="ru",
        purse=18_000,
    ),
)
"""The shoppers that the storefront offers to be; the others are drawn around tastes like theirs."""


class _Product(Struct, frozen=True, kw_only=True):
    item_id: str
    family: str
    look: Look
    language: str
    price: int
    fame: float


def visitor_id(number: int) -> str:
    """The visitor id of a shopper, from 0; the first are the personas. As long as a browser's random one."""
    return blake2b(b"demo shopper %d" % number, digest_size=16).hexdigest()


def demo_events(now: datetime, *, shoppers: int = SHOPPERS, seed: int = 1) -> Iterator[Event]:
    """What these shoppers did in the days before `now`, one after the other; the same seed gives the same week."""
    rng = random.Random(f"kindred shoppers {seed}")  # noqa: S311 - a shop, not a secret
    products = [
        _Product(
            item_id=str(planned.item["id"]),
            family=KINDS[planned.look.kind].family,
            look=planned.look,
            language=str(planned.item["language"]),
            price=int(str(planned.item.get("sale_price") or planned.item["price"])),
            fame=min(rng.paretovariate(1.3), 5),
        )
        for planned in plan()
        if planned.item["availability"] != "out_of_stock"
    ]
    for number in range(shoppers):
        persona = PERSONAS[number] if number < len(PERSONAS) else None
        visits = 5 if persona else 1 + min(int(rng.expovariate(0.7)), 6)
        yield from _week(rng, visitor_id(number), persona or _drawn(rng, products), visits, products, now)


def _drawn(rng: random.Random, products: Sequence[_Product]) -> Taste:
    """A taste around two products that somebody fell in love with."""
    first, second = rng.choices(products, k=2)
    families = {first.family: 5.0, second.family: 3.0}
    for other in GOES_WITH[first.family]:
        families[other] = families.get(other, 0) + 1.5
    return Taste(
        name="",
        families=families,
        colours={first.look.colour: 5, first.look.accent: 2, second.look.colour: 4},
        materials={first.look.material: 3, second.look.material: 2},
        language=first.language,
        purse=max(3_000, first.price * 2),
    )


def _appeal(taste: Taste, product: _Product) -> float:
    """How much a shopper of this taste is drawn to a product; above 0."""
    return (
        product.fame
        * taste.families.get(product.family, 0.1)
        * taste.colours.get(product.look.colour, 1)
        * taste.materials.get(product.look.material, 1)
        * (2.0 if product.language == taste.language else 1.0)
        * min(1.0, taste.purse / product.price)
    )


def _week(
    rng: random.Random, visitor: str, taste: Taste, visits: int, products: Sequence[_Product], now: datetime
) -> Iterator[Event]:
    appeal = [_appeal(taste, product) for product in products]
    days_ago = sorted((rng.uniform(0.1, _DAYS) for _ in range(visits)), reverse=True)
    for number, days in enumerate(days_ago):
        moment = now - timedelta(days=days)
        session = f"{visitor[:8]}-{number}"
        wish = rng.choices(products, appeal)[0]
        wanted = [
            strength * (6 if product.family == wish.family else 1) * (3 if product.look.kind == wish.look.kind else 1)
            for strength, product in zip(appeal, products, strict=True)
        ]
        seen = dict.fromkeys([wish.item_id, *(p.item_id for p in rng.choices(products, wanted, k=rng.randint(2, 9)))])
        for item_id in seen:
            moment += timedelta(seconds=rng.randint(8, 90))
            yield _event(visitor, session, "view", moment, item_id=item_id)
        if rng.random() < 0.35:
            moment += timedelta(seconds=rng.randint(5, 60))
            yield _event(visitor, session, "add_to_cart", moment, item_id=wish.item_id)
            if rng.random() < 0.6:
                basket = [wish]
                for family in GOES_WITH[wish.family]:
                    fits = [(p, a) for p, a in zip(products, appeal, strict=True) if p.family == family]
                    fit = rng.choices([p for p, _ in fits], [a for _, a in fits])[0]
                    if rng.random() < 0.5 and fit not in basket:
                        basket.append(fit)
                moment += timedelta(seconds=rng.randint(30, 200))
                lines = [
                    {"id": p.item_id, "quantity": 1, "price": p.price} for p in {p.item_id: p for p in basket}.values()
                ]
                yield {
                    **_event(visitor, session, "purchase", moment),
                    "items": lines,
                    "order_id": f"order-{session}",
                    "value": sum(product.price for product in basket),
                    "currency": "EUR",
                }


def _event(visitor: str, session: str, kind: str, moment: datetime, **more: str) -> Event:
    return {
        "event_id": f"{session}-{kind}-{more.get('item_id', '')}",
        "type": kind,
        "visitor_id": visitor,
        "session_id": session,
        "ts": moment.isoformat(timespec="milliseconds"),
        **more,
    }

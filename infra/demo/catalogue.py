"""The catalogue of the demo shop: a small marketplace of invented sellers and brands, in five languages."""

import random
from collections.abc import Callable, Iterator

import msgspec

from infra.demo.look import Look
from infra.demo.palette import ACCENTS, COLOURS
from infra.demo.studio import COLOUR_OF_WOOD, KINDS, MATERIALS_OF_CUT, NATURAL, Kind, photograph
from infra.demo.words import VOCABULARIES

SHOP_NAME = "Kindred demo shop"
"""The name that the storefront shows."""

Item = dict[str, object]
"""An item as the API takes it: plain JSON values under the names of the item schema."""


class DemoItem(msgspec.Struct, frozen=True, kw_only=True):
    """One product for sale. item: API fields, without images; photos: JPEGs in the order of their positions."""

    item: Item
    photos: list[bytes]


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One product before it is drawn; views is its number of photos (1 or 2)."""

    item: Item
    look: Look
    views: int


class Seller(msgspec.Struct, frozen=True, kw_only=True):
    """A seller, the language it writes in (ISO 639-1), its brands and the families it sells."""

    id: str
    language: str
    brands: tuple[str, ...]
    families: tuple[str, ...]


_ALL = ("garments", "shoes", "bags", "lamps", "mugs", "chairs")

SELLERS: tuple[Seller, ...] = (
    Seller(id="quillmoor", language="en", brands=("Quillmoor", "Fennbrae", "Oddlark"), families=_ALL),
    Seller(
        id="harrowdene-home", language="en", brands=("Harrowdene", "Tallowick"), families=("lamps", "mugs", "chairs")
    ),
    Seller(id="lindenfeld", language="de", brands=("Lindenfeldt", "Kornweiler", "Nordhaag"), families=_ALL),
    Seller(
        id="atelier-briselune",
        language="fr",
        brands=("Briselune", "Valmorelle"),
        families=("garments", "shoes", "bags"),
    ),
    Seller(
        id="maison-orvanne",
        language="fr",
        brands=("Orvannais", "Petibois"),
        families=("lamps", "mugs", "chairs", "bags"),
    ),
    Seller(id="casa-solmira", language="es", brands=("Solmira", "Alborán & Vega", "Tresrios"), families=_ALL),
    Seller(id="lesnoy-dvor", language="ru", brands=("Лесной двор", "Северина", "Ясногорье"), families=_ALL),
)
"""The sellers of the demo marketplace; every name is invented."""

DESIGNS_PER_KIND = 10
_CALM = ("black", "brown", "camel", "navy", "burgundy", "charcoal", "sand", "grey", "olive", "cream", "red")
_METALS = ("white", "black", "mustard", "teal", "red", "mint", "orange", "navy", "green", "cream", "coral", "yellow")
# Kinds that nobody sells in lilac: they come in calm colours most of the time.
_SOBER = ("boot", "loafer", "armchair", "backpack", "trousers", "tote", "crossbody")
_SIZES = {"shoes": [str(size) for size in range(36, 46)], "garments": ["XS", "S", "M", "L", "XL"]}


def demo_items(seed: int = 1, progress: Callable[[int, int], None] | None = None) -> Iterator[DemoItem]:
    """Draw and describe the whole shop, one product at a time; the same seed gives the same shop, byte by byte.

    Kinds alternate, so that any first part of the shop is as varied as the whole. progress(done, total) is
    called after each product was taken.
    """
    products = plan(seed)
    for done, product in enumerate(products, 1):
        photos = [photograph(product.look)]
        if product.views == 2:
            photos.append(photograph(product.look, "detail"))
        yield DemoItem(item=product.item, photos=photos)
        if progress is not None:
            progress(done, len(products))


def plan(seed: int = 1) -> list[Planned]:
    """The shop's products in order, described but not drawn (a few milliseconds)."""
    rng = random.Random(f"kindred demo {seed}")  # noqa: S311 - a shop, not a secret
    products: list[Planned] = []
    turn = 0
    for design in range(DESIGNS_PER_KIND):
        for name, kind in KINDS.items():
            look = _design(rng, name, kind, kind.cuts[design % len(kind.cuts)])
            sellers = [seller for seller in SELLERS if kind.family in seller.families]
            seller = sellers[(design + turn) % len(sellers)]
            turn += 1
            variants = [look]
            # Every fourth design is sold in several colours, which are one group.
            if (design * 7 + turn) % 4 == 0 and look.material not in COLOUR_OF_WOOD and look.material not in NATURAL:
                for colour in rng.sample(_palette(rng, look), 2 if rng.random() < 0.4 else 1):
                    if colour not in {variant.colour for variant in variants}:
                        accent = ACCENTS[colour][0]
                        variants.append(msgspec.structs.replace(look, colour=colour, accent=accent))
            products.extend(_sell(rng, kind, seller, variants, number=design * len(KINDS) + turn))
    return products


def _palette(rng: random.Random, look: Look) -> tuple[str, ...]:
    if look.material in NATURAL:
        return NATURAL[look.material]
    if look.kind in _SOBER and rng.random() < 0.75:
        return _CALM
    if look.material == "steel":
        return _METALS
    if look.material == "denim":
        return ("blue", "navy", "sky blue", "black", "grey")
    return tuple(COLOURS)


def _design(rng: random.Random, name: str, kind: Kind, cut: str) -> Look:
    material = rng.choice(MATERIALS_OF_CUT.get((name, cut), kind.materials))
    if name == "tote" and cut == "slouchy":
        material = "leather"
    draft = Look(
        kind=name,
        cut=cut,
        colour="white",
        accent="navy",
        pattern="plain",
        material=material,
        seed=rng.randrange(10_000),
    )
    colour = COLOUR_OF_WOOD.get(material) or rng.choice(_palette(rng, draft))
    solid = (
        material in kind.solid or material in COLOUR_OF_WOOD or material in NATURAL or material in ("steel", "glass")
    )
    pattern = "plain" if solid and name != "tumbler" else rng.choice(kind.patterns)
    if material == "glass" and cut == "globe" and rng.random() < 0.5:
        pattern = "gradient"
    return msgspec.structs.replace(draft, colour=colour, accent=rng.choice(ACCENTS[colour]), pattern=pattern)


def _sell(rng: random.Random, kind: Kind, seller: Seller, variants: list[Look], *, number: int) -> Iterator[Planned]:
    words = VOCABULARIES[seller.language]
    low, high = kind.price
    # Prices end in 90 cents (or 9 below ten euros), as shop prices do.
    price = max(low, round((low + (high - low) * rng.random() ** 1.6) / 100) * 100 - 10)
    brand = rng.choice(seller.brands)
    group = f"{seller.id}-{variants[0].kind.replace('_', '-')}-{number:03d}"
    for look in variants:
        tags = [kind.family, look.colour, *([look.pattern] if look.pattern != "plain" else [])]
        own = f"{group}-{look.colour.replace(' ', '-')}" if len(variants) > 1 else group
        item: Item = {
            "id": own,
            "title": words.title_of(look),
            "description": words.description_of(look),
            "url": f"https://shop.example/{seller.language}/{own}",
            "categories": [kind.category],
            "brand": brand,
            "seller_id": seller.id,
            "price": price,
            "currency": "EUR",
            "availability": "in_stock",
            "language": seller.language,
            "tags": tags,
            "attributes": {
                "colour": look.colour,
                "material": look.material,
                "pattern": look.pattern,
                "style": look.cut,
                **({"sizes": list(_SIZES[kind.family])} if kind.family in _SIZES else {}),
            },
        }
        if len(variants) > 1:
            item["group_id"] = group
        if rng.random() < 0.16:
            item["sale_price"] = round(price * rng.choice((0.5, 0.6, 0.7, 0.75, 0.8)) / 10) * 10
            tags.append("sale")
        chance = rng.random()
        if chance < 0.035:
            item["availability"] = "out_of_stock"
        elif chance < 0.055:
            item["availability"] = "preorder"
        yield Planned(item=item, look=look, views=2 if rng.random() < 0.22 else 1)

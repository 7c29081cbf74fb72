"""The demo shop's range and its photographer: every kind of product, and how it is drawn."""

import random
from collections.abc import Callable

import msgspec

from infra.demo import bags, chairs, garments, lamps, mugs, shoes
from infra.demo.drawing import Canvas, Colour, Point, View
from infra.demo.look import Look

_TINTS: tuple[Colour, ...] = (
    (250, 250, 250),
    (248, 248, 247),
    (246, 245, 242),
    (244, 246, 248),
    (247, 244, 240),
)


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of product.

    price: the usual range in euro cents. solid: materials that are always plain, whatever patterns the
    kind offers. close_up: zoom and centre (units) of the detail photo, None where the second photo is
    taken from the other side.
    """

    family: str
    category: str
    draw: Callable[[Canvas, Look], None]
    cuts: tuple[str, ...]
    materials: tuple[str, ...]
    patterns: tuple[str, ...]
    price: tuple[int, int]
    solid: tuple[str, ...] = ()
    close_up: tuple[float, Point] | None = (2.3, (50.0, 42.0))
    floor: float | None = None


_PRINTS = ("plain", "plain", "stripes", "checks", "dots", "floral")

KINDS: dict[str, Kind] = {
    "t_shirt": Kind(
        family="garments",
        category="Clothing > Tops > T-shirts",
        draw=garments.t_shirt,
        cuts=("crew", "v-neck", "long-sleeve"),
        materials=("cotton", "cotton", "linen"),
        patterns=("plain", "plain", "stripes", "dots", "gradient", "zigzag"),
        price=(1490, 3990),
    ),
    "shirt": Kind(
        family="garments",
        category="Clothing > Tops > Shirts",
        draw=garments.shirt,
        cuts=("classic", "short-sleeve", "band collar"),
        materials=("cotton", "linen", "viscose", "denim"),
        patterns=("plain", "pinstripes", "checks", "floral", "dots"),
        solid=("denim",),
        price=(2990, 7990),
    ),
    "sweater": Kind(
        family="garments",
        category="Clothing > Knitwear > Sweaters",
        draw=garments.sweater,
        cuts=("crew", "turtleneck", "cardigan"),
        materials=("wool", "wool", "cotton"),
        patterns=("plain", "plain", "stripes", "zigzag", "gradient"),
        price=(3990, 11990),
    ),
    "hoodie": Kind(
        family="garments",
        category="Clothing > Tops > Hoodies",
        draw=garments.hoodie,
        cuts=("pullover", "zip"),
        materials=("cotton",),
        patterns=("plain", "plain", "gradient", "stripes"),
        price=(3490, 7490),
    ),
    "dress": Kind(
        family="garments",
        category="Clothing > Dresses",
        draw=garments.dress,
        cuts=("a-line", "shift", "maxi"),
        materials=("cotton", "viscose", "linen"),
        patterns=("plain", "dots", "floral", "stripes", "checks", "zigzag"),
        price=(3990, 12990),
    ),
    "skirt": Kind(
        family="garments",
        category="Clothing > Skirts",
        draw=garments.skirt,
        cuts=("a-line", "pencil", "pleated"),
        materials=("cotton", "wool", "denim", "viscose"),
        patterns=("plain", "checks", "floral", "dots"),
        solid=("denim",),
        price=(2990, 6990),
        close_up=(2.2, (50.0, 36.0)),
    ),
    "trousers": Kind(
        family="garments",
        category="Clothing > Trousers",
        draw=garments.trousers,
        cuts=("straight", "wide", "tapered"),
        materials=("denim", "cotton", "linen", "wool"),
        patterns=("plain", "plain", "pinstripes", "checks"),
        solid=("denim",),
        price=(3990, 9990),
        close_up=(2.3, (50.0, 24.0)),
    ),
    "shorts": Kind(
        family="garments",
        category="Clothing > Shorts",
        draw=garments.shorts,
        cuts=("chino", "drawstring"),
        materials=("cotton", "linen", "denim"),
        patterns=("plain", "stripes", "checks"),
        solid=("denim",),
        price=(2490, 4990),
        close_up=(2.1, (50.0, 36.0)),
    ),
    "sneaker": Kind(
        family="shoes",
        category="Shoes > Sneakers",
        draw=shoes.sneaker,
        floor=shoes.FLOOR,
        cuts=("low", "high-top", "runner"),
        materials=("leather", "canvas", "suede", "mesh"),
        patterns=("plain", "plain", "checks", "floral"),
        solid=("leather", "suede", "mesh"),
        price=(4990, 13990),
        close_up=None,
    ),
    "boot": Kind(
        family="shoes",
        category="Shoes > Boots",
        draw=shoes.boot,
        floor=shoes.FLOOR,
        cuts=("chelsea", "lace-up", "knee-high"),
        materials=("leather", "suede"),
        patterns=("plain",),
        price=(8990, 21990),
        close_up=None,
    ),
    "heel": Kind(
        family="shoes",
        category="Shoes > Heels",
        draw=shoes.heel,
        floor=shoes.FLOOR,
        cuts=("pump", "block", "slingback"),
        materials=("leather", "suede", "satin"),
        patterns=("plain", "plain", "dots", "floral"),
        solid=("leather", "suede"),
        price=(5990, 15990),
        close_up=None,
    ),
    "sandal": Kind(
        family="shoes",
        category="Shoes > Sandals",
        draw=shoes.sandal,
        floor=shoes.FLOOR,
        cuts=("slide", "strappy", "cross"),
        materials=("leather", "suede", "canvas"),
        patterns=("plain", "stripes"),
        solid=("leather", "suede"),
        price=(2990, 8990),
        close_up=None,
    ),
    "loafer": Kind(
        family="shoes",
        category="Shoes > Loafers",
        draw=shoes.loafer,
        floor=shoes.FLOOR,
        cuts=("penny", "tassel", "espadrille"),
        materials=("leather", "suede"),
        patterns=("plain",),
        price=(6990, 14990),
        close_up=None,
    ),
    "tote": Kind(
        family="bags",
        category="Bags > Tote bags",
        draw=bags.tote,
        floor=bags.FLOOR,
        cuts=("classic", "slouchy", "basket"),
        materials=("canvas", "leather", "felt"),
        patterns=("plain", "stripes", "floral", "dots", "zigzag"),
        solid=("leather", "felt"),
        price=(2490, 14990),
        close_up=(2.1, (50.0, 52.0)),
    ),
    "backpack": Kind(
        family="bags",
        category="Bags > Backpacks",
        draw=bags.backpack,
        floor=bags.FLOOR,
        cuts=("round", "roll-top", "flap"),
        materials=("canvas", "leather", "felt"),
        patterns=("plain", "plain", "checks", "dots", "zigzag"),
        solid=("leather", "felt"),
        price=(4490, 15990),
        close_up=(2.1, (50.0, 60.0)),
    ),
    "clutch": Kind(
        family="bags",
        category="Bags > Clutches",
        draw=bags.clutch,
        floor=bags.FLOOR,
        cuts=("envelope", "frame", "pouch"),
        materials=("leather", "satin", "suede"),
        patterns=("plain", "plain", "floral", "dots", "gradient"),
        solid=("leather", "suede"),
        price=(2990, 8990),
        close_up=(2.0, (50.0, 52.0)),
    ),
    "crossbody": Kind(
        family="bags",
        category="Bags > Crossbody bags",
        draw=bags.crossbody,
        floor=bags.FLOOR,
        cuts=("saddle", "boxy", "half-moon"),
        materials=("leather", "suede", "canvas"),
        patterns=("plain", "stripes", "checks"),
        solid=("leather", "suede"),
        price=(3990, 12990),
        close_up=(2.1, (50.0, 64.0)),
    ),
    "desk_lamp": Kind(
        family="lamps",
        category="Home > Lamps > Desk lamps",
        draw=lamps.desk_lamp,
        floor=lamps.FLOOR,
        cuts=("jointed", "gooseneck", "banker"),
        materials=("steel",),
        patterns=("plain",),
        price=(3990, 12990),
        close_up=(1.9, (62.0, 38.0)),
    ),
    "table_lamp": Kind(
        family="lamps",
        category="Home > Lamps > Table lamps",
        draw=lamps.table_lamp,
        floor=lamps.FLOOR,
        cuts=("gourd", "column", "mushroom"),
        materials=("linen", "cotton"),
        patterns=("plain", "plain", "stripes", "floral", "dots", "zigzag"),
        price=(3490, 11990),
        close_up=(1.9, (50.0, 36.0)),
    ),
    "floor_lamp": Kind(
        family="lamps",
        category="Home > Lamps > Floor lamps",
        draw=lamps.floor_lamp,
        floor=lamps.FLOOR,
        cuts=("tripod", "arc", "reading"),
        materials=("linen",),
        patterns=("plain", "plain", "stripes", "zigzag"),
        price=(7990, 24990),
        close_up=(2.0, (56.0, 24.0)),
    ),
    "pendant": Kind(
        family="lamps",
        category="Home > Lamps > Pendant lamps",
        draw=lamps.pendant,
        floor=None,
        cuts=("dome", "drum", "globe", "cone"),
        materials=("linen",),
        patterns=("plain", "plain", "stripes", "floral", "zigzag"),
        price=(3990, 17990),
        close_up=(1.7, (50.0, 54.0)),
    ),
    "mug": Kind(
        family="mugs",
        category="Home > Kitchen > Mugs",
        draw=mugs.mug,
        floor=mugs.FLOOR,
        cuts=("straight", "tapered", "round", "enamel"),
        materials=("porcelain", "stoneware"),
        patterns=("plain", "stripes", "dots", "checks", "floral", "zigzag", "gradient"),
        solid=("stoneware",),
        price=(790, 2490),
        close_up=None,
    ),
    "cup": Kind(
        family="mugs",
        category="Home > Kitchen > Espresso cups",
        draw=mugs.cup,
        floor=mugs.FLOOR,
        cuts=("bowl", "straight"),
        materials=("porcelain", "stoneware"),
        patterns=("plain", "stripes", "dots", "zigzag", "gradient"),
        solid=("stoneware",),
        price=(990, 2190),
        close_up=None,
    ),
    "tumbler": Kind(
        family="mugs",
        category="Home > Kitchen > Travel tumblers",
        draw=mugs.tumbler,
        floor=mugs.FLOOR,
        cuts=("slim", "cork band"),
        materials=("steel",),
        patterns=("plain", "gradient", "stripes", "floral"),
        price=(1490, 3490),
        close_up=(2.0, (50.0, 36.0)),
    ),
    "chair": Kind(
        family="chairs",
        category="Home > Furniture > Chairs",
        draw=chairs.chair,
        floor=chairs.FLOOR,
        cuts=("spindle", "panel", "shell"),
        materials=("wool", "velvet", "leather"),
        patterns=("plain", "plain", "checks"),
        solid=("leather", "velvet"),
        price=(6990, 24990),
        close_up=(1.9, (50.0, 44.0)),
    ),
    "stool": Kind(
        family="chairs",
        category="Home > Furniture > Stools",
        draw=chairs.stool,
        floor=chairs.FLOOR,
        cuts=("three-legged", "bar", "pouffe"),
        materials=("leather", "velvet"),
        patterns=("plain",),
        price=(3990, 14990),
        close_up=(1.9, (50.0, 46.0)),
    ),
    "armchair": Kind(
        family="chairs",
        category="Home > Furniture > Armchairs",
        draw=chairs.armchair,
        floor=chairs.FLOOR,
        cuts=("club", "wing", "lounge"),
        materials=("velvet", "linen", "boucle", "leather"),
        patterns=("plain", "plain", "floral", "checks", "stripes"),
        solid=("velvet", "boucle", "leather"),
        price=(24990, 79990),
        close_up=(1.8, (50.0, 52.0)),
    ),
}
"""Every kind of product in the shop, by its name."""

# Forms that dictate their material: a steel dome is not sewn of linen.
_WOODEN = ("oak", "walnut", "beech", "black ash")
MATERIALS_OF_CUT: dict[tuple[str, str], tuple[str, ...]] = {
    ("loafer", "espadrille"): ("canvas",),
    ("tote", "basket"): ("straw",),
    ("desk_lamp", "banker"): ("glass",),
    ("table_lamp", "mushroom"): ("steel", "glass"),
    ("floor_lamp", "arc"): ("steel",),
    ("floor_lamp", "reading"): ("steel",),
    ("pendant", "dome"): ("steel",),
    ("pendant", "cone"): ("steel", "rattan"),
    ("pendant", "globe"): ("paper", "glass", "rattan"),
    ("mug", "enamel"): ("enamel",),
    ("chair", "spindle"): _WOODEN,
    ("chair", "shell"): ("plastic", "felt", "velvet"),
    ("stool", "three-legged"): (*_WOODEN, "leather"),
    ("stool", "pouffe"): ("wool", "velvet", "leather"),
    ("loafer", "tassel"): ("leather",),
}
"""Materials of a (kind, cut) where they differ from the kind's."""

COLOUR_OF_WOOD = {"beech": "sand", "oak": "camel", "walnut": "brown", "black ash": "black"}
"""The palette's name for timber, which is not painted."""

NATURAL = {
    "straw": ("sand", "camel", "cream", "brown"),
    "rattan": ("sand", "camel", "brown"),
    "paper": ("white", "cream"),
}
"""Materials that come in few colours."""


def photograph(look: Look, view: View = "whole") -> bytes:
    """Draw a product and return the photo as JPEG; the same look and view give the same bytes.

    The second view ("detail") is a close-up, or the other side where the kind has none. Raises KeyError
    on an unknown kind, colour or pattern.
    """
    kind = KINDS[look.kind]
    tint = _TINTS[look.seed % len(_TINTS)]
    zoom, centre = (kind.close_up or (1.0, (50.0, 50.0))) if view == "detail" else (1.0, (50.0, 50.0))
    canvas = Canvas(random.Random(look.seed), tint=tint, floor=kind.floor, zoom=zoom, centre=centre)  # noqa: S311
    kind.draw(canvas, look)
    return canvas.jpeg(flip=view == "detail" and kind.close_up is None)

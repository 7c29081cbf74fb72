"""Product pictures drawn by code: labelled training pictures of things that the photo set does not show.

Every picture is a closed outline filled with a colour and perhaps a pattern, with details on top, standing on a
plain ground. The outlines are in a unit square with y downwards; every vertex is shaken a little, so that two
pictures of one kind are two different things.
"""

import colorsys
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Outline = Sequence[tuple[float, float]]

SUPERSAMPLE = 2
"""Drawn this much larger, then shrunk, for smooth edges."""


class Canvas:
    """One picture being drawn: a thing with a main colour, a second colour and a pattern."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self.rng = rng
        self.side = size * SUPERSAMPLE
        self.main = _colour(rng)
        self.second = _colour(rng)
        ground = (255, 255, 255) if rng.random() < 0.7 else _colour(rng)
        self.image = Image.new("RGB", (self.side, self.side), ground)
        self.pattern = _pattern(self.side, self.main, self.second, rng)

    def _points(self, outline: Outline, shake: float) -> list[tuple[float, float]]:
        r = self.rng
        return [
            ((x + r.uniform(-shake, shake)) * self.side, (y + r.uniform(-shake, shake)) * self.side) for x, y in outline
        ]

    def body(self, outline: Outline, *, shake: float = 0.015, plain: Colour | None = None) -> None:
        """Fill an outline with the pattern, or with one colour."""
        mask = Image.new("L", (self.side, self.side), 0)
        ImageDraw.Draw(mask).polygon(self._points(outline, shake), fill=255)
        self.image.paste(self.pattern if plain is None else plain, (0, 0, self.side, self.side), mask)

    def oval(self, x0: float, y0: float, x1: float, y1: float, *, plain: Colour | None = None) -> None:
        """Fill an oval with the pattern, or with one colour."""
        mask = Image.new("L", (self.side, self.side), 0)
        ImageDraw.Draw(mask).ellipse([v * self.side for v in (x0, y0, x1, y1)], fill=255)
        self.image.paste(self.pattern if plain is None else plain, (0, 0, self.side, self.side), mask)

    def line(self, outline: Outline, width: float, colour: Colour | None = None) -> None:
        """A stroke of `width` (a share of the side)."""
        draw = ImageDraw.Draw(self.image)
        points = self._points(outline, 0.004)
        draw.line(points, fill=colour or self.main, width=max(1, round(width * self.side)), joint="curve")

    def ring(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour | None = None) -> None:
        """The rim of an oval."""
        draw = ImageDraw.Draw(self.image)
        box = [v * self.side for v in (x0, y0, x1, y1)]
        draw.ellipse(box, outline=colour or self.main, width=max(1, round(width * self.side)))

    def dark(self) -> Colour:
        """The main colour in shadow."""
        r, g, b = self.main
        return r * 6 // 10, g * 6 // 10, b * 6 // 10


def _colour(rng: random.Random) -> Colour:
    kind = rng.random()
    if kind < 0.25:
        v = rng.choice((20, 45, 90, 140, 190, 235)) + rng.randint(-12, 12)
        return v, v, v
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 1.0), rng.uniform(0.3, 1.0))
    return round(255 * r), round(255 * g), round(255 * b)


def _pattern(side: int, main: Colour, second: Colour, rng: random.Random) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    kind = rng.choice(("plain", "plain", "plain", "stripes", "checks", "dots", "shade"))
    f = rng.uniform(6, 16)
    share: NDArray[np.float32]
    if kind == "stripes":
        a = rng.choice((0.0, math.pi / 2, rng.uniform(0, math.pi)))
        share = (np.sin(2 * math.pi * f * (x * math.cos(a) + y * math.sin(a))) > rng.uniform(-0.5, 0.5)) * np.float32(1)
    elif kind == "checks":
        share = (np.sin(2 * math.pi * f * x) * np.sin(2 * math.pi * f * y) > 0) * np.float32(1)
    elif kind == "dots":
        share = (((x * f) % 1 - 0.5) ** 2 + ((y * f) % 1 - 0.5) ** 2 < rng.uniform(0.03, 0.1)) * np.float32(1)
    else:
        share = np.zeros_like(x)
    light = 1 - rng.uniform(0, 0.35) * np.abs(x - rng.uniform(0.2, 0.8))
    rgb = (np.array(main) * (1 - share[..., None]) + np.array(second) * share[..., None]) * light[..., None]
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def _mirror(half: Outline) -> list[tuple[float, float]]:
    """A symmetric outline from its left half, given from top to bottom."""
    return [*half, *((1 - x, y) for x, y in reversed(half))]


def _top(c: Canvas, *, sleeve: float, hem: float, width: float = 0.2) -> None:
    cuff = 0.2 + sleeve
    spread = c.rng.uniform(0.0, 0.1)
    half = [(0.42, 0.16), (0.5 - width - 0.06, 0.2), (0.12 - spread * sleeve, cuff), (0.2, cuff + 0.05)]
    c.body(_mirror([*half, (0.5 - width, 0.36), (0.5 - width - c.rng.uniform(-0.02, 0.03), hem)]))
    c.line([(0.42, 0.16), (0.5, c.rng.uniform(0.2, 0.26)), (0.58, 0.16)], 0.012, c.dark())


def _tshirt(c: Canvas) -> None:
    _top(c, sleeve=c.rng.uniform(0.14, 0.2), hem=c.rng.uniform(0.78, 0.88))


def _longsleeve(c: Canvas) -> None:
    _top(c, sleeve=c.rng.uniform(0.45, 0.58), hem=c.rng.uniform(0.75, 0.85))


def _shirt(c: Canvas) -> None:
    _top(c, sleeve=c.rng.uniform(0.45, 0.58), hem=c.rng.uniform(0.78, 0.88))
    c.line([(0.5, 0.2), (0.5, 0.78)], 0.008, c.dark())
    for k in range(6):
        c.oval(0.505, 0.28 + 0.09 * k, 0.52, 0.295 + 0.09 * k, plain=c.second)
    c.body([(0.42, 0.14), (0.5, 0.2), (0.44, 0.25)], plain=c.dark())
    c.body([(0.58, 0.14), (0.5, 0.2), (0.56, 0.25)], plain=c.dark())


def _outwear(c: Canvas) -> None:
    _top(c, sleeve=c.rng.uniform(0.48, 0.6), hem=c.rng.uniform(0.82, 0.93), width=0.24)
    c.line([(0.5, 0.17), (0.5, 0.85)], 0.02, c.second)
    c.body([(0.4, 0.12), (0.6, 0.12), (0.58, 0.2), (0.42, 0.2)], plain=c.dark())
    c.line([(0.32, 0.62), (0.42, 0.66)], 0.012, c.dark())
    c.line([(0.68, 0.62), (0.58, 0.66)], 0.012, c.dark())


def _dress(c: Canvas) -> None:
    w, hem = c.rng.uniform(0.08, 0.13), c.rng.uniform(0.2, 0.34)
    c.body(_mirror([(0.42, 0.08), (0.36, 0.1), (0.36, 0.3), (0.5 - w, 0.42), (0.5 - hem, 0.92)]))


def _skirt(c: Canvas) -> None:
    hem = c.rng.uniform(0.18, 0.38)
    c.body(_mirror([(0.36, 0.22), (0.35, 0.3), (0.5 - hem, c.rng.uniform(0.7, 0.85))]))
    c.line([(0.35, 0.27), (0.65, 0.27)], 0.02, c.dark())


def _legs(c: Canvas, hem: float) -> None:
    out = c.rng.uniform(0.26, 0.36)
    c.body(_mirror([(0.34, 0.1), (0.31, 0.3), (out - 0.03, hem), (out + 0.13, hem), (0.495, 0.38)]))
    c.line([(0.34, 0.13), (0.66, 0.13)], 0.02, c.dark())


def _pants(c: Canvas) -> None:
    _legs(c, c.rng.uniform(0.86, 0.94))


def _shorts(c: Canvas) -> None:
    _legs(c, c.rng.uniform(0.5, 0.64))


def _shoes(c: Canvas) -> None:
    high = c.rng.uniform(0.2, 0.48)
    c.body([(0.1, 0.7), (0.12, high), (0.36, high), (0.42, 0.52), (0.8, 0.6), (0.9, 0.7)])
    c.body([(0.09, 0.7), (0.91, 0.7), (0.9, 0.77), (0.1, 0.77)], plain=c.second)
    for k in range(3):
        c.line([(0.42 + 0.07 * k, 0.55), (0.38 + 0.07 * k, 0.62)], 0.012, c.second)


def _hat(c: Canvas) -> None:
    c.body([(0.24, 0.62), (0.28, 0.4), (0.4, 0.28), (0.6, 0.28), (0.72, 0.4), (0.76, 0.62)])
    wide = c.rng.uniform(0.02, 0.2)
    c.oval(0.24 - wide, 0.56, 0.76 + wide, 0.7, plain=c.dark() if c.rng.random() < 0.5 else None)


def _bag(c: Canvas) -> None:
    c.ring(0.32, c.rng.uniform(0.08, 0.2), 0.68, 0.7, 0.025, c.dark())
    c.body(_mirror([(0.24, 0.42), (c.rng.uniform(0.12, 0.22), 0.85)]))
    c.line([(0.24, 0.52), (0.76, 0.52)], 0.012, c.second)


def _backpack(c: Canvas) -> None:
    c.ring(0.42, 0.08, 0.58, 0.26, 0.025, c.dark())
    c.body(_mirror([(0.4, 0.14), (0.28, 0.22), (0.24, 0.5), (0.24, 0.9)]))
    c.body(_mirror([(0.32, 0.56), (0.32, 0.84)]), plain=c.dark())
    c.line([(0.27, 0.42), (0.73, 0.42)], 0.012, c.second)


def _lamp(c: Canvas) -> None:
    c.line([(0.5, 0.4), (0.5, 0.86)], c.rng.uniform(0.02, 0.06), c.second)
    c.oval(0.34, 0.82, 0.66, 0.92, plain=c.second)
    c.body(_mirror([(c.rng.uniform(0.3, 0.42), 0.12), (c.rng.uniform(0.18, 0.28), 0.46)]))


def _mug(c: Canvas) -> None:
    c.ring(0.58, 0.34, 0.88, 0.68, 0.05)
    c.body([(0.22, 0.24), (0.24, 0.8), (0.66, 0.8), (0.68, 0.24)])
    c.oval(0.22, 0.18, 0.68, 0.3, plain=c.dark())


def _chair(c: Canvas) -> None:
    for x0, x1 in ((0.3, 0.26), (0.7, 0.74), (0.38, 0.37), (0.62, 0.63)):
        c.line([(x0, 0.55), (x1, 0.92)], 0.03, c.second)
    c.body([(0.3, 0.1), (0.7, 0.1), (0.68, 0.5), (0.32, 0.5)])
    c.body([(0.3, 0.5), (0.7, 0.5), (0.76, 0.62), (0.24, 0.62)], plain=c.dark())


def _table(c: Canvas) -> None:
    for x in (0.16, 0.84, 0.28, 0.72):
        c.line([(x, 0.42), (x, 0.8)], 0.03, c.dark())
    c.body([(0.2, 0.34), (0.8, 0.34), (0.92, 0.44), (0.08, 0.44)])


def _watch(c: Canvas) -> None:
    c.body([(0.42, 0.06), (0.58, 0.06), (0.6, 0.94), (0.4, 0.94)])
    c.oval(0.3, 0.32, 0.7, 0.7, plain=c.second)
    c.ring(0.3, 0.32, 0.7, 0.7, 0.03, c.dark())
    c.line([(0.5, 0.51), (0.5, 0.38)], 0.012, c.dark())
    c.line([(0.5, 0.51), (0.59, 0.55)], 0.012, c.dark())


def _bottle(c: Canvas) -> None:
    c.body(_mirror([(0.45, 0.1), (0.45, 0.26), (0.36, 0.36), (0.36, 0.92)]))
    c.body(_mirror([(0.44, 0.06), (0.44, 0.13)]), plain=c.dark())
    c.body(_mirror([(0.36, 0.5), (0.36, 0.74)]), plain=c.second)


def _book(c: Canvas) -> None:
    c.body([(0.22, 0.1), (0.78, 0.1), (0.78, 0.9), (0.22, 0.9)], shake=0.03)
    c.line([(0.27, 0.1), (0.27, 0.9)], 0.012, c.dark())
    for y in (0.22, 0.3, 0.72):
        c.line([(0.36, y), (c.rng.uniform(0.55, 0.72), y)], 0.02, c.second)


def _ball(c: Canvas) -> None:
    c.oval(0.14, 0.14, 0.86, 0.86)
    c.ring(0.3, 0.14, 0.7, 0.86, 0.012, c.dark())


def _box(c: Canvas) -> None:
    c.body([(0.14, 0.34), (0.52, 0.46), (0.52, 0.88), (0.14, 0.72)])
    c.body([(0.52, 0.46), (0.88, 0.34), (0.88, 0.72), (0.52, 0.88)], plain=c.dark())
    c.body([(0.14, 0.34), (0.5, 0.22), (0.88, 0.34), (0.52, 0.46)], plain=c.second)


def _sofa(c: Canvas) -> None:
    c.body([(0.16, 0.32), (0.84, 0.32), (0.84, 0.6), (0.16, 0.6)])
    c.body([(0.08, 0.44), (0.2, 0.44), (0.2, 0.56), (0.8, 0.56), (0.8, 0.44), (0.92, 0.44), (0.92, 0.74), (0.08, 0.74)])
    c.line([(0.5, 0.34), (0.5, 0.7)], 0.012, c.dark())


DRAWERS: dict[str, Callable[[Canvas], None]] = {
    "dress": _dress,
    "hat": _hat,
    "longsleeve": _longsleeve,
    "outwear": _outwear,
    "pants": _pants,
    "shirt": _shirt,
    "shoes": _shoes,
    "shorts": _shorts,
    "skirt": _skirt,
    "t-shirt": _tshirt,
    "backpack": _backpack,
    "bag": _bag,
    "ball": _ball,
    "book": _book,
    "bottle": _bottle,
    "box": _box,
    "chair": _chair,
    "lamp": _lamp,
    "mug": _mug,
    "sofa": _sofa,
    "table": _table,
    "watch": _watch,
}
"""What can be drawn; the garments bear the names of the photo set's categories."""


def draw(kind: str, size: int, rng: random.Random) -> NDArray[np.uint8]:
    """One picture of a `kind` of DRAWERS, `uint8[size, size, 3]`; the same state of `rng` draws the same picture."""
    canvas = Canvas(size, rng)
    DRAWERS[kind](canvas)
    return np.asarray(canvas.image.resize((size, size), Image.Resampling.BOX))

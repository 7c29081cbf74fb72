"""What the products of the demo shop are made of: printed patterns and the grain of materials.

A texture is an RGB image of the canvas's working size (FULL x FULL) that `Canvas.part` cuts to shape.
"""

import math
import random
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from infra.demo.drawing import FULL, Canvas, Colour, blend, luminance, shade

PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "gradient", "floral", "zigzag")
"""Every pattern that `print_on` knows."""


@lru_cache(maxsize=32)
def _noise(seed: int, cell_x: int, cell_y: int) -> Image.Image:
    """Smooth grey noise of FULL x FULL with grains of about cell_x x cell_y pixels."""
    size = (max(2, FULL // cell_x), max(2, FULL // cell_y))
    grain = Image.frombytes("L", size, random.Random(seed).randbytes(size[0] * size[1]))  # noqa: S311
    return grain.resize((FULL, FULL), Image.Resampling.BICUBIC)


def _grain(image: Image.Image, noise: Image.Image, strength: float) -> Image.Image:
    level = noise.point([max(0, min(255, round(128 + (v - 128) * strength))) for v in range(256)])
    return ImageChops.hard_light(image, Image.merge("RGB", (level, level, level)))


def print_on(
    canvas: Canvas,
    pattern: str,
    ground: Colour,
    accent: Colour,
    *,
    scale: float = 1.0,
    angle: float = 0.0,
    seed: int = 1,
) -> Image.Image:
    """Cloth (or glaze) of colour `ground` printed with `pattern` in `accent`.

    scale multiplies the pattern's repeat (1 = about 6 units), angle turns it (degrees, counter-clockwise).
    Raises KeyError on an unknown pattern.
    """
    if pattern == "plain":
        return Image.new("RGB", (FULL, FULL), ground)
    if pattern == "gradient":
        image = _ombre(canvas, ground, accent)
    else:
        image = _PRINTS[pattern](canvas.unit * scale, ground, accent, random.Random(seed))  # noqa: S311
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=ground) if angle else image


def _ombre(canvas: Canvas, ground: Colour, accent: Colour) -> Image.Image:
    column = Image.new("RGB", (1, FULL))
    (_, top), (_, bottom) = canvas.pixels([(0, 22), (0, 80)])
    for y in range(FULL):
        t = max(0.0, min(1.0, (y - top) / (bottom - top)))
        column.putpixel((0, y), blend(ground, accent, t * t * (3 - 2 * t)))
    return column.resize((FULL, FULL))


def _ink(ground: Colour, ink: Colour, marks: Image.Image) -> Image.Image:
    image = Image.new("RGB", (FULL, FULL), ground)
    image.paste(ink, (0, 0), marks)
    return image


def _sheet() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("L", (FULL * 2, FULL * 2))
    return sheet, ImageDraw.Draw(sheet)


def _stripes(unit: float, ground: Colour, accent: Colour, rng: random.Random) -> Image.Image:
    strip = Image.new("L", (1, FULL * 2))
    repeat = unit * 2 * rng.choice((4.4, 6.0, 8.0))
    share = rng.choice((0.32, 0.5))
    for y in range(FULL * 2):
        if (y / repeat) % 1 < share:
            strip.putpixel((0, y), 255)
    return _ink(ground, accent, strip.resize((FULL * 2, FULL * 2)).reduce(2))


def _pinstripes(unit: float, ground: Colour, accent: Colour, rng: random.Random) -> Image.Image:
    sheet, draw = _sheet()
    repeat = unit * 2 * rng.choice((3.0, 3.8))
    x = 0.0
    while x < FULL * 2:
        draw.rectangle((x, 0, x + unit * 0.9, FULL * 2), fill=225)
        x += repeat
    return _ink(ground, accent, sheet.reduce(2))


def _checks(unit: float, ground: Colour, accent: Colour, rng: random.Random) -> Image.Image:
    repeat = unit * 2 * rng.choice((4.2, 6.0, 8.5))
    tartan = rng.random() < 0.5
    strip = Image.new("L", (FULL * 2, 1))
    for x in range(FULL * 2):
        phase = (x / repeat) % 1
        strip.putpixel((x, 0), 140 if phase < 0.5 else 0)
    across = strip.resize((FULL * 2, FULL * 2)).reduce(2)
    marks = ImageChops.screen(across, across.transpose(Image.Transpose.ROTATE_90))
    image = _ink(ground, accent, marks)
    if tartan:
        thin, draw = _sheet()
        position = repeat * 0.75
        while position < FULL * 2:
            draw.rectangle((position, 0, position + unit * 0.55, FULL * 2), fill=150)
            draw.rectangle((0, position, FULL * 2, position + unit * 0.55), fill=150)
            position += repeat
        line = shade(accent, 0.55) if luminance(ground) < 0.45 else shade(accent, -0.35)
        image.paste(line, (0, 0), thin.reduce(2))
    return image


def _dots(unit: float, ground: Colour, accent: Colour, rng: random.Random) -> Image.Image:
    sheet, draw = _sheet()
    repeat = unit * 2 * rng.choice((3.6, 5.0, 7.0))
    r = repeat * rng.choice((0.2, 0.27))
    row = 0
    y = 0.0
    while y < FULL * 2 + r:
        x = -repeat / 2 * (row % 2)
        while x < FULL * 2 + r:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
            x += repeat
        y += repeat * 0.866
        row += 1
    return _ink(ground, accent, sheet.reduce(2))


def _zigzag(unit: float, ground: Colour, accent: Colour, rng: random.Random) -> Image.Image:
    sheet, draw = _sheet()
    repeat = unit * 2 * rng.choice((5.0, 7.0))
    y = -repeat
    while y < FULL * 2 + repeat:
        line = [(i * repeat / 2, y + (repeat * 0.42 if i % 2 else 0)) for i in range(int(FULL * 4 / repeat) + 2)]
        draw.line(line, fill=255, width=max(2, round(repeat * 0.3)), joint="curve")
        y += repeat
    return _ink(ground, accent, sheet.reduce(2))


def _floral(unit: float, ground: Colour, accent: Colour, rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (FULL * 2, FULL * 2), ground)
    draw = ImageDraw.Draw(image)
    repeat = unit * 2 * 9.5
    leaf = blend(ground, (78, 128, 84), 0.8) if luminance(ground) > 0.4 else blend(ground, (150, 190, 150), 0.55)
    petals = (accent, blend(accent, ground, 0.3), shade(accent, 0.3))
    rows = int(FULL * 2 / repeat * 1.2) + 2
    for row in range(rows):
        for column in range(rows):
            x = (column + (0.5 if row % 2 else 0) + rng.uniform(-0.16, 0.16)) * repeat
            y = (row * 0.85 + rng.uniform(-0.16, 0.16)) * repeat
            r = repeat * rng.uniform(0.13, 0.19)
            turn = rng.uniform(0, math.tau)
            for side in (0.9, 2.4):
                a = turn + side
                tip = (x + math.cos(a) * r * 2.7, y + math.sin(a) * r * 2.7)
                left = (x + math.cos(a + 0.4) * r * 1.6, y + math.sin(a + 0.4) * r * 1.6)
                right = (x + math.cos(a - 0.4) * r * 1.6, y + math.sin(a - 0.4) * r * 1.6)
                draw.polygon([(x, y), left, tip, right], fill=leaf)
            fill = rng.choice(petals)
            for k in range(5):
                a = turn + k * math.tau / 5
                px, py, pr = x + math.cos(a) * r * 0.85, y + math.sin(a) * r * 0.85, r * 0.68
                draw.ellipse((px - pr, py - pr, px + pr, py + pr), fill=fill)
            c = r * 0.4
            draw.ellipse((x - c, y - c, x + c, y + c), fill=(236, 196, 92))
            bx, by, br = x + repeat * 0.46, y + repeat * 0.1, r * 0.32
            draw.ellipse((bx - br, by - br, bx + br, by + br), fill=petals[1])
    return image.reduce(2)


_PRINTS = {
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "checks": _checks,
    "dots": _dots,
    "zigzag": _zigzag,
    "floral": _floral,
}


def finish(canvas: Canvas, image: Image.Image, material: str) -> Image.Image:
    """Give a printed or plain texture the surface of its material; an unknown material stays smooth."""
    px = max(1, round(canvas.zoom))
    match material:
        case "cotton" | "linen" | "canvas" | "viscose":
            strength = {"linen": 0.13, "canvas": 0.13}.get(material, 0.045)
            image = _grain(image, _noise(3, 2 * px, FULL // 12), strength * 0.6)
            return _grain(image, _noise(4, FULL // 12, 2 * px), strength * 0.6)
        case "wool" | "cashmere" | "boucle" | "felt":
            image = _grain(image, _noise(5, 3 * px, 3 * px), 0.3 if material == "boucle" else 0.16)
            return _knit(canvas, image) if material in ("wool", "cashmere") else image
        case "denim":
            return _denim(image, px)
        case "leather":
            hide = _noise(6, 3 * px, 3 * px)
            relief = ImageChops.subtract(ImageChops.offset(hide, px, px), hide, 1.2, 128)
            return _grain(image, relief, 0.1)
        case "suede":
            return _grain(image, _noise(7, 2 * px, 2 * px), 0.09)
        case "straw" | "rattan":
            return _wicker(canvas, image)
        case "stoneware":
            return _speckled(image, px)
        case "oak" | "walnut" | "beech" | "black ash":
            return wood(canvas, image.getpixel((FULL // 2, FULL // 2)))  # type: ignore[arg-type]
        case _:
            return image


def _knit(canvas: Canvas, image: Image.Image) -> Image.Image:
    stitch = max(4, round(canvas.unit * 1.5))
    tile = Image.new("L", (stitch * 4, stitch * 4), 128)
    draw = ImageDraw.Draw(tile)
    w = max(2, round(stitch * 0.9))
    for y in range(-1, 3):
        top = y * stitch * 2
        draw.line((0, top, stitch * 2, top + stitch * 1.4, stitch * 4, top), fill=96, width=w)
        draw.line((0, top + stitch, stitch * 2, top + stitch * 2.4, stitch * 4, top + stitch), fill=152, width=w)
    draw.line((0, 0, 0, stitch * 4), fill=92, width=max(1, w // 2))
    tile = tile.filter(ImageFilter.GaussianBlur(stitch / 5)).reduce(2)
    wall = Image.new("L", (FULL, FULL))
    for y in range(0, FULL, tile.height):
        for x in range(0, FULL, tile.width):
            wall.paste(tile, (x, y))
    return _grain(image, wall, 0.7)


def _denim(image: Image.Image, px: int) -> Image.Image:
    size = FULL // (2 * px)
    twill = Image.frombytes(
        "L", (size, size), bytes(150 if (x + y) % 3 == 0 else 118 for y in range(size) for x in range(size))
    ).resize((FULL, FULL), Image.Resampling.BILINEAR)
    image = _grain(image, twill, 0.55)
    return _grain(_grain(image, _noise(8, 2 * px, 2 * px), 0.14), _noise(9, 40, 90), 0.12)


def _wicker(canvas: Canvas, image: Image.Image) -> Image.Image:
    cell = max(3, round(canvas.unit * 1.5))
    tile = Image.new("L", (cell * 2, cell * 2), 128)
    draw = ImageDraw.Draw(tile)
    for x, y in ((0, 0), (cell, cell)):
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=148)
        draw.line((x, y + cell - 1, x + cell - 1, y + cell - 1), fill=70, width=max(1, cell // 4))
    for x, y in ((cell, 0), (0, cell)):
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=112)
        draw.line((x + cell - 1, y, x + cell - 1, y + cell - 1), fill=70, width=max(1, cell // 4))
    wall = Image.new("L", (FULL, FULL))
    for y in range(0, FULL, tile.height):
        for x in range(0, FULL, tile.width):
            wall.paste(tile, (x, y))
    return _grain(image, wall, 0.9)


def _speckled(image: Image.Image, px: int) -> Image.Image:
    specks = _noise(10, 2 * px, 2 * px).point([150 if v > 214 else 0 for v in range(256)])
    image = image.copy()
    image.paste((92, 76, 62), (0, 0), specks)
    return _grain(image, _noise(11, 40, 40), 0.1)


def wood(canvas: Canvas, colour: Colour, *, upright: bool = True) -> Image.Image:
    """Planed timber with its grain running upright or across."""
    fine = _noise(12, 3, 90) if upright else _noise(13, 90, 3)
    coarse = _noise(14, 12, 180) if upright else _noise(15, 180, 12)
    image = Image.new("RGB", (FULL, FULL), colour)
    return _grain(_grain(image, fine, 0.24), coarse, 0.18)

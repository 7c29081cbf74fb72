"""The drawing board of the demo shop: outlines, light and shadow, with Pillow alone.

Shapes are given in units of a 100 x 100 board, y downwards, as short SVG-like paths. Edges are drawn at
four times the size and reduced, so they are anti-aliased; light, texture and shadow are painted at the
final size, which is what keeps a photo at a few tens of milliseconds. Light comes from the upper left.
"""

import io
import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]

SIZE = 384
"""Width and height of a finished photo in pixels."""

# Pixels drawn beyond each border and cut off at the end: light is computed from shifted masks, and a
# shape that runs out of the picture must not look as if it ended there.
PAD = 16
FULL = SIZE + 2 * PAD
_OVERSAMPLE = 4
_TOKEN = re.compile(r"[MLQCZ]|-?\d+(?:\.\d+)?(?:e-?\d+)?")


def path(text: str, steps: int = 14) -> list[Point]:
    """Flatten an SVG-like path of absolute M, L, Q, C commands (Z is optional) into points.

    Curves become `steps` straight pieces. Raises ValueError on any other command.
    """
    tokens = _TOKEN.findall(text)
    points: list[Point] = []
    command = "M"
    i = 0
    while i < len(tokens):
        if tokens[i].isalpha():
            command = tokens[i]
            i += 1
            if command == "Z":
                continue
        need = {"M": 2, "L": 2, "Q": 4, "C": 6}[command]
        if i + need > len(tokens):
            raise ValueError(f"path ends inside {command}: {text!r}")
        numbers = [float(token) for token in tokens[i : i + need]]
        i += need
        if need == 2:
            points.append((numbers[0], numbers[1]))
            continue
        if not points:
            raise ValueError(f"path starts with a curve: {text!r}")
        controls = [points[-1], *zip(numbers[::2], numbers[1::2], strict=True)]
        points.extend(_bezier(controls, step / steps) for step in range(1, steps + 1))
    return points


def _bezier(controls: Sequence[Point], t: float) -> Point:
    line = list(controls)
    while len(line) > 1:
        line = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for a, b in pairwise(line)]
    return line[0]


def mirrored(points: Iterable[Point], axis: float = 50.0) -> list[Point]:
    """The same outline seen in a mirror that stands at x = `axis`."""
    return [(2 * axis - x, y) for x, y in points]


def symmetric(half: str, axis: float = 50.0) -> list[Point]:
    """Close a right half, drawn from its top to its bottom on the axis, with its mirror image."""
    right = path(half)
    return right + mirrored(reversed(right), axis)


def ellipse(cx: float, cy: float, rx: float, ry: float) -> list[Point]:
    """An ellipse as four curves (error below 0.03 % of the radius)."""
    kx, ky = rx * 0.5523, ry * 0.5523
    return path(
        f"M{cx - rx:.4f} {cy:.4f} C{cx - rx:.4f} {cy - ky:.4f} {cx - kx:.4f} {cy - ry:.4f} {cx:.4f} {cy - ry:.4f} "
        f"C{cx + kx:.4f} {cy - ry:.4f} {cx + rx:.4f} {cy - ky:.4f} {cx + rx:.4f} {cy:.4f} "
        f"C{cx + rx:.4f} {cy + ky:.4f} {cx + kx:.4f} {cy + ry:.4f} {cx:.4f} {cy + ry:.4f} "
        f"C{cx - kx:.4f} {cy + ry:.4f} {cx - rx:.4f} {cy + ky:.4f} {cx - rx:.4f} {cy:.4f}"
    )


def shade(colour: Colour, amount: float) -> Colour:
    """Mix a colour with white (amount > 0) or black (amount < 0); -1 <= amount <= 1."""
    target = 255 if amount > 0 else 0
    r, g, b = (round(c + (target - c) * abs(amount)) for c in colour)
    return r, g, b


def blend(a: Colour, b: Colour, t: float) -> Colour:
    """The colour that lies at share t of the way from a to b."""
    r, g, bl = (round(x + (y - x) * t) for x, y in zip(a, b, strict=True))
    return r, g, bl


def luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0 (black) to 1 (white)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


Ramp = Sequence[tuple[float, float]]
CYLINDER: Ramp = ((0, -0.55), (0.12, -0.05), (0.28, 0.34), (0.42, 0.12), (0.7, -0.18), (0.92, -0.5), (1, -0.4))
"""Light across an upright cylinder, left to right: positions 0..1 and light -1..1."""
TUBE: Ramp = ((0, -0.5), (0.3, 0.55), (0.55, 0.0), (1, -0.6))
"""Light across a thin polished tube."""
FALL: Ramp = ((0, 0.12), (0.5, 0.0), (1, -0.2))
"""Light that weakens downwards."""


def _ramp_image(stops: Ramp, length: int, gain: float) -> Image.Image:
    values = bytearray()
    for i in range(length):
        t = i / max(1, length - 1)
        for (t0, v0), (t1, v1) in pairwise(stops):
            if t <= t1:
                v = v0 + (v1 - v0) * ((t - t0) / (t1 - t0) if t1 > t0 else 0)
                break
        else:
            v = stops[-1][1]
        values.append(max(0, min(255, round(128 + v * gain))))
    return Image.frombytes("L", (length, 1), bytes(values))


class Fold(tuple[Sequence[Point], float, float]):
    """A crease on cloth: points, width in units, light -1 (shadow) to 1 (highlight)."""

    __slots__ = ()

    def __new__(cls, line: Sequence[Point] | str, width: float, light: float) -> "Fold":
        return super().__new__(cls, (path(line) if isinstance(line, str) else line, width, light))


class Canvas:
    """One photo in the making.

    `zoom` and `centre` (in units) move the camera: outlines and textures are drawn at the new scale, so a
    close-up is as sharp as the whole. `tint` is the colour of the studio; `floor` (units, or None for a
    flat lay) is where the wall ends.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        tint: Colour = (248, 248, 247),
        floor: float | None = None,
        zoom: float = 1.0,
        centre: Point = (50.0, 50.0),
    ) -> None:
        self.rng = rng
        self.zoom = zoom
        self.unit = SIZE / 100 * zoom
        self._left = PAD + SIZE / 2 - centre[0] * self.unit
        self._top = PAD + SIZE / 2 - centre[1] * self.unit
        self.image = self._studio(tint, floor)

    def pixels(self, points: Iterable[Point]) -> list[Point]:
        """Board units to pixels of the working image."""
        return [(self._left + x * self.unit, self._top + y * self.unit) for x, y in points]

    def _studio(self, tint: Colour, floor: float | None) -> Image.Image:
        top, bottom = shade(tint, 0.35), shade(tint, -0.05)
        column = Image.new("RGB", (1, FULL))
        edge = None if floor is None else self._top + floor * self.unit
        for y in range(FULL):
            t = y / FULL
            colour = blend(top, bottom, t)
            if edge is not None:
                # A rounded studio cove: darkest at the bend, lighter again towards the viewer.
                d = (y - edge) / (0.16 * FULL)
                colour = shade(colour, -0.075 * max(0.0, 1 - abs(d)) ** 1.5)
                if d > 0:
                    colour = shade(colour, -0.02)
            column.putpixel((0, y), colour)
        image = column.resize((FULL, FULL))
        glow = Image.radial_gradient("L").resize((FULL, FULL)).point(_lut(lambda v: max(0.0, v - 110) * 0.16))
        image = Image.composite(Image.new("RGB", (FULL, FULL), shade(tint, -0.35)), image, glow)
        return ImageChops.add(image, _film_grain(), 1, -128)

    def mask(self, outline: Sequence[Point]) -> tuple[Image.Image, tuple[int, int, int, int]]:
        """The anti-aliased mask (mode L) of a closed outline and the box it fills in the working image."""
        return self._mask(self.pixels(outline), None)

    def _mask(
        self, points: Sequence[Point], width: float | None, margin: int = 0
    ) -> tuple[Image.Image, tuple[int, int, int, int]]:
        grow = (width or 0) / 2 + 1 + margin
        x0 = max(0, int(min(x for x, _ in points) - grow))
        y0 = max(0, int(min(y for _, y in points) - grow))
        x1 = min(FULL, int(max(x for x, _ in points) + grow) + 1)
        y1 = min(FULL, int(max(y for _, y in points) + grow) + 1)
        if x1 <= x0 or y1 <= y0:
            return Image.new("L", (1, 1)), (0, 0, 1, 1)
        s = _OVERSAMPLE
        big = Image.new("L", ((x1 - x0) * s, (y1 - y0) * s))
        draw = ImageDraw.Draw(big)
        scaled = [((x - x0) * s, (y - y0) * s) for x, y in points]
        if width is None:
            draw.polygon(scaled, fill=255)
        else:
            w = max(1, round(width * s))
            draw.line(scaled, fill=255, width=w, joint="curve")
            r = w / 2
            for x, y in (scaled[0], scaled[-1]):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return big.reduce(s), (x0, y0, x1, y1)

    def part(
        self,
        outline: Sequence[Point],
        paint: Image.Image | Colour,
        *,
        relief: float = 0.5,
        soft: float = 2.0,
        across: Ramp | None = None,
        down: Ramp | None = None,
        gain: float = 90.0,
        folds: Sequence[Fold] = (),
        drop: float = 0.0,
        gleam: Sequence[Sequence[Point]] = (),
        gleam_light: float = 0.5,
        gleam_soft: float = 0.8,
        width: float | None = None,
    ) -> None:
        """Paint one lit part of the product.

        paint: a texture of the working image's size or a colour. relief: how strongly the rim turns
        away from the light, soft: over how many units. across, down: light profiles over the part's box,
        `gain` grey levels strong. folds: creases. drop: how far (units) the part stands above what lies under it, which
        casts the shadow. gleam: outlines of highlights, blurred over gleam_soft units. width: the
        outline is an open line of this width instead of a closed shape.
        """
        points = self.pixels(outline)
        px_width = None if width is None else width * self.unit
        reach = int(max(soft, drop * 2) * self.unit * 1.5) + 2
        mask, box = self._mask(points, px_width, margin=reach)
        size = mask.size
        if drop:
            self._cast(mask, box, drop)
        light = self._relief(mask, relief, soft)
        if across:
            light = _add(light, self._profile(points, box, size, across, gain, horizontal=True))
        if down:
            light = _add(light, self._profile(points, box, size, down, gain, horizontal=False))
        if folds:
            light = _add(light, self._creases(folds, box, size))
        base = paint.crop(box) if isinstance(paint, Image.Image) else Image.new("RGB", size, paint)
        lit = ImageChops.hard_light(base, Image.merge("RGB", (light, light, light)))
        for shape in gleam:
            spot = Image.new("L", size)
            ImageDraw.Draw(spot).polygon([(x - box[0], y - box[1]) for x, y in self.pixels(shape)], fill=255)
            spot = spot.filter(ImageFilter.GaussianBlur(gleam_soft * self.unit))
            lit.paste((255, 255, 255), (0, 0), spot.point(_lut(lambda v: v * gleam_light)))
        self.image.paste(lit, box[:2], mask)

    def _relief(self, mask: Image.Image, relief: float, soft: float) -> Image.Image:
        if relief <= 0:
            return Image.new("L", mask.size, 128)
        step = max(1, round(soft * self.unit * 0.45))
        near = mask.filter(ImageFilter.GaussianBlur(soft * self.unit * 0.6))
        return ImageChops.subtract(
            ImageChops.offset(near, -step, -step), ImageChops.offset(near, step, step), 2.0 / relief, 128
        )

    def _profile(
        self,
        points: Sequence[Point],
        box: tuple[int, int, int, int],
        size: tuple[int, int],
        stops: Ramp,
        gain: float,
        *,
        horizontal: bool,
    ) -> Image.Image:
        axis = 0 if horizontal else 1
        low, high = min(p[axis] for p in points), max(p[axis] for p in points)
        length = max(2, round(high - low))
        strip = _ramp_image(stops, length, gain)
        line = Image.new("L", (size[axis], 1), 128)
        line.paste(strip, (round(low) - box[axis], 0))
        return (line if horizontal else line.transpose(Image.Transpose.ROTATE_270)).resize(size)

    def _creases(self, folds: Sequence[Fold], box: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
        cloth = Image.new("L", size, 128)
        draw = ImageDraw.Draw(cloth)
        width = 1.0
        for line, fold_width, light in folds:
            at = [(x - box[0], y - box[1]) for x, y in self.pixels(line)]
            level = max(0, min(255, round(128 + 110 * light)))
            draw.line(at, fill=level, width=max(1, round(fold_width * self.unit)), joint="curve")
            width = max(width, fold_width)
        return cloth.filter(ImageFilter.GaussianBlur(width * self.unit * 0.45))

    def _cast(self, mask: Image.Image, box: tuple[int, int, int, int], drop: float) -> None:
        shift = round(drop * self.unit * 0.5)
        dark = ImageChops.offset(mask.filter(ImageFilter.GaussianBlur(drop * self.unit * 0.55)), shift, shift)
        under = self.image.crop(box)
        under.paste(Image.eval(under, lambda v: int(v * 0.42)), (0, 0), dark.point(_lut(lambda v: v * 0.55)))
        self.image.paste(under, box[:2])

    def line(
        self,
        points: Sequence[Point] | str,
        width: float,
        colour: Colour,
        opacity: float = 1.0,
        dash: float | None = None,
    ) -> None:
        """Draw an open line with round ends: a seam, a cord, a wire. dash: stitch length in units."""
        line = path(points) if isinstance(points, str) else list(points)
        pieces = [line] if dash is None else _dashes(line, dash)
        for piece in pieces:
            mask, box = self._mask(self.pixels(piece), width * self.unit)
            if opacity < 1:
                mask = mask.point(_lut(lambda v: v * opacity))
            self.image.paste(colour, box, mask)

    def fill(self, outline: Sequence[Point], colour: Colour, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Lay a flat colour over an outline; soft (units) blurs its edge."""
        margin = int(soft * self.unit * 2.5)
        mask, box = self._mask(self.pixels(outline), None, margin=margin)
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft * self.unit))
        if opacity < 1:
            mask = mask.point(_lut(lambda v: v * opacity))
        self.image.paste(colour, box, mask)

    def ground(self, cx: float, cy: float, rx: float, ry: float, strength: float = 0.45) -> None:
        """The soft shadow of a thing that stands on the floor, with the dark line of contact."""
        self.fill(ellipse(cx + 1.5, cy + ry * 0.15, rx * 1.12, ry * 1.25), (40, 38, 44), strength * 0.5, soft=3.0)
        self.fill(ellipse(cx, cy, rx * 0.97, ry * 0.55), (24, 22, 28), strength, soft=1.0)

    def lay(self, outline: Sequence[Point], height: float = 1.6, strength: float = 0.5) -> None:
        """The shadow of a thing that lies flat, `height` units thick."""
        moved = [(x + height * 0.6, y + height) for x, y in outline]
        self.fill(moved, (46, 44, 52), strength * 0.55, soft=height * 1.3)
        self.fill([(x + 0.3, y + 0.5) for x, y in outline], (40, 38, 44), strength * 0.6, soft=0.5)

    def glow(self, cx: float, cy: float, radius: float, colour: Colour, strength: float = 0.6) -> None:
        """Add light around a lit bulb; strength 0..1."""
        mask, box = self._mask(self.pixels(ellipse(cx, cy, radius, radius)), None)
        size = mask.size
        halo = (
            Image.radial_gradient("L").resize(size).point(_lut(lambda v: max(0.0, 1 - v / 180) ** 1.6 * 255 * strength))
        )
        under = self.image.crop(box)
        self.image.paste(ImageChops.screen(under, Image.new("RGB", size, colour)), box[:2], halo)

    def jpeg(self, *, flip: bool = False) -> bytes:
        """The finished photo: SIZE x SIZE, quality 88, without metadata."""
        image = self.image.crop((PAD, PAD, PAD + SIZE, PAD + SIZE))
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=88, subsampling=1)
        return file.getvalue()


def _dashes(line: Sequence[Point], dash: float) -> list[list[Point]]:
    pieces: list[list[Point]] = []
    walked = 0.0
    current: list[Point] = [line[0]]
    for (x0, y0), (x1, y1) in pairwise(line):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        done = 0.0
        while length - done > dash - walked:
            done += dash - walked
            walked = 0.0
            t = done / length
            cut = (x0 + (x1 - x0) * t, y0 + (y1 - y0) * t)
            current.append(cut)
            pieces.append(current)
            current = [cut]
        walked += length - done
        current.append((x1, y1))
    return pieces[::2]


@cache
def _film_grain() -> Image.Image:
    """Noise of two grey levels: without it the studio's soft gradients show as bands."""
    noise = random.Random(1).randbytes(FULL * FULL)  # noqa: S311
    level = Image.frombytes("L", (FULL, FULL), noise).point([126 + v // 52 for v in range(256)])
    return Image.merge("RGB", (level, level, level))


def _add(a: Image.Image, b: Image.Image) -> Image.Image:
    return ImageChops.add(a, b, 1, -128)


def _lut(curve: Callable[[float], float]) -> list[int]:
    return [max(0, min(255, round(curve(float(v))))) for v in range(256)]


View = Literal["whole", "detail"]
"""How a product is photographed: all of it, or the camera close to its material."""

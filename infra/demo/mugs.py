"""Things to drink from: mugs, espresso cups and travel tumblers."""

from PIL import Image

from infra.demo.drawing import (
    CYLINDER,
    FULL,
    Canvas,
    Colour,
    Point,
    ellipse,
    luminance,
    path,
    shade,
    symmetric,
)
from infra.demo.look import Cloth, Look

FLOOR = 66.0


def _bent(canvas: Canvas, texture: Image.Image, cx: float, r: float, sag: float) -> Image.Image:
    """Wrap a flat print around an upright cylinder: it sags in the middle and narrows at the sides."""
    (left, _), (right, _) = canvas.pixels([(cx - r, 0), (cx + r, 0)])
    sag_px = sag * canvas.unit
    mesh: list[tuple[tuple[int, int, int, int], tuple[float, ...]]] = []
    steps = 16
    middle, half = (left + right) / 2, (right - left) / 2

    def source(t: float) -> tuple[float, float]:
        # Half an angle is enough: the full arcsine would squeeze the print into a blur at the rim.
        x = max(-1.0, min(1.0, t))
        return middle + half * (0.65 * x + 0.35 * x**3), -sag_px * (1 - x * x) ** 0.5

    for k in range(steps):
        t0, t1 = -1 + 2 * k / steps, -1 + 2 * (k + 1) / steps
        x0, x1 = round(middle + half * t0), round(middle + half * t1)
        (u0, v0), (u1, v1) = source(t0), source(t1)
        mesh.append(((x0, 0, x1, FULL), (u0, v0, u0, FULL + v0, u1, FULL + v1, u1, v1)))
    return texture.transform(texture.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _inside(look: Look) -> Colour:
    return look.second if look.seed % 3 == 0 and look.pattern == "plain" else (246, 243, 236)


def _rim(canvas: Canvas, cx: float, y: float, r: float, ry: float, look: Look, drink: bool) -> None:
    inner = _inside(look)
    edge = shade(look.ground, 0.16) if look.material != "enamel" else (50, 64, 110)
    canvas.part(ellipse(cx, y, r, ry), edge, relief=0.5, soft=0.6)
    canvas.part(ellipse(cx, y + 0.1, r - 1.1, ry - 0.55), inner, relief=0, across=((0, -0.5), (0.3, -0.2), (1, 0.12)))
    if drink:
        canvas.part(ellipse(cx, y + ry * 0.42, r - 2.9, ry * 0.55), (88, 54, 34), relief=0.2, soft=0.6)
        canvas.fill(ellipse(cx - r * 0.3, y + ry * 0.36, r * 0.24, ry * 0.12), (214, 178, 136), 0.7, soft=0.5)


def _handle(canvas: Canvas, look: Look, line: str, width: float) -> None:
    canvas.part(
        path(line),
        look.ground if look.material != "enamel" else shade(look.ground, -0.04),
        width=width,
        relief=1.0,
        soft=1.2,
    )


def mug(canvas: Canvas, look: Look) -> None:
    """A mug: straight, tapered, round or enamel."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=0.85)
    top, bottom = 26 + rng.uniform(-3, 2), 80.0
    r = 23 + rng.uniform(-1.5, 1.5)
    cx = 44.0
    ry = 4.6
    canvas.ground(cx + 1, bottom + 0.6, r * (0.8 if look.cut in ("tapered", "round") else 1.0) + 1, 4.2)
    if look.cut == "tapered":
        foot = r * 0.7
        _handle(
            canvas,
            look,
            f"M{cx + r - 1.6} {top + 11} C{cx + r + 16} {top + 8} {cx + r + 16} {top + 36} {cx + r - 4.6} {top + 38}",
            4,
        )
        body = path(
            f"M{cx - r} {top} Q{cx} {top + 2} {cx + r} {top} L{cx + foot} {bottom - 2} "
            f"Q{cx + foot - 1} {bottom + 2} {cx} {bottom + 3} Q{cx - foot + 1} {bottom + 2} "
            f"{cx - foot} {bottom - 2}"
        )
    elif look.cut == "round":
        _handle(
            canvas,
            look,
            f"M{cx + r} {top + 14} C{cx + r + 18} {top + 10} {cx + r + 17} {top + 38} {cx + r - 0.6} {top + 37}",
            4.4,
        )
        body = path(
            f"M{cx - r + 3} {top} Q{cx} {top + 2} {cx + r - 3} {top} C{cx + r + 2} {top + 14} "
            f"{cx + r + 5} {bottom - 14} {cx + r * 0.62} {bottom - 1} "
            f"Q{cx} {bottom + 5} {cx - r * 0.62} {bottom - 1} C{cx - r - 5} {bottom - 14} "
            f"{cx - r - 2} {top + 14} {cx - r + 3} {top}"
        )
    else:
        _handle(
            canvas,
            look,
            f"M{cx + r - 0.6} {top + 10} C{cx + r + 17} {top + 8} {cx + r + 17} {top + 40} {cx + r - 0.6} {top + 40}",
            2.6 if look.cut == "enamel" else 4.2,
        )
        body = path(
            f"M{cx - r} {top} Q{cx} {top + 2} {cx + r} {top} L{cx + r} {bottom - 4} Q{cx + r} "
            f"{bottom + 1} {cx} {bottom + 4} Q{cx - r} {bottom + 1} {cx - r} {bottom - 4}"
        )
    texture = cloth.main if look.pattern in ("plain", "gradient") else _bent(canvas, cloth.main, cx, r + 2, 3.4)
    shine = [
        path(
            f"M{cx - r * 0.66} {top + 9} Q{cx - r * 0.72} {(top + bottom) / 2} {cx - r * 0.6} "
            f"{bottom - 10} L{cx - r * 0.46} {bottom - 10} Q{cx - r * 0.56} "
            f"{(top + bottom) / 2} {cx - r * 0.52} {top + 9}"
        )
    ]
    glossy = look.material not in ("stoneware",)
    canvas.part(
        body,
        texture,
        relief=0.25,
        soft=2,
        across=CYLINDER,
        gain=80,
        gleam=shine if glossy else (),
        gleam_light=0.6,
        gleam_soft=0.9,
    )
    if look.material == "stoneware" and look.pattern == "plain" and look.seed % 2:
        # A dipped foot: the raw clay shows below the glaze.
        raw = path(
            f"M{cx - r - 4} {bottom - 11} Q{cx} {bottom - 6} {cx + r + 4} {bottom - 11} "
            f"L{cx + r + 4} {bottom + 8} L{cx - r - 4} {bottom + 8}"
        )
        _dipped(canvas, body, raw)
    if look.cut == "enamel":
        canvas.line(f"M{cx - r} {top} Q{cx} {top + 9} {cx + r} {top}", 1.0, (50, 64, 110))
    _rim(canvas, cx, top, r - (3 if look.cut == "round" else 0), ry, look, look.seed % 4 == 1)


def _dipped(canvas: Canvas, body: list[Point], raw: list[Point]) -> None:
    clay = Image.new("L", (FULL, FULL))
    mask, box = canvas.mask(raw)
    clay.paste(mask, box)
    shape, at = canvas.mask(body)
    whole = Image.new("L", (FULL, FULL))
    whole.paste(shape, at)
    both = Image.composite(clay, Image.new("L", (FULL, FULL)), whole)
    tone = Image.blend(canvas.image, Image.new("RGB", (FULL, FULL), (190, 150, 112)), 0.62)
    canvas.image.paste(tone, (0, 0), both)


def cup(canvas: Canvas, look: Look) -> None:
    """An espresso cup on its saucer: bowl or straight."""
    cloth = Cloth(canvas, look, scale=0.7)
    cx = 48.0
    canvas.ground(50, 79, 36, 5)
    saucer = look.second if look.seed % 2 and look.pattern != "plain" else look.ground
    canvas.part(ellipse(50, 76, 35, 6.6), shade(saucer, -0.12), relief=0.5, soft=1)
    canvas.part(ellipse(50, 74.6, 35, 6.2), saucer, relief=0.6, soft=1.2, across=((0, -0.15), (0.3, 0.2), (1, -0.25)))
    canvas.part(ellipse(50, 75, 20, 3.2), shade(saucer, -0.1), relief=0.5, soft=1)
    canvas.fill(ellipse(cx + 3, 75.6, 17, 2.6), (60, 54, 56), 0.35, soft=1)
    if look.cut == "bowl":
        _handle(canvas, look, f"M{cx + 20} 48 C{cx + 36} 44 {cx + 32} 64 {cx + 15} 63.6", 3.2)
        body = path(
            f"M{cx - 22} 42 Q{cx} 44 {cx + 22} 42 C{cx + 22} 58 {cx + 15} 70 {cx + 9} 73 "
            f"Q{cx} 76 {cx - 9} 73 C{cx - 15} 70 {cx - 22} 58 {cx - 22} 42"
        )
        r = 22.0
    else:
        _handle(canvas, look, f"M{cx + 17} 46 C{cx + 32} 43 {cx + 31} 64 {cx + 16} 63", 3.2)
        body = path(
            f"M{cx - 18} 38 Q{cx} 40 {cx + 18} 38 L{cx + 15.6} 70 Q{cx + 14} 74 {cx} 75 Q{cx - 14} 74 {cx - 15.6} 70"
        )
        r = 18.0
    texture = cloth.main if look.pattern in ("plain", "gradient") else _bent(canvas, cloth.main, cx, r, 2.6)
    y = 42.0 if look.cut == "bowl" else 38.0
    canvas.part(
        body,
        texture,
        relief=0.3,
        soft=2,
        across=CYLINDER,
        gain=80,
        gleam=[
            path(
                f"M{cx - r * 0.6} {y + 6} Q{cx - r * 0.6} {y + 16} {cx - r * 0.36} {y + 24} "
                f"L{cx - r * 0.26} {y + 23} Q{cx - r * 0.46} {y + 14} {cx - r * 0.46} {y + 6}"
            )
        ],
        gleam_light=0.6,
        gleam_soft=0.8,
    )
    _rim(canvas, cx, y, r, 3.8, look, True)


def tumbler(canvas: Canvas, look: Look) -> None:
    """A travel tumbler with a lid: slim, or with a cork band."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=0.85)
    top, bottom = 20.0, 86.0
    r, foot = 16 + rng.uniform(-0.8, 1), 12.4
    canvas.ground(50, bottom, foot + 2, 3.6)
    body = path(
        f"M{50 - r} {top} L{50 + r} {top} L{50 + foot} {bottom - 2} Q{50 + foot - 1} "
        f"{bottom + 1.4} 50 {bottom + 2.4} Q{50 - foot + 1} {bottom + 1.4} {50 - foot} {bottom - 2}"
    )
    texture = cloth.main if look.pattern in ("plain", "gradient") else _bent(canvas, cloth.main, 50, r, 2.6)
    canvas.part(
        body,
        texture,
        relief=0.25,
        soft=1.6,
        across=CYLINDER,
        gain=90,
        gleam=[
            path(
                f"M{50 - r * 0.62} {top + 8} L{50 - foot * 0.6} {bottom - 8} L{50 - foot * 0.4} "
                f"{bottom - 8} L{50 - r * 0.46} {top + 8}"
            )
        ],
        gleam_light=0.5,
        gleam_soft=0.8,
    )
    if look.cut == "cork band":
        band = path(
            f"M{50 - r * 0.93 - 0.6} 42 Q50 45 {50 + r * 0.93 + 0.6} 42 "
            f"L{50 + r * 0.86 + 0.6} 60 Q50 63 {50 - r * 0.86 - 0.6} 60"
        )
        canvas.part(band, (196, 148, 98), relief=0.4, soft=1, across=CYLINDER, drop=0.3)
        for _ in range(46):
            x, y = 50 + rng.uniform(-13, 13), rng.uniform(45, 59.6)
            canvas.fill(ellipse(x, y, rng.uniform(0.2, 0.6), 0.3), (132, 92, 58), 0.6)
    lid = shade(look.second, -0.05) if luminance(look.second) < 0.9 else (60, 60, 64)
    canvas.part(
        symmetric(
            f"M50 {top - 7} L{50 + r - 3} {top - 7} Q{50 + r - 1} {top - 6} {50 + r + 0.8} "
            f"{top - 1} L{50 + r + 0.8} {top + 1.6} Q50 {top + 4} 50 {top + 4}"
        ),
        lid,
        relief=0.5,
        soft=1,
        across=CYLINDER,
    )
    canvas.part(ellipse(50, top - 7, r - 3, 1.8), shade(lid, 0.15), relief=0.4, soft=0.6)
    canvas.fill(ellipse(55, top - 7, 2.6, 0.6), shade(lid, -0.5), 0.8)

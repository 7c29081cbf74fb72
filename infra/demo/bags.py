"""Bags seen from the front: totes, backpacks, clutches and crossbody bags."""

from infra.demo.drawing import (
    Canvas,
    Colour,
    Fold,
    ellipse,
    luminance,
    mirrored,
    path,
    shade,
    symmetric,
)
from infra.demo.look import Cloth, Look

FLOOR = 74.0
_GOLD: Colour = (206, 172, 96)
_STEEL: Colour = (190, 194, 200)


def _metal(look: Look) -> Colour:
    return _GOLD if look.seed % 2 else _STEEL


def _trim(look: Look) -> Colour:
    """Leather straps: tan on light cloth, otherwise the ground a shade darker."""
    if look.material in ("canvas", "cotton", "straw", "felt", "linen"):
        return (142, 92, 56) if luminance(look.ground) > 0.22 else (96, 62, 42)
    return shade(look.ground, -0.16)


def _ring(canvas: Canvas, x: float, y: float, r: float, colour: Colour) -> None:
    canvas.part(ellipse(x, y, r, r), colour, width=0.9, relief=0.8, soft=0.4, drop=0.4)


def tote(canvas: Canvas, look: Look) -> None:
    """A carrier with two handles: classic, slouchy or bucket-shaped basket."""
    rng = canvas.rng
    cloth = Cloth(canvas, look)
    trim = _trim(look)
    top, bottom = 38.0, 86 + rng.uniform(-1, 1)
    w = 28 + rng.uniform(-1.5, 2)
    basket = look.cut == "basket"
    canvas.ground(50, bottom, w - 7 if basket else w + 1, 4.4)
    high = 10 + rng.uniform(0, 5) if look.cut != "slouchy" else 6
    for back in (True, False):
        if not back:
            break
        loop = path(
            f"M{50 - w * 0.42} {top + 3} C{50 - w * 0.44} {high + 5} {50 - 9} {high + 4} 50 "
            f"{high + 4} C{59} {high + 4} {50 + w * 0.44} {high + 5} {50 + w * 0.42} {top + 3}"
        )
        canvas.part(loop, shade(trim, -0.3), width=2.4, relief=0.6, soft=0.8)
    canvas.part(
        ellipse(50, top + 0.6, w - (0 if look.cut != "slouchy" else 4), 3.2), shade(look.ground, -0.5), relief=0.1
    )
    if look.cut == "slouchy":
        body = symmetric(
            f"M50 {top + 5} Q62 {top + 4} {50 + w - 5} {top - 1} C{50 + w + 4} {top + 18} "
            f"{50 + w + 6} {bottom - 14} {50 + w} {bottom - 3} Q{50 + w - 4} {bottom + 1.6} "
            f"50 {bottom + 1}"
        )
        folds = [
            Fold(f"M{50 - w * 0.4} {top + 4} Q{50 - w * 0.3} {top + 20} {50 - w * 0.1} {bottom - 16}", 4, -0.3),
            Fold(f"M{50 + w * 0.4} {top + 4} Q{50 + w * 0.34} {top + 18} {50 + w * 0.16} {bottom - 12}", 4, -0.3),
            Fold(f"M{50 - w * 0.62} {top + 6} Q{50 - w * 0.6} {top + 24} {50 - w * 0.4} {bottom - 10}", 4, 0.26),
            Fold(f"M{50 + w * 0.1} {top + 8} Q{50 + w * 0.1} {top + 20} {50} {bottom - 14}", 4, 0.2),
        ]
    elif basket:
        body = symmetric(
            f"M50 {top} L{50 + w} {top} C{50 + w - 1} {top + 20} {50 + w - 4} {bottom - 12} "
            f"{50 + w - 9} {bottom - 2} Q{50 + w - 12} {bottom + 1} 50 {bottom + 1}"
        )
        folds = []
    else:
        body = symmetric(
            f"M50 {top} L{50 + w - 1} {top} L{50 + w + 1} {bottom - 3} Q{50 + w} {bottom + 1} "
            f"{50 + w - 4} {bottom + 1} L50 {bottom + 1}"
        )
        folds = [
            Fold(f"M{50 + w * 0.8} {top + 6} Q{50 + w * 0.7} {top + 24} {50 + w * 0.8} {bottom - 6}", 5, -0.12),
            Fold(f"M{50 - w * 0.7} {top + 10} Q{50 - w * 0.6} {top + 26} {50 - w * 0.7} {bottom - 8}", 5, 0.12),
        ]
    canvas.part(body, cloth.main, relief=0.75, soft=4, folds=folds, down=((0, 0.08), (0.6, 0), (1, -0.28)))
    if look.cut == "classic":
        if look.seed % 3 == 0:
            canvas.part(
                symmetric(
                    f"M50 {bottom - 13} L{50 + w + 0.6} {bottom - 13} L{50 + w + 1} {bottom - 3} "
                    f"Q{50 + w} {bottom + 1} {50 + w - 4} {bottom + 1} L50 {bottom + 1}"
                ),
                trim,
                relief=0.5,
                soft=1.6,
                drop=0.3,
                down=((0, 0.05), (1, -0.25)),
            )
        canvas.line(f"M{50 - w + 1} {top + 3.4} L{50 + w - 1} {top + 3.4}", 0.3, look.thread, 0.8, dash=0.9)
    if basket:
        canvas.part(
            symmetric(f"M50 {top - 1} L{50 + w + 0.6} {top - 1} L{50 + w + 0.4} {top + 3} L50 {top + 3}"),
            look.second if look.pattern != "plain" else shade(look.ground, -0.25),
            relief=0.7,
            soft=1,
            drop=0.4,
        )
    x = w * (0.42 if look.cut != "slouchy" else 0.5)
    loop = path(
        f"M{50 - x} {top + 12} L{50 - x} {top + 2} C{50 - x - 0.4} {high + 8} {50 - 9} "
        f"{high} 50 {high} C59 {high} {50 + x + 0.4} {high + 8} {50 + x} {top + 2} "
        f"L{50 + x} {top + 12}"
    )
    canvas.part(loop, trim, width=2.7, relief=0.8, soft=0.9, drop=0.8)
    for side in (-1, 1):
        canvas.fill(ellipse(50 + side * x, top + 6, 0.7, 0.7), _metal(look))
        canvas.fill(ellipse(50 + side * x, top + 10.6, 0.7, 0.7), _metal(look))


def backpack(canvas: Canvas, look: Look) -> None:
    """A backpack: rounded with a zip, roll-top, or a flap with two buckles."""
    cloth = Cloth(canvas, look)
    trim = _trim(look)
    canvas.ground(50, 88.4, 27, 4.2)
    for side in (False, True):
        strap = path("M66 30 C80 36 84 60 76 80")
        canvas.part(mirrored(strap) if side else strap, shade(look.ground, -0.35), width=4.4, relief=0.7, soft=1.2)
    canvas.part(path("M43.6 15 C43 6 57 6 56.4 15"), trim, width=2.4, relief=0.8, soft=0.8, drop=0.4)
    if look.cut == "roll-top":
        body = symmetric("M50 20 L70 20 Q74 40 75.6 62 Q76.6 84 73 87.4 Q70 89 50 89")
    else:
        body = symmetric("M50 12 C66 12 72.6 20 73.6 36 Q76 60 75.6 80 Q75.6 87.4 70 88.6 Q60 89.4 50 89.4")
    canvas.part(
        body,
        cloth.main,
        relief=0.8,
        soft=5,
        down=((0, 0.12), (0.6, 0), (1, -0.25)),
        folds=[Fold("M33 30 Q30 44 33 52", 3, 0.14), Fold("M68 30 Q70 44 67 52", 3, -0.16)],
    )
    pocket = symmetric("M50 56 L66 56 Q70.6 57 70.6 62 L70.8 80 Q70.4 85.4 65 85.8 L50 86")
    if look.cut == "roll-top":
        canvas.part(symmetric("M50 11 L69 11 Q71.6 15.4 70.6 21 L50 22"), cloth.plain, relief=0.9, soft=2.4, drop=1)
        canvas.part(symmetric("M50 19 L70.6 19 Q72 22.4 70.8 26 L50 26.6"), cloth.plain, relief=0.9, soft=2.2, drop=1)
        canvas.part(path("M50 10 L50 58"), trim, width=3.4, relief=0.7, soft=0.9, drop=0.6)
        canvas.part(
            path("M46.6 42 L53.4 42 L53.4 48 L46.6 48 L46.6 42"), _metal(look), width=1, relief=0.8, soft=0.5, drop=0.5
        )
    elif look.cut == "flap":
        flap = symmetric("M50 11 C66 11 73.6 18 75 32 L75.4 50 Q75 54.4 69 54.8 L50 55")
        canvas.part(flap, cloth.main, relief=0.8, soft=3.4, drop=1.4, down=((0, 0.15), (1, -0.1)))
        canvas.line(
            mirrored(path("M50 53.4 L69 53.2 Q73.4 53 73.8 49 L73.6 34"))[::-1]
            + path("M50 53.4 L69 53.2 Q73.4 53 73.8 49 L73.6 34"),
            0.3,
            look.thread,
            0.8,
            dash=0.9,
        )
    canvas.part(
        pocket,
        cloth.plain if look.seed % 2 and look.pattern != "plain" else cloth.main,
        relief=0.75,
        soft=3,
        drop=0.9,
        down=((0, 0.05), (1, -0.2)),
    )
    if look.cut == "flap":
        for x in (38.6, 61.4):
            canvas.part(path(f"M{x} 44 L{x} 70"), trim, width=3, relief=0.7, soft=0.8, drop=0.6)
            canvas.part(
                path(f"M{x - 2.4} 59 L{x + 2.4} 59 L{x + 2.4} 64 L{x - 2.4} 64 L{x - 2.4} 59"),
                _metal(look),
                width=0.9,
                relief=0.8,
                soft=0.5,
                drop=0.4,
            )
    else:
        canvas.line("M33 60 L67 60", 1.3, shade(look.ground, -0.45), 0.9)
        canvas.line("M33 60 L67 60", 0.6, _metal(look), 0.9, dash=0.5)
        canvas.part(path("M64 60 L66.4 60 L66.4 65 L64 65"), trim, relief=0.7, soft=0.4, drop=0.4)
    if look.cut == "round":
        arch = mirrored(path("M50 17.4 C64 17.4 67.4 24 68.4 38 L68.8 48"))[::-1] + path(
            "M50 17.4 C64 17.4 67.4 24 68.4 38 L68.8 48"
        )
        canvas.line(arch, 1.3, shade(look.ground, -0.45), 0.9)
        canvas.line(arch, 0.6, _metal(look), 0.9, dash=0.5)
        patch = path("M44.4 32 L55.6 32 L55.6 39 L44.4 39")
        canvas.part(patch, trim, relief=0.6, soft=0.7, drop=0.4)


def clutch(canvas: Canvas, look: Look) -> None:
    """An evening bag: envelope, frame with a clasp, or zipped pouch."""
    cloth = Cloth(canvas, look, scale=0.9)
    metal = _metal(look)
    canvas.ground(50, 74.4, 39, 3.6)
    if look.cut == "frame":
        body = symmetric("M50 36 L76 36 Q88 44 87 62 Q86 74 74 75 L50 75.4")
        folds = [
            Fold(f"M{x} 38 Q{50 + (x - 50) * 1.2} 50 {50 + (x - 50) * 1.35} 62", 2.4, light)
            for x, light in ((30, -0.28), (38, 0.2), (44, -0.24), (52, 0.2), (58, -0.26), (66, 0.18), (72, -0.28))
        ]
        canvas.part(body, cloth.main, relief=0.9, soft=6, folds=folds)
        canvas.part(
            mirrored(path("M50 35 L74 35 Q78.6 35.4 78.6 40"))[::-1] + path("M50 35 L74 35 Q78.6 35.4 78.6 40"),
            metal,
            width=2.6,
            relief=0.9,
            soft=0.8,
            drop=0.5,
        )
        for x, tilt in ((48.4, -1), (51.6, 1)):
            canvas.part(
                ellipse(x + tilt * 0.6, 31.6, 1.9, 2.2),
                metal,
                relief=1,
                soft=0.8,
                drop=0.5,
                gleam=[ellipse(x - 0.4, 30.8, 0.7, 0.7)],
                gleam_light=0.8,
                gleam_soft=0.3,
            )
        canvas.line("M22 38 C10 50 12 70 20 84 ", 0.9, metal, 0.95, dash=0.9)
        return
    body = symmetric("M50 34 L86 34 Q88.4 34.4 88.4 37 L88.4 72 Q88.4 75 85.4 75 L50 75")
    canvas.part(body, cloth.main, relief=0.75, soft=3, down=((0, 0.06), (1, -0.2)))
    if look.cut == "envelope":
        flap = symmetric("M50 33 L86.4 33 Q88.8 33.4 88.6 36 Q86 42 70 50 L53 59.6 Q51.4 60.4 50 60.4")
        canvas.part(
            flap,
            cloth.plain if look.seed % 2 else cloth.main,
            relief=0.75,
            soft=2,
            drop=1.6,
            down=((0, 0.12), (1, -0.08)),
        )
        edge = path("M86.4 37 Q84 41.4 69 48.8 L52.6 58 Q51 58.8 50 58.8")
        canvas.line(edge + mirrored(edge)[::-1], 0.3, look.thread, 0.8, dash=0.9)
        canvas.part(
            ellipse(50, 56, 2.6, 2.6),
            metal,
            relief=1,
            soft=0.9,
            drop=0.6,
            gleam=[ellipse(49.3, 55.2, 0.8, 0.8)],
            gleam_light=0.8,
            gleam_soft=0.3,
        )
    else:
        canvas.line("M13 38.4 L87 38.4", 2.0, shade(look.ground, -0.4), 0.9)
        canvas.line("M13 38.4 L87 38.4", 1.0, metal, 0.95, dash=0.6)
        canvas.part(path("M83 36.8 L86.4 36.8 L87 40 L83 40"), metal, relief=0.9, soft=0.4, drop=0.4)
        tassel = shade(look.second, -0.05)
        canvas.line("M85 40 L88 46", 0.8, tassel)
        canvas.part(path("M86 45.6 L90.4 45 L92.4 58 L87 58.8"), tassel, relief=0.7, soft=0.8, drop=0.6)
        canvas.line("M86.4 47.6 L90.6 47", 0.8, metal)


def crossbody(canvas: Canvas, look: Look) -> None:
    """A small bag on a long strap: saddle, boxy or half-moon."""
    cloth = Cloth(canvas, look, scale=0.85)
    metal = _metal(look)
    trim = _trim(look)
    canvas.ground(50, 84.6, 30, 3.6)
    left, right, join = (24.0, 76.0, 47.0) if look.cut != "half-moon" else (20.0, 80.0, 50.0)
    strap = path(f"M{left} {join} C{left + 2} 8 {right - 2} 8 {right} {join}")
    if look.seed % 3 == 1:
        canvas.line(strap, 1.6, shade(metal, -0.35), dash=1.2)
        canvas.line(strap, 1.0, metal, dash=1.2)
    else:
        canvas.part(strap, trim, width=1.9, relief=0.8, soft=0.7)
    if look.cut == "half-moon":
        body = symmetric("M50 48 L78 48 Q84 49 83.4 56 C81 76 66 85 50 85")
        canvas.part(body, cloth.main, relief=0.85, soft=5)
        arch = path("M50 52.4 L77 52.4")
        canvas.line(mirrored(arch)[::-1] + arch, 1.6, shade(look.ground, -0.4), 0.9)
        canvas.line(mirrored(arch)[::-1] + arch, 0.8, metal, 0.95, dash=0.55)
        canvas.part(path("M72 51 L75 51 L75.4 58 L72.4 58"), trim, relief=0.7, soft=0.4, drop=0.5)
    else:
        round_ = look.cut == "saddle"
        body = (
            symmetric("M50 44 L74 44 Q77.6 45 78 52 Q79.4 72 76 82 Q74 85 68 85 L50 85.2")
            if round_
            else symmetric("M50 42 L76 42 Q79 42.6 79 46 L79 81 Q79 85 75 85 L50 85")
        )
        canvas.part(body, cloth.main, relief=0.8, soft=3.6, down=((0, 0.05), (1, -0.25)))
        flap = (
            symmetric("M50 42.4 L74 42.4 Q78.6 44 78.8 52 C78 66 64 71 50 71")
            if round_
            else symmetric("M50 40.8 L76.4 40.8 Q79.8 41.4 79.8 45 L79.6 62 Q79 65.4 75 65.4 L50 65.4")
        )
        canvas.part(
            flap,
            cloth.plain if look.seed % 2 and look.pattern != "plain" else cloth.main,
            relief=0.85,
            soft=2.8,
            drop=1.5,
            down=((0, 0.14), (1, -0.06)),
        )
        y = 68.6 if round_ else 64.0
        canvas.part(
            path(f"M46.4 {y - 4} L53.6 {y - 4} L53.6 {y + 3} L46.4 {y + 3}"), metal, relief=0.9, soft=0.8, drop=0.6
        )
        canvas.fill(path(f"M48.4 {y - 2} L51.6 {y - 2} L51.6 {y + 1} L48.4 {y + 1}"), shade(metal, -0.4), 0.8)
    for x in (left, right):
        _ring(canvas, x + (1.4 if x < 50 else -1.4), join, 2.0, metal)

"""Seats: dining chairs, stools and armchairs, seen from the front and a little from above."""

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
from infra.demo.palette import METALS, WOODS
from infra.demo.textures import wood

FLOOR = 76.0


def _frame(look: Look) -> Colour:
    """Legs: of the seat's own timber, or a wood chosen by the design."""
    if look.material in WOODS:
        return look.ground
    names = tuple(WOODS)
    return WOODS[names[look.seed % len(names)]]


def _leg(canvas: Canvas, x0: float, y0: float, x1: float, y1: float, w0: float, w1: float, colour: Colour) -> None:
    outline = [(x0 - w0 / 2, y0), (x0 + w0 / 2, y0), (x1 + w1 / 2, y1), (x1 - w1 / 2, y1)]
    timber = wood(canvas, colour) if colour in WOODS.values() else colour
    canvas.part(outline, timber, relief=0, across=((0, -0.1), (0.3, 0.3), (0.6, 0), (1, -0.5)))


def _floor_shadow(canvas: Canvas, x0: float, x1: float, y: float) -> None:
    canvas.fill(ellipse((x0 + x1) / 2 + 2, y - 2, (x1 - x0) * 0.56, 5.6), (44, 40, 44), 0.26, soft=2.6)
    for x in (x0, x1):
        canvas.fill(ellipse(x, y, 3.0, 0.9), (24, 22, 28), 0.5, soft=0.5)


def chair(canvas: Canvas, look: Look) -> None:
    """A dining chair: spindle back, upholstered panel or moulded shell."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=0.9)
    frame = _frame(look)
    _floor_shadow(canvas, 29, 71, 92)
    _leg(canvas, 37, 56, 35, 86, 2.6, 2.0, shade(frame, -0.25))
    _leg(canvas, 63, 56, 65, 86, 2.6, 2.0, shade(frame, -0.25))
    if look.cut == "shell":
        if look.seed % 2:
            frame = METALS["black steel"]
        _leg(canvas, 36, 60, 28, 92, 2.4, 1.7, frame)
        _leg(canvas, 64, 60, 72, 92, 2.4, 1.7, frame)
        canvas.line("M34 70 L66 70", 1.0, shade(frame, -0.3))
        back = symmetric("M50 15 C62 14.6 69 19 70.6 28 C72 40 73 44 74 53 Q70 60 50 62")
        canvas.part(back, cloth.main, relief=0.85, soft=7, folds=[Fold("M38 30 Q50 44 62 30", 10, -0.14)])
        seat = symmetric("M50 50 Q66 49 74.6 53 Q76 60 70 64.6 Q60 67 50 67")
        canvas.part(seat, cloth.main, relief=0.9, soft=4, drop=1.2, down=((0, 0.1), (0.5, 0.12), (1, -0.35)))
        return
    if look.cut == "spindle":
        count = 5 + look.seed % 3
        for k in range(count):
            t = k / (count - 1) * 2 - 1
            canvas.part(
                [(50 + t * 13.4, 54), (50 + t * 17.4, 17 + 2.6 * t * t)], frame, width=1.4, relief=0.9, soft=0.5
            )
        rail = symmetric("M50 11.6 Q64 11.8 71 15.4 L70.4 22 Q62 19 50 18.8")
        canvas.part(rail, wood(canvas, frame, upright=False), relief=0.8, soft=1.6)
    else:
        for side in (False, True):
            post = path("M34.6 56 L33 16 L36 16 L37.6 56")
            canvas.part(mirrored(post) if side else post, wood(canvas, frame), relief=0.6, soft=0.9)
        high = 13 + rng.uniform(-1, 3)
        panel = symmetric(f"M50 {high} Q64 {high} 67 {high + 3} L66.4 42 Q60 45 50 45")
        canvas.part(panel, cloth.main, relief=0.9, soft=3.4, drop=0.5)
        if look.seed % 3 == 0:
            for x in (43, 50, 57):
                canvas.part(ellipse(x, 27, 0.9, 0.9), shade(look.ground, -0.25), relief=0.8, soft=0.4)
    _leg(canvas, 32, 60, 29, 92, 3.2, 2.2, frame)
    _leg(canvas, 68, 60, 71, 92, 3.2, 2.2, frame)
    if look.cut == "spindle":
        canvas.line("M30.6 78 L69.4 78", 1.3, shade(frame, -0.12))
    seat = symmetric("M50 52 L66 52 Q72.6 56 73.4 60.4 Q74 63 70 63.8 L50 65")
    surface = wood(canvas, frame, upright=False) if look.cut == "spindle" and look.material in WOODS else cloth.main
    canvas.part(
        seat,
        surface,
        relief=0.9,
        soft=2.6 if look.cut == "panel" else 1.4,
        drop=1,
        down=((0, 0.15), (0.6, 0.1), (1, -0.35)),
    )


def stool(canvas: Canvas, look: Look) -> None:
    """A stool: three-legged, bar stool or pouffe."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=0.9)
    frame = _frame(look)
    if look.cut == "pouffe":
        w = 31 + rng.uniform(-2, 3)
        canvas.ground(50, 85, w, 5.6)
        body = symmetric(
            f"M50 46 Q{50 + w - 4} 46 {50 + w} 52 C{50 + w + 4.4} 62 {50 + w + 4} 76 "
            f"{50 + w - 2} 84 Q{50 + w - 8} 88 50 88"
        )
        folds = []
        for k in range(-5, 6):
            x = 50 + k * w / 5.6
            folds += [
                Fold(f"M{x} 52 Q{50 + k * w / 5.1:.1f} 68 {x:.1f} 87", 1.6, -0.3),
                Fold(f"M{x + 2} 53 Q{52 + k * w / 5.1:.1f} 68 {x + 2:.1f} 86", 1.8, 0.16),
            ]
        canvas.part(body, cloth.main, relief=0.8, soft=6, folds=folds, down=((0, 0.1), (1, -0.3)))
        canvas.part(ellipse(50, 51, w - 1, 6.6), cloth.main, relief=0.8, soft=2, drop=0.4)
        canvas.part(ellipse(50, 50.6, 1.8, 0.9), shade(look.ground, -0.25), relief=0.8, soft=0.5)
        return
    tall = look.cut == "bar"
    top = 20.0 if tall else 44.0
    w = 19.0 if tall else 24 + rng.uniform(-1, 2)
    _floor_shadow(canvas, 50 - w + 1, 50 + w - 1, 91)
    if tall:
        metal = METALS["black steel"] if look.seed % 2 else METALS["brass"]
        colour = metal if look.seed % 3 else frame
        for x, y in ((-0.42, 86), (0.42, 86)):
            _leg(canvas, 50 + x * w, top + 4, 50 + x * w * 1.5, y, 1.8, 1.6, shade(colour, -0.3))
        _leg(canvas, 50 - w * 0.62, top + 4, 50 - w, 91, 2.2, 1.9, colour)
        _leg(canvas, 50 + w * 0.62, top + 4, 50 + w, 91, 2.2, 1.9, colour)
        canvas.part(path(f"M{50 - w * 0.9} 72 L{50 + w * 0.9} 72"), colour, width=1.5, relief=0.9, soft=0.5)
        if look.seed % 2 == 0:
            canvas.part(symmetric("M50 6 Q62 6 66 9 L66.6 17 Q60 19 50 19"), cloth.main, relief=0.9, soft=2.2, drop=0.5)
            for x in (40.0, 60.0):
                canvas.line([(x, 17), (x, 24)], 1.3, colour)
    else:
        _leg(canvas, 50, top + 4, 50, 86, 2.8, 2.0, shade(frame, -0.25))
        _leg(canvas, 50 - w * 0.6, top + 4, 50 - w + 1, 91, 3.2, 2.2, frame)
        _leg(canvas, 50 + w * 0.6, top + 4, 50 + w - 1, 91, 3.2, 2.2, frame)
    padded = look.material not in WOODS
    thick = 5.6 if padded else 3.0
    surface = cloth.main if padded else wood(canvas, frame, upright=False)
    canvas.part(
        path(f"M{50 - w} {top} L{50 - w} {top + thick} Q50 {top + thick + 8} {50 + w} {top + thick} L{50 + w} {top}"),
        surface,
        relief=0.5,
        soft=1.4,
        across=((0, -0.3), (0.3, 0.1), (1, -0.45)),
        drop=0.8,
    )
    canvas.part(ellipse(50, top, w, 4.6), surface, relief=0.6, soft=1.6, down=((0, 0.1), (1, 0.2)))


def armchair(canvas: Canvas, look: Look) -> None:
    """An armchair: club, wing or lounge with a wooden frame."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=1.1)
    frame = _frame(look)
    _floor_shadow(canvas, 22, 78, 91)
    for x, lean in ((25, -2), (75, 2)):
        _leg(canvas, x, 80, x + lean, 91.4, 3.4, 2.0, frame)
    if look.cut == "lounge":
        for side in (False, True):
            arm = path("M17 52 Q16 48.6 20 48 L31 47.4 L31 51 L21.6 52 L23 86 L19.4 86")
            canvas.part(mirrored(arm) if side else arm, wood(canvas, frame), relief=0.8, soft=1.2)
        back = symmetric(f"M50 {16 + rng.uniform(-2, 2)} L69 17 Q73.4 18 73.4 23 L75 62 L50 64")
        canvas.part(
            back,
            cloth.main,
            relief=0.9,
            soft=5,
            folds=[Fold("M28 36 Q50 39 72 36", 1.4, -0.3), Fold("M28 37.6 Q50 40.6 72 37.6", 1.6, 0.18)],
        )
        seat = symmetric("M50 58 L74 58 Q78 60 77.6 67 Q77.6 73 73 73.6 L50 74.4")
        canvas.part(seat, cloth.main, relief=0.95, soft=4, drop=1.6, down=((0, 0.12), (0.5, 0.08), (1, -0.3)))
        canvas.part(path("M21 74 L79 74 L79 79 L21 79"), wood(canvas, frame, upright=False), relief=0.5, soft=0.9)
        return
    wing = look.cut == "wing"
    if wing:
        back = symmetric("M50 9 C62 8.6 72 11 75.6 18 Q79 30 77 44 L76 66 L50 68")
    else:
        back = symmetric(f"M50 {22 + rng.uniform(-2, 2)} C64 21 73 23 75 32 L77 66 L50 68")
    canvas.part(back, cloth.main, relief=0.9, soft=6)
    if wing:
        for side in (False, True):
            ear = path("M71 15 Q80 18 80.6 30 Q80 42 76 50 L70.4 48 Q73.6 32 71 15")
            canvas.part(mirrored(ear) if side else ear, cloth.main, relief=0.9, soft=2.4, drop=0.8)
        for x, y in ((40, 24), (50, 24), (60, 24), (45, 34), (55, 34)):
            canvas.part(ellipse(x, y, 1, 1), shade(look.ground, -0.2), relief=0.9, soft=0.5, drop=0.4)
            canvas.fill(ellipse(x, y + 1.6, 2.2, 0.7), shade(look.ground, -0.5), 0.3, soft=0.5)
    canvas.part(symmetric("M50 66 L74 66 L74 82 L50 83"), cloth.main, relief=0.7, soft=2, down=((0, -0.1), (1, -0.35)))
    seat = symmetric("M50 56 L70 56 Q74.6 58 74.6 64 Q74.4 70 70 70.6 L50 71.4")
    canvas.part(seat, cloth.main, relief=0.95, soft=4, drop=1.6, down=((0, 0.15), (0.5, 0.08), (1, -0.25)))
    for side in (False, True):
        arm = path("M70 49 Q71.6 43.6 78 43.4 Q86 43.8 86.6 51 L85 81 Q80 84 72.6 83 Q69.6 64 70 49")
        canvas.part(
            mirrored(arm) if side else arm,
            cloth.main,
            relief=0.95,
            soft=4.4,
            drop=1.2,
            down=((0, 0.2), (0.3, 0), (1, -0.3)),
        )
    if look.seed % 3 == 0 and luminance(look.second) > 0.1:
        cushion = path("M38 47 Q50 43.6 62 46.6 Q64.6 55 62.6 65 Q50 67 37.6 64.6 Q35.6 55 38 47")
        canvas.part(cushion, look.second, relief=0.95, soft=5, drop=1.4)

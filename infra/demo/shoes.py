"""Shoes seen from the side, toe to the right: sneakers, boots, heels, sandals and loafers."""

from infra.demo.drawing import (
    FALL,
    Canvas,
    Colour,
    Fold,
    Point,
    ellipse,
    luminance,
    path,
    shade,
)
from infra.demo.look import Cloth, Look

FLOOR = 70.0


def _sole_colour(look: Look) -> Colour:
    return (240, 238, 232) if luminance(look.ground) < 0.8 else (196, 150, 104)


def _laces(canvas: Canvas, rows: list[tuple[Point, Point]], colour: Colour) -> None:
    for (x0, y0), (x1, y1) in rows:
        middle = ((x0 + x1) / 2 + 0.3, (y0 + y1) / 2 - 1.3)
        line = path(f"M{x0} {y0} Q{middle[0]} {middle[1]} {x1} {y1}")
        canvas.part(line, colour, width=1.5, relief=0.7, soft=0.5, drop=0.5)
        canvas.fill(ellipse(x0, y0, 0.7, 0.7), shade(colour, -0.55))


def sneaker(canvas: Canvas, look: Look) -> None:
    """A sneaker: low, high-top or runner."""
    cloth = Cloth(canvas, look, scale=0.7)
    trim = look.second
    sole = _sole_colour(look)
    canvas.ground(51, 78.4, 42, 4.6)
    if look.cut == "high-top":
        upper = path(
            "M15 72 C13 60 14 48 17 38 Q18 30 18.4 25 Q25 21.6 34 23.4 L45 26.6 L48 38 Q53 "
            "45 62 50.6 C72 55 88 55.6 91.4 66 Q92 70 91 73"
        )
        opening = ellipse(31.4, 24.8, 13, 2.6)
        tongue = path("M37 22 L47.6 22.6 L55 44 L47 46")
        rows: list[tuple[Point, Point]] = [
            ((38.4 + k * 2.3, 29.5 + k * 4.6), (45.6 + k * 2.9, 27.5 + k * 4.1)) for k in range(6)
        ]
        vamp = path("M50.5 41 Q58 48 66 51.6 L60 57 Q50 53 45 46")
    elif look.cut == "runner":
        upper = path(
            "M13 70 C10 60 12 52 14 44 Q14 39 18 38.6 Q24 44 32 46.6 Q38 47.6 42.6 40.6 L49 "
            "39 Q56 46 64 50 C74 54.6 90 56 93 66 Q93.6 69 92 72"
        )
        opening = ellipse(29, 43.6, 12, 3.0)
        tongue = path("M38.4 38 Q43 34.6 48 37.4 L56 47 L46 50")
        rows = [((42.2 + k * 3.6, 45.4 + k * 2.7), (48.4 + k * 3.7, 42 + k * 2.5)) for k in range(5)]
        vamp = path("M49 41 Q57 48 66 51 L62 56 Q52 55 44 49")
    else:
        upper = path(
            "M15 72 C13 62 14 54 16 46.4 Q16.4 41 20 40.6 Q25 47 33 48.6 Q39 49 43 42.8 "
            "L49.4 40.6 Q56 47.6 65 51.4 C75 55.4 88.6 57 91.4 67 Q92 70 91 73"
        )
        opening = ellipse(30.6, 45.6, 11.4, 3.2)
        tongue = path("M39 40 Q43.6 36.8 48.6 39.4 L56.4 48.8 L47 52")
        rows = [((42.8 + k * 3.7, 47 + k * 2.6), (49 + k * 3.8, 43.6 + k * 2.4)) for k in range(5)]
        vamp = path("M49.4 42.4 Q57 49.6 66 52.6 L62 58 Q52 56.4 44.4 50.6")
    canvas.part(opening, shade(look.ground, -0.45), relief=0.1)
    canvas.part(tongue, shade(trim, -0.06), relief=0.7, soft=1.2)
    canvas.part(
        upper,
        cloth.main,
        relief=0.85,
        soft=5,
        down=FALL,
        folds=[Fold("M68 53 Q71 60 70 66", 2, -0.2), Fold("M64 52 Q67 58 66 64", 1.6, 0.14)],
    )
    heel = path("M15 72 C13.4 62 14 54 16.2 46 L23.6 50 Q25 60 26.6 72")
    canvas.part(heel, trim, relief=0.7, soft=2, drop=0.4)
    if look.cut == "runner":
        canvas.part(path("M74 55 C84 57 91 60 92.6 67 L92 72 L68 72 Q74 64 74 55"), trim, relief=0.6, soft=2, drop=0.4)
        canvas.part(path("M30 72 Q36 60 46 52 L51 55 Q43 62 39 72"), trim, relief=0.5, soft=1.2, drop=0.3)
        canvas.part(path("M42 72 Q46 64 53.4 57.6 L57 59 Q50 65 47.6 72"), trim, relief=0.5, soft=1.2, drop=0.3)
    elif look.cut == "high-top":
        canvas.part(
            path("M73 54.6 C83 56 90 58.6 91.4 66 L91 73 L69 73 Q75 64 73 54.6"), sole, relief=0.6, soft=2, drop=0.4
        )
        canvas.part(ellipse(27.4, 34.4, 4.4, 4.4), trim, relief=0.6, soft=0.8, drop=0.3)
        canvas.line(ellipse(27.4, 34.4, 3.5, 3.5), 0.35, shade(trim, 0.4), dash=0.8)
    else:
        for k in range(4):
            for j in range(2):
                canvas.fill(ellipse(36 + k * 2.6 + j * 1.2, 62 + j * 2.4, 0.55, 0.55), shade(look.ground, -0.5), 0.8)
    canvas.part(vamp, cloth.plain if look.cut != "runner" else shade(trim, 0.08), relief=0.5, soft=1, drop=0.4)
    canvas.line([(x - 0.2, y + 1) for x, y in vamp[: len(vamp) // 2]], 0.28, look.thread, 0.7, dash=0.7)
    _laces(
        canvas, rows, (244, 242, 238) if luminance(trim) < 0.85 or luminance(look.ground) < 0.7 else shade(trim, -0.1)
    )
    if look.cut == "runner":
        base = path(
            "M9.6 68 Q8 64 12.4 63.6 Q30 70.6 56 69.4 Q78 65.4 93 66 Q97.4 68 94.6 74 Q88 "
            "78.6 70 78.4 L18 79 Q10.6 77 9.6 68"
        )
        canvas.part(base, sole, relief=0.8, soft=2, drop=0.3, down=((0, 0.15), (0.7, 0), (1, -0.3)))
        canvas.line("M12 72.6 Q40 76 93.6 71.6", 0.9, trim, 0.9)
        canvas.part(
            path("M13 77 L90 76.2 Q84 79.6 70 79.4 L20 80 Q14 79.4 13 77"),
            shade(look.ground, -0.5),
            relief=0.4,
            soft=0.7,
        )
    else:
        base = path(
            "M12.6 69.6 Q40 71.6 66 70.4 Q82 69 92.4 68.4 Q94.8 72 93 77 Q92 79 88 79 L17 "
            "79.4 Q12.6 79 12 75 Q11.8 71 12.6 69.6"
        )
        canvas.part(base, sole, relief=0.7, soft=1.6, drop=0.3, down=((0, 0.1), (1, -0.25)))
        canvas.line("M13 72.6 Q50 74.6 93 71.4", 0.45, shade(trim if luminance(trim) < 0.8 else look.ground, -0.1), 0.9)
        canvas.line("M13 77.6 L92.4 77", 0.3, shade(sole, -0.35), 0.6)


def boot(canvas: Canvas, look: Look) -> None:
    """A boot: Chelsea, lace-up or knee-high."""
    cloth = Cloth(canvas, look, scale=0.7)
    dark = shade(look.ground, -0.55)
    top = {"knee-high": 8.0, "chelsea": 30.0}.get(look.cut, 24.0)
    canvas.ground(52, 84.6, 39, 4.4)
    canvas.part(ellipse(36, top + 0.6, 15.6, 2.6), shade(look.ground, -0.5), relief=0.1)
    upper = path(
        f"M20 {top + 0.6} Q36 {top + 3.6} 52 {top} C51 {top + 14} 50.6 44 52.6 52 Q57 58 "
        "68 61.4 C80 64.6 88 67.4 89.4 77 L89 79 L17.4 79 C16 68 20 60 20.4 50 C20.6 40 "
        f"19.4 {top + 14} 20 {top + 0.6}"
    )
    shine = [
        path(f"M25 {top + 6} Q28 40 25 62 L28.4 62 Q32 40 29.6 {top + 6}"),
        path("M66 63.4 Q77 66 82 70 Q74 68.6 65 67"),
    ]
    canvas.part(
        upper,
        cloth.main,
        relief=0.9,
        soft=5,
        gleam=shine if look.material == "leather" else (),
        gleam_light=0.26,
        gleam_soft=1.2,
        folds=[
            Fold("M52 54 Q44 55 38 60", 2.4, -0.34),
            Fold("M53.4 57 Q46 60 41 66", 2.2, -0.24),
            Fold("M50 51 Q42 52 36 56", 2, 0.22),
        ],
    )
    if look.cut == "chelsea":
        elastic = path(f"M31 {top + 2.4} L44 {top + 2} Q43.4 46 38.4 56.4 Q33 46 31 {top + 2.4}")
        canvas.part(elastic, dark, relief=0.4, soft=1, drop=0.3)
        for k in range(6):
            canvas.line(
                f"M{32.6 + k * 2} {top + 3} L{35 + k * 1.2} {52 if 0 < k < 5 else 44}", 0.28, shade(dark, 0.25), 0.7
            )
        canvas.part(
            path(f"M17.6 {top + 5} Q16 {top - 4} 19.4 {top - 4} Q22.6 {top - 4} 21.6 {top + 5}"),
            cloth.plain,
            width=1.3,
            relief=0.7,
            soft=0.5,
            drop=0.3,
        )
        canvas.line("M21 58 Q30 60 38.4 57.4 Q46 58 53 55", 0.3, look.thread, 0.8)
    elif look.cut == "lace-up":
        tongue = path("M46 21 L54.4 20 L55.6 45 L49 46")
        canvas.part(tongue, cloth.plain, relief=0.6, soft=1)
        facing = path(f"M41.4 {top + 2} L49.4 {top + 1.4} L50 44 Q55 54 63.4 59.4 L58.6 64.6 Q45 57 41.4 44")
        canvas.part(facing, cloth.plain, relief=0.6, soft=1, drop=0.5)
        lace = look.second if look.second != look.ground else (230, 200, 120)
        _laces(canvas, [((44.6, top + 5 + k * 4.6), (52.6, top + 3.6 + k * 4.6)) for k in range(5)], lace)
        _laces(canvas, [((47 + k * 3.4, 50.4 + k * 3.8), (53 + k * 3.6, 47.6 + k * 3.6)) for k in range(3)], lace)
        canvas.line("M22 60 Q30 57 36 62 Q40 68 40 78", 0.3, look.thread, 0.9, dash=0.8)
        canvas.line("M66 62.6 Q70 70 69 78", 0.3, look.thread, 0.9, dash=0.8)
        canvas.part(
            path(f"M19.6 {top} Q28 {top + 2.6} 41 {top + 2.2} L41 {top + 6} Q28 {top + 6.6} 19.7 {top + 4.6}"),
            shade(look.ground, -0.25),
            relief=0.6,
            soft=0.8,
        )
    else:
        canvas.line(f"M24 {top + 4} Q25 44 24 74", 0.4, shade(look.ground, -0.4), 0.8)
        canvas.part(
            path("M20.4 55 Q36 60 52.6 53 L53.6 56.4 Q37 63.4 20 58.6"),
            shade(look.ground, -0.12),
            relief=0.6,
            soft=0.7,
            drop=0.4,
        )
        canvas.line(path("M34 57 L39 56.4 L39.6 61 L34.6 61.6 L34 57"), 0.7, (206, 172, 96))
    sole = (60, 52, 48) if luminance(look.ground) > 0.16 else (96, 74, 56)
    if look.cut == "lace-up":
        base = path("M16.4 77 L90 77 Q91.6 79 91 84.6 L56 84.6 L54 83 L42 83 L40 85 L17.4 85 Q15.6 81 16.4 77")
        canvas.part(base, sole, relief=0.6, soft=1.2, drop=0.3)
        canvas.line("M17 78.6 L90.6 78.6", 0.35, (206, 176, 116), 0.9, dash=0.8)
    else:
        canvas.part(
            path("M17 77.6 L89.6 77.6 Q91 79.6 89.6 81.4 L44 82 L41 79.8 L17 80"), sole, relief=0.6, soft=0.9, drop=0.3
        )
        canvas.part(path("M17 79.4 L41 79.4 L39.4 85.2 L18 85.2 Q16.6 82 17 79.4"), sole, relief=0.6, soft=1.2)


def heel(canvas: Canvas, look: Look) -> None:
    """A high-heeled shoe: pump, block heel or slingback."""
    cloth = Cloth(canvas, look, scale=0.6)
    dark = shade(look.ground, -0.5)
    canvas.ground(72, 80.4, 20, 2.6)
    canvas.ground(20.5, 80.6, 6 if look.cut == "block" else 3, 1.6)
    if look.cut == "block":
        heel_shape = path("M13 50 Q20 58 30.6 60 Q29 70 29.4 80 L14 80 Q12.4 64 13 50")
    else:
        heel_shape = path("M13 50 Q20 56 35 62.6 Q25 67 22.6 80 L19.4 80 Q18 66 13 50")
    canvas.part(
        heel_shape,
        cloth.plain if look.pattern == "plain" else look.second,
        relief=0.7,
        soft=1.6,
        across=((0, 0.15), (0.4, 0.3), (1, -0.45)),
    )
    canvas.part(
        path(
            "M19 78.8 L23 78.8 L23 80.4 L19 80.4"
            if look.cut != "block"
            else "M13.6 78.8 L29.6 78.8 L29.6 80.4 L13.6 80.4"
        ),
        dark,
        relief=0.2,
    )
    sole = path("M13 52 Q24 60 38 66 Q54 77 66 79.6 L90 79.6 Q93 78.4 91.6 76.4 L64 76 Q46 66 30 57 Q20 52 13 48")
    canvas.part(sole, (152, 60, 52) if look.colour == "black" else shade(look.ground, -0.4), relief=0.4, soft=0.7)
    canvas.part(path("M16 42 Q30 50 44 54 Q56 58 62 58 L60 72 Q40 64 16 50"), shade(look.ground, 0.45), relief=0.2)
    upper = path(
        "M11 38 Q13 34 17 36.6 Q24 47.6 38 54.4 Q52 60 61 58.4 Q70 57 78 63 Q88 69 92.4 "
        "75 Q93.4 78 90 78.6 L63 78.4 Q48 71 36 64 Q22 57.6 13.6 56 Q10.4 48 11 38"
    )
    if look.cut == "slingback":
        upper = path(
            "M44 62 Q52 64.6 60 63.6 Q68 59.6 74 63 Q86 67 91.6 74 Q93 77.6 90 78 L64 77.6 "
            "Q54 73.4 46 68.6 Q42 66 44 62"
        )
        canvas.part(
            path("M45 63.6 Q28 56 18 43 Q14.6 38.6 13.6 43 L14 50"),
            cloth.plain,
            width=1.9,
            relief=0.7,
            soft=0.6,
            drop=0.4,
        )
        canvas.part(path("M27 50.4 L31 53.2 L29.4 55.6 L25.6 53"), (206, 172, 96), relief=0.7, soft=0.4, drop=0.3)
    shine = [path("M70 65 Q80 67.6 86 72.4 Q78 70.6 69 69"), path("M15.4 42 Q19 49 26 53.4 Q18 51 15 46")]
    canvas.part(
        upper,
        cloth.main,
        relief=0.85,
        soft=3,
        gleam=shine if look.material == "leather" else (),
        gleam_light=0.42,
        gleam_soft=0.8,
        drop=0.2,
    )
    if look.cut == "block":
        canvas.part(
            path("M17 40 C30 30 44 32 46 40 Q46 46 42 57"), cloth.plain, width=2.2, relief=0.7, soft=0.7, drop=0.4
        )
        canvas.part(path("M42.6 38 L48 38.6 L47.4 43.4 L42.2 42.8"), (206, 172, 96), relief=0.7, soft=0.5, drop=0.3)
    elif look.seed % 3 == 0:
        for x0, x1 in ((60, 66), (72, 66)):
            canvas.part(
                path(f"M66 64 Q{x0} 58.6 {x0 - (x1 - x0) * 0.25} 63.4 Q{x0} 67 66 65.4"),
                look.second if look.pattern != "plain" else shade(look.ground, -0.15),
                relief=0.7,
                soft=0.7,
                drop=0.4,
            )
        canvas.part(ellipse(66, 64.6, 1.3, 1.6), look.ground, relief=0.7, soft=0.5, drop=0.3)


def sandal(canvas: Canvas, look: Look) -> None:
    """A sandal: slide, strappy or cross-strap."""
    cloth = Cloth(canvas, look, scale=0.55)
    cork = (206, 168, 118)
    canvas.ground(51, 79.4, 42, 4)
    base = path(
        "M9.6 66 Q24 64.6 38 67 Q58 71.6 76 68 Q88 65.6 92 69 Q94.6 73 92.6 77.6 Q91 "
        "79.6 87 79.6 L15 79.8 Q9 79.4 8.6 73 Q8.4 68 9.6 66"
    )
    canvas.part(
        base, cork if look.cut != "strappy" else (232, 226, 214), relief=0.7, soft=1.8, down=((0, 0.15), (1, -0.3))
    )
    canvas.part(path("M9 76.6 L92.8 75.8 Q92 79.6 87 79.8 L15 80 Q10 79.8 9 76.6"), (84, 66, 54), relief=0.4, soft=0.8)
    canvas.part(
        path("M9.6 66.4 Q11 62.6 18 63 Q32 64 44 67 Q60 70 76 66.4 Q88 64.6 92 69 Q72 71.6 58 71 Q30 68.4 9.6 68.4"),
        (182, 140, 96),
        relief=0.5,
        soft=1,
    )
    buckle = (206, 172, 96)

    def strap(outline: str) -> None:
        canvas.part(path(outline), cloth.main, relief=0.9, soft=2, drop=0.8)

    if look.cut == "slide":
        strap("M43 69.4 Q43 54 54 49.4 Q66 48 75 55 Q81 60 83 68.6 Q74 72.4 62 72 Q50 71.6 43 69.4")
        canvas.line("M44.6 68 Q44.8 55.4 54.6 51 Q65.6 49.8 74 56.4 Q79.4 61 81.4 68", 0.3, look.thread, 0.8, dash=0.8)
    elif look.cut == "cross":
        strap("M34 67.6 Q44 54 60 47 L68 49.6 Q56 58 50 70.4 Q40 69.6 34 67.6")
        strap("M56 47 Q64 45.4 69 49.6 Q80 56 87 68 Q82 70.6 75 71 Q68 57 55 50.6")
        strap("M12 66 Q14 51 24 49 Q34 50 36.6 67.6 L32 67.2 Q30 55 24 54 Q18 55.6 17 66")
    else:
        for x in (62.0, 71.0, 80.0):
            strap(
                f"M{x - 5.4} 71 Q{x - 5} 58 {x + 1} 55 Q{x + 6} 58.6 {x + 7.4} 68.6 L{x + 3.4} "
                f"69.6 Q{x + 2} 62 {x} 60 Q{x - 2} 62 {x - 1.6} 71"
            )
        strap(
            "M14 66 Q14 52 24 45 Q36 38.6 41.6 42.4 Q45 48 42 67.6 L38 67 Q40.6 50 38.4 45.8 "
            "Q32 45 26 49.6 Q18.4 55.6 18 66"
        )
        strap("M40 56 Q52 58 58.6 69 L54 71 Q48.6 61 39.6 60")
    if look.cut != "slide":
        x, y = (23.6, 51) if look.cut == "cross" else (40, 47.4)
        canvas.line([(x - 2, y - 2), (x + 2, y - 2), (x + 2, y + 2), (x - 2, y + 2), (x - 2, y - 2)], 0.8, buckle)


def loafer(canvas: Canvas, look: Look) -> None:
    """A slip-on shoe: penny loafer, tassel loafer or espadrille."""
    cloth = Cloth(canvas, look, scale=0.6)
    canvas.ground(51, 79, 42, 4.2)
    espadrille = look.cut == "espadrille"
    canvas.part(ellipse(33, 53.4, 17, 4), shade(look.ground, -0.4) if not espadrille else (214, 190, 150), relief=0.1)
    upper = path(
        "M13 74 C11 66 12 57 14 51.6 Q16 48.6 20 50.6 Q28 57 42 57.4 Q47 55 50 50.6 Q56 "
        "48.4 62 51.6 C76 57 90 60 92 70 L91.6 75"
    )
    shine = [path("M70 58 Q81 61 87 67 Q78 64.6 69 63"), path("M16.4 53 Q17 62 16 68 L19 68 Q20.4 60 19 54.4")]
    canvas.part(
        upper,
        cloth.main,
        relief=0.9,
        soft=4.4,
        gleam=shine if look.material == "leather" else (),
        gleam_light=0.34,
        gleam_soft=1,
        folds=[Fold("M60 66 Q64 70 64 74", 2, -0.2)],
    )
    if espadrille:
        rope = path("M12 72 Q50 75 92.4 72 Q94 76 92.6 80 L15 80.4 Q11 77 12 72")
        canvas.part(rope, (212, 182, 134), relief=0.7, soft=1.6, drop=0.3)
        for k in range(33):
            x = 13.4 + k * 2.42
            canvas.line([(x, 74.4), (x + 1.5, 79.4)], 0.4, (150, 116, 72), 0.75)
        canvas.line("M12.6 73.4 Q50 76.4 92.6 73.4", 0.4, (236, 216, 176), 0.9, dash=0.9)
        canvas.line("M55 50 Q62 58 60 73", 0.3, look.thread, 0.7, dash=0.8)
        return
    canvas.line("M50 56 Q62 62 66 62 Q80 63 89.6 70", 0.9, shade(look.ground, -0.3), 0.85)
    canvas.line("M50 55.4 Q62 61.2 66 61.2 Q80 62 89.2 69", 0.35, shade(look.ground, 0.3), 0.6, dash=0.8)
    saddle = path("M46 53.6 L54 49.4 Q62 54 65 59.6 L60 73 L52 73.4 Q55 64 46 53.6")
    canvas.part(saddle, cloth.plain if look.pattern == "plain" else look.second, relief=0.6, soft=1, drop=0.5)
    if look.cut == "penny":
        canvas.fill(path("M53 56.4 L58.4 53.6 L60 56 L54.6 59"), shade(look.ground, -0.55), 0.9)
    else:
        for dx in (0.0, 3.4):
            canvas.line(f"M{56 + dx} 55 Q{57.6 + dx} 58 {56.6 + dx} 60", 0.8, shade(look.ground, -0.4))
            canvas.part(
                path(f"M{55 + dx} 59.6 L{58 + dx} 59.6 L{59 + dx} 66.6 L{54.4 + dx} 66.6"),
                shade(look.ground, -0.2),
                relief=0.7,
                soft=0.6,
                drop=0.4,
            )
    sole = (74, 58, 48)
    canvas.part(
        path("M12.4 73 L92.4 73.4 Q94 75.4 92 77 L42 77.4 L40 76 L12.4 76"), sole, relief=0.5, soft=0.8, drop=0.3
    )
    canvas.part(path("M12.4 75.4 L40 75.4 L38.4 80.2 L13.4 80.2 Q12 78 12.4 75.4"), sole, relief=0.5, soft=1)

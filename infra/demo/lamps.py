"""Lamps: desk, floor, table and pendant lamps, switched on or off."""

from infra.demo.drawing import (
    CYLINDER,
    TUBE,
    Canvas,
    Colour,
    ellipse,
    luminance,
    path,
    shade,
    symmetric,
)
from infra.demo.look import Cloth, Look
from infra.demo.palette import METALS

FLOOR = 78.0
_LIGHT: Colour = (255, 236, 190)


def _metal(look: Look) -> Colour:
    """Brass or steel that suits the shade; a metal lamp is of one colour throughout."""
    names = ("brass", "black steel", "steel", "copper")
    return METALS[names[look.seed % len(names)]]


def _rod(canvas: Canvas, x: float, y0: float, y1: float, width: float, colour: Colour) -> None:
    canvas.part(
        path(f"M{x - width / 2} {y0} L{x + width / 2} {y0} L{x + width / 2} {y1} L{x - width / 2} {y1}"),
        colour,
        relief=0,
        across=TUBE,
    )


def _shade(
    canvas: Canvas,
    look: Look,
    cx: float,
    top: float,
    bottom: float,
    r_top: float,
    r_bottom: float,
    *,
    bulge: float = 0.0,
) -> None:
    """A shade seen slightly from below its top: its body, its lit inside and its rims."""
    cloth = Cloth(canvas, look, scale=0.8)
    middle = (top + bottom) / 2
    wide = (r_top + r_bottom) / 2 + bulge
    lip = r_bottom * 0.07
    body = path(
        f"M{cx - r_top} {top} Q{cx} {top + r_top * 0.1} {cx + r_top} {top} Q{cx + wide} "
        f"{middle} {cx + r_bottom} {bottom} "
        f"Q{cx} {bottom + lip * 2} {cx - r_bottom} {bottom} Q{cx - wide} {middle} {cx - r_top} {top}"
    )
    canvas.part(ellipse(cx, top, r_top, r_top * 0.06 + 0.5), shade(look.ground, -0.3), relief=0.1)
    glowing = look.material in ("linen", "paper", "cotton", "rattan", "glass")
    canvas.part(body, cloth.main, relief=0.35, soft=2.4, across=CYLINDER, gain=56 if glowing else 95)
    if glowing:
        canvas.fill(
            ellipse(cx, middle + (bottom - top) * 0.1, wide * 0.62, (bottom - top) * 0.34), _LIGHT, 0.55, soft=4.4
        )
    rim = shade(look.ground, -0.18) if look.pattern == "plain" else look.second
    edge = path(f"M{cx - r_bottom} {bottom} Q{cx} {bottom + lip * 2} {cx + r_bottom} {bottom}")
    canvas.line(edge, 0.8, rim)
    canvas.line(f"M{cx - r_top} {top} Q{cx} {top + r_top * 0.1} {cx + r_top} {top}", 0.7, rim)


def _dome(canvas: Canvas, look: Look, cx: float, top: float, bottom: float, r: float, *, deep: bool = False) -> None:
    """A metal bowl open downwards, with its pale lit inside."""
    cloth = Cloth(canvas, look, scale=0.7)
    canvas.part(ellipse(cx, bottom, r, r * 0.16), (250, 240, 214), relief=0.15)
    canvas.fill(ellipse(cx, bottom + r * 0.03, r * 0.4, r * 0.09), (255, 255, 246), 1.0, soft=0.6)
    bend = 0.3 if deep else 0.62
    body = path(
        f"M{cx - r} {bottom} C{cx - r} {bottom - (bottom - top) * 0.6} {cx - r * bend} "
        f"{top} {cx - r * 0.16} {top} L{cx + r * 0.16} {top} "
        f"C{cx + r * bend} {top} {cx + r} {bottom - (bottom - top) * 0.6} {cx + r} "
        f"{bottom} Q{cx} {bottom + r * 0.13} {cx - r} {bottom}"
    )
    shine = [
        path(
            f"M{cx - r * 0.62} {bottom - (bottom - top) * 0.25} Q{cx - r * 0.56} "
            f"{top + (bottom - top) * 0.34} {cx - r * 0.28} {top + (bottom - top) * 0.14} "
            f"Q{cx - r * 0.42} {top + (bottom - top) * 0.5} {cx - r * 0.5} "
            f"{bottom - (bottom - top) * 0.2}"
        )
    ]
    canvas.part(
        body, cloth.main, relief=0.4, soft=2.6, across=CYLINDER, gain=80, gleam=shine, gleam_light=0.45, gleam_soft=1.0
    )


def _base(canvas: Canvas, look: Look, cx: float, y: float, r: float, colour: Colour) -> None:
    canvas.ground(cx, y + 1.6, r * 1.08, r * 0.24)
    canvas.part(
        path(f"M{cx - r} {y} L{cx - r} {y + 1.8} Q{cx} {y + 1.8 + r * 0.36} {cx + r} {y + 1.8} L{cx + r} {y}"),
        colour,
        relief=0.2,
        soft=0.8,
        across=CYLINDER,
    )
    canvas.part(
        ellipse(cx, y, r, r * 0.18),
        shade(colour, 0.12),
        relief=0.3,
        soft=0.8,
        across=((0, -0.1), (0.35, 0.2), (1, -0.2)),
    )


def desk_lamp(canvas: Canvas, look: Look) -> None:
    """A desk lamp: jointed arm, gooseneck or banker's lamp."""
    rng = canvas.rng
    metal = _metal(look)
    if look.cut == "banker":
        brass = METALS["brass"]
        _base(canvas, look, 50, 82, 17, brass)
        _rod(canvas, 50, 46, 82, 2.6, brass)
        canvas.part(ellipse(50, 64, 2.6, 2.2), brass, relief=0.8, soft=1)
        canvas.glow(50, 62, 30, _LIGHT, 0.5)
        cloth = Cloth(canvas, look)
        glass = symmetric("M50 33 L72 33 Q80 34.4 82 46.6 L50 47")
        canvas.part(path("M20 46 L80 46 Q80 49 76 49 L24 49 Q20 49 20 46"), (250, 240, 210), relief=0.2)
        canvas.part(
            glass,
            cloth.main,
            relief=0.8,
            soft=2.6,
            down=((0, 0.5), (0.3, 0.1), (1, -0.25)),
            gleam=[path("M28 36 L72 36 L73 38 L27 38")],
            gleam_light=0.5,
            gleam_soft=0.7,
        )
        canvas.line("M58 49 L58 58", 0.35, (120, 100, 60))
        canvas.part(ellipse(58, 58.6, 0.9, 0.9), brass, relief=0.8, soft=0.4)
        return
    if look.cut == "gooseneck":
        _base(canvas, look, 34, 84, 15, look.ground)
        canvas.glow(66, 58, 26, _LIGHT, 0.55)
        canvas.part(path("M34 84 C33 54 30 22 50 18 C60 16.4 65.6 22 66 31"), metal, width=1.9, relief=0.9, soft=0.6)
        _dome(canvas, look, 66, 30, 46, 14, deep=True)
        canvas.part(path("M63.6 27 L68.4 27 L69 31.4 L63 31.4"), metal, relief=0.6, soft=0.7)
        return
    lean = rng.uniform(-3, 3)
    _base(canvas, look, 36, 84, 14, look.ground)
    canvas.glow(70, 56, 24, _LIGHT, 0.55)
    elbow = (24 + lean, 46.0)
    head = (62.0, 28.0 + lean * 0.5)
    for dx in (-0.9, 0.9):
        canvas.part([(36 + dx, 83), (elbow[0] + dx, elbow[1])], metal, width=1.2, relief=0.9, soft=0.4)
        canvas.part([(elbow[0], elbow[1] + dx), (head[0], head[1] + dx)], metal, width=1.2, relief=0.9, soft=0.4)
    for x, y, r in ((*elbow, 2.4), (36, 82.6, 2.2)):
        canvas.part(ellipse(x, y, r, r), look.ground, relief=0.8, soft=0.8, drop=0.4)
        canvas.part(ellipse(x, y, r * 0.4, r * 0.4), metal, relief=0.7, soft=0.3)
    cloth = Cloth(canvas, look, scale=0.6)
    x, y = head
    cone = path(
        f"M{x - 3} {y - 5} Q{x + 1} {y - 8} {x + 5} {y - 4} Q{x + 18} {y - 1} {x + 22} "
        f"{y + 11} L{x - 3.6} {y + 22} Q{x - 8} {y + 8} {x - 3} {y - 5}"
    )
    lit = [
        (x + 22, y + 11),
        *path(f"M{x + 22} {y + 11} Q{x + 13} {y + 21} {x - 3.6} {y + 22} Q{x + 4} {y + 10} {x + 22} {y + 11}"),
    ]
    canvas.part(
        cone,
        cloth.main,
        relief=0.8,
        soft=4,
        gleam=[path(f"M{x - 1} {y} Q{x - 3.4} {y + 8} {x - 1.6} {y + 16} L{x + 1} {y + 15} Q{x} {y + 8} {x + 2} {y}")],
        gleam_light=0.4,
        gleam_soft=0.9,
    )
    canvas.part(lit, (252, 242, 216), relief=0.15)
    canvas.fill(ellipse(x + 8.6, y + 16.6, 3.6, 2.4), (255, 255, 248), 1.0, soft=0.5)
    canvas.part(ellipse(x, y - 4, 2.4, 2.4), metal, relief=0.8, soft=0.7, drop=0.4)


def table_lamp(canvas: Canvas, look: Look) -> None:
    """A table lamp on a ceramic or wooden body: gourd, column or mushroom."""
    metal = _metal(look)
    body_colour = look.second if luminance(look.second) < 0.97 else shade(look.second, -0.05)
    canvas.glow(50, 40, 44, _LIGHT, 0.4)
    if look.cut == "mushroom":
        _base(canvas, look, 50, 83, 17, shade(look.ground, -0.1))
        canvas.part(
            symmetric("M50 46 L55 46 Q54.4 70 62 82 Q56 84 50 84"), look.ground, relief=0.3, soft=1.2, across=CYLINDER
        )
        _dome(canvas, look, 50, 22, 50, 30)
        return
    canvas.ground(50, 86, 15, 3.2)
    _rod(canvas, 50, 46, 56, 2.0, metal)
    if look.cut == "gourd":
        body = symmetric("M50 53 L52.6 53 C52 58 57 58 57 62 C57 65 54 66 56 68 C66 71 66 85 59 86 Q54 87 50 87")
    else:
        body = symmetric("M50 53 L54 53 Q57 54 57 57 L58.6 84 Q58 87 50 87")
    canvas.part(
        body,
        body_colour,
        relief=0.4,
        soft=1.6,
        across=CYLINDER,
        gain=80,
        gleam=[path("M43.6 72 Q42.6 78 44.6 82 L46.4 82 Q45 77 46 72")],
        gleam_light=0.7,
        gleam_soft=0.6,
    )
    canvas.part(path("M46.6 52 L53.4 52 L53.4 54.4 L46.6 54.4"), metal, relief=0.2, across=TUBE)
    if look.cut == "gourd":
        _shade(canvas, look, 50, 17, 48, 14, 25, bulge=-1)
    else:
        _shade(canvas, look, 50, 18, 47, 20, 22)


def floor_lamp(canvas: Canvas, look: Look) -> None:
    """A floor lamp: tripod, arc or reading lamp."""
    metal = _metal(look)
    if look.cut == "tripod":
        wood = (198, 156, 104) if look.seed % 2 else (112, 74, 48)
        canvas.ground(50, 93, 20, 2.4)
        for x, y in ((53, 94.6), (32, 93), (68, 93)):
            canvas.part([(50, 34), (x, y)], wood, width=1.9, relief=0.9, soft=0.7)
        canvas.part(path("M46.6 34 L53.4 34 L53.4 38 L46.6 38"), metal, relief=0.2, across=TUBE)
        canvas.glow(50, 26, 34, _LIGHT, 0.4)
        _shade(canvas, look, 50, 8, 33, 17, 20.6)
    elif look.cut == "arc":
        _base(canvas, look, 27, 91, 14, METALS["black steel"] if look.seed % 2 else (222, 220, 216))
        canvas.glow(68, 40, 26, _LIGHT, 0.5)
        canvas.part(path("M27 91 L27 40 C27 4 64 0 68 22"), metal, width=1.5, relief=0.9, soft=0.5)
        _dome(canvas, look, 68, 21, 36, 16)
        canvas.part(path("M66 18.4 L70 18.4 L70.6 22 L65.4 22"), metal, relief=0.5, soft=0.6)
    else:
        _base(canvas, look, 46, 92, 13, look.ground)
        _rod(canvas, 46, 16, 92, 1.5, metal)
        canvas.glow(62, 36, 22, _LIGHT, 0.5)
        canvas.part(path("M46 18 Q54 12 62 20"), metal, width=1.3, relief=0.9, soft=0.5)
        _dome(canvas, look, 62, 18, 31, 11, deep=True)
        canvas.part(ellipse(46, 17, 1.8, 1.8), metal, relief=0.9, soft=0.6)
        canvas.part(ellipse(46, 58, 1.3, 2.2), metal, relief=0.9, soft=0.6)


def pendant(canvas: Canvas, look: Look) -> None:
    """A pendant lamp: dome, drum, globe or cone, on its cable."""
    metal = _metal(look)
    canvas.line("M50 -4 L50 34", 0.6, (60, 58, 60))
    drop = {"globe": 34.0, "drum": 36.0}.get(look.cut, 30.0)
    canvas.part(
        path(f"M47.8 {drop - 4} L52.2 {drop - 4} L53 {drop + 2} L47 {drop + 2}"), metal, relief=0.2, across=TUBE
    )
    if look.cut == "drum":
        canvas.glow(50, 56, 42, _LIGHT, 0.4)
        _shade(canvas, look, 50, 36, 62, 31, 31)
    elif look.cut == "globe":
        canvas.glow(50, 56, 40, _LIGHT, 0.5)
        cloth = Cloth(canvas, look, scale=0.9)
        ball = ellipse(50, 58, 24, 23.4)
        canvas.part(
            ball, cloth.main, relief=0.9, soft=9, gleam=[ellipse(41, 47, 5, 3.6)], gleam_light=0.75, gleam_soft=1.4
        )
        if look.material in ("paper", "glass", "rattan", "linen"):
            canvas.fill(ellipse(50, 60, 13, 13), _LIGHT, 0.55, soft=5)
        if look.material == "paper":
            for k in range(-6, 7):
                y = 58 + k * 3.4
                rx = 24 * max(0.0, 1 - ((y - 58) / 23.4) ** 2) ** 0.5
                canvas.line(f"M{50 - rx} {y} Q50 {y + 2.2} {50 + rx} {y}", 0.25, shade(look.ground, -0.3), 0.6)
        canvas.part(path("M45 35.4 L55 35.4 L56 38.4 L44 38.4"), metal, relief=0.2, across=TUBE)
    elif look.cut == "cone":
        canvas.glow(50, 66, 34, _LIGHT, 0.5)
        canvas.part(ellipse(50, 66, 25, 3.8), (250, 240, 214), relief=0.15)
        canvas.fill(ellipse(50, 67, 9, 2), (255, 255, 246), 1.0, soft=0.6)
        cloth = Cloth(canvas, look, scale=0.8)
        canvas.part(
            path("M46 31 L54 31 L75 66 Q50 70.6 25 66"), cloth.main, relief=0.4, soft=2, across=CYLINDER, gain=85
        )
    else:
        canvas.glow(50, 62, 36, _LIGHT, 0.5)
        _dome(canvas, look, 50, 31, 60, 31)

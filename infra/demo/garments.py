"""Garments laid flat: T-shirts, shirts, sweaters, hoodies, dresses, skirts, trousers and shorts."""

from infra.demo.drawing import (
    Canvas,
    Colour,
    Fold,
    Point,
    ellipse,
    luminance,
    mirrored,
    path,
    shade,
    symmetric,
)
from infra.demo.look import Cloth, Look


def _button(canvas: Canvas, x: float, y: float, look: Look, r: float = 0.85) -> None:
    colour = (238, 234, 226) if luminance(look.ground) < 0.75 else shade(look.ground, -0.3)
    canvas.part(ellipse(x, y, r, r), colour, relief=0.6, soft=0.4, drop=0.35)
    canvas.fill(ellipse(x, y, r * 0.25, r * 0.25), shade(colour, -0.6), 0.8)


def _seam(canvas: Canvas, line: str | list[Point], look: Look, *, dash: float | None = None) -> None:
    canvas.line(line, 0.28, look.thread, 0.75, dash)


def _both(canvas: Canvas, line: str, look: Look, *, dash: float | None = None) -> None:
    _seam(canvas, line, look, dash=dash)
    _seam(canvas, mirrored(path(line)), look, dash=dash)


def _inside(look: Look) -> Colour:
    return shade(look.ground, -0.38) if luminance(look.ground) > 0.25 else shade(look.ground, -0.5)


def _sleeves(canvas: Canvas, cloth: Cloth, right: str, angle: float, folds: list[Fold], drop: float = 0.0) -> None:
    outline = path(right)
    for side in (1, -1):
        shape = outline if side > 0 else mirrored(outline)
        creases = folds if side > 0 else [Fold(mirrored(f[0]), f[1], f[2]) for f in folds]
        canvas.lay(shape)
        canvas.part(shape, cloth.turned(angle * side), relief=0.55, soft=3.4, folds=creases, drop=drop)


def _bodice_folds(canvas: Canvas, low: float, high: float) -> list[Fold]:
    rng = canvas.rng
    folds = [
        Fold(f"M69 38 Q 62 {44 + rng.uniform(-2, 2):.1f} 57 {54 + rng.uniform(-3, 3):.1f}", 2.6, -0.3),
        Fold("M67.5 36 Q 61 42 56 50", 1.6, 0.22),
        Fold(f"M31 38 Q 38 {44 + rng.uniform(-2, 2):.1f} 43 {54 + rng.uniform(-3, 3):.1f}", 2.6, -0.26),
        Fold("M33 37 Q 39 43 44 51", 1.6, 0.22),
    ]
    for _ in range(3):
        x = rng.uniform(34, 66)
        sway = rng.uniform(-3, 3)
        folds.append(
            Fold(
                f"M{x:.1f} {high:.1f} Q {x + sway:.1f} {(low + high) / 2:.1f} {x + sway / 2:.1f} {low - 12:.1f}",
                3,
                -0.16,
            )
        )
        folds.append(
            Fold(
                f"M{x + 3:.1f} {high:.1f} Q {x + 3 + sway:.1f} {(low + high) / 2:.1f} "
                f"{x + 3 + sway:.1f} {low - 15:.1f}",
                2.4,
                0.13,
            )
        )
    return folds


def t_shirt(canvas: Canvas, look: Look) -> None:
    """Crew neck, V-neck, or long sleeves."""
    rng = canvas.rng
    cloth = Cloth(canvas, look)
    hem = 86 + rng.uniform(-2, 2)
    w = 20.5 + rng.uniform(-0.8, 1.4)
    v_neck = look.cut == "v-neck"
    deep = 33.0 if v_neck else 23.5
    canvas.lay(symmetric(f"M50 17 L59 17 L70 20 L{50 + w} 40 L{50 + w} {hem} L50 {hem + 1}"))
    canvas.part(symmetric("M50 15.2 Q56 15 59 16 L58 22 Q54 25 50 25"), _inside(look), relief=0.1)
    if look.cut == "long-sleeve":
        _sleeves(
            canvas,
            cloth,
            f"M67 18.6 Q75.4 21.6 79.4 30 L89.5 76 Q85 79 80.5 78.6 L{50 + w - 1} 41 Q67 28 67 18.4",
            16,
            [
                Fold("M74 40 Q80 44 85 43", 2, -0.3),
                Fold("M76 52 Q80 55 86 53", 2, -0.22),
                Fold("M75 26 Q82 44 86 70", 3, 0.14),
            ],
        )
        _both(canvas, "M80.2 75.3 Q85 76 88.9 73", look)
    else:
        _sleeves(
            canvas,
            cloth,
            f"M67 18.6 Q76 21.4 81.4 28.6 L90.5 43.5 Q84 48.4 77.5 49 L{50 + w - 1.5} 39 Q67 28 67 18.4",
            32,
            [Fold("M72 34 Q78 34 84 40", 2.4, -0.2), Fold("M73 26 Q80 30 85 38", 3, 0.16)],
        )
        _both(canvas, "M76.9 46.6 Q83 46 89.3 41.4", look)
    neck = f"M50 {deep} L59.2 16" if v_neck else f"M50 {deep} Q58.4 {deep} 59.4 16"
    body = symmetric(
        f"{neck} L70 19.6 Q67.6 29 {50 + w - 0.6} 39.5 C{50 + w + 0.8} 56 {50 + w + 0.4} "
        f"70 {50 + w + 1} {hem} Q60 {hem + 1.6} 50 {hem + 1.6}"
    )
    canvas.part(body, cloth.main, relief=0.55, soft=4, folds=_bodice_folds(canvas, hem, 44), drop=0.5)
    rib = f"M50 {deep + 1} L59.6 16.4" if v_neck else f"M50 {deep + 0.9} Q58.8 {deep + 1} 60.2 16.3"
    band = path(rib)
    collar = list(reversed(band)) + mirrored(band)
    canvas.part(collar, shade(look.ground, -0.1), width=2.3, relief=0.5, soft=0.8)
    _seam(canvas, [(x * 1.0, y + 1.3) for x, y in collar], look)
    _seam(canvas, f"M{50 - w - 0.6} {hem - 2.6} Q50 {hem - 0.8} {50 + w + 0.6} {hem - 2.6}", look)
    _both(canvas, f"M69.6 20 Q67.6 29 {50 + w - 0.8} 39.2", look)


def shirt(canvas: Canvas, look: Look) -> None:
    """A buttoned shirt: long sleeves, short sleeves, or a band collar."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=0.8)
    hem = 86 + rng.uniform(-1.5, 2)
    w = 20.5 + rng.uniform(-0.8, 1)
    canvas.part(symmetric("M50 12.5 Q57 12.4 59.5 14.5 L58.6 24 L50 26"), _inside(look), relief=0.1)
    if look.cut == "short-sleeve":
        _sleeves(
            canvas,
            cloth,
            f"M67 18.8 Q76 21.8 81.4 29 L90.5 45.5 Q84 50 77.5 50.5 L{50 + w - 1.5} 40 Q67 28 67 18.6",
            30,
            [Fold("M72 34 Q78 36 84 42", 2.4, -0.22), Fold("M73 26 Q80 30 85 38", 3, 0.16)],
        )
        _both(canvas, "M76.6 47.7 Q83 47.3 89.2 42.9", look)
    else:
        _sleeves(
            canvas,
            cloth,
            f"M67 18.8 Q75.4 22 79.4 31 L88.6 79 Q84 82.4 79.4 81.4 L{50 + w - 1} 41 Q67 28 67 18.6",
            15,
            [
                Fold("M73 42 Q79 46 84 45", 2, -0.32),
                Fold("M75 55 Q80 58 86 55", 2, -0.24),
                Fold("M75 28 Q81 46 85 72", 3, 0.15),
                Fold("M79 66 Q82 69 87 68", 1.6, -0.2),
            ],
        )
        for side in (False, True):
            cuff = path("M78.9 75.4 Q84 76.4 88.4 73 L89.6 80.4 Q84.6 83.8 79.6 82.6")
            cuff = mirrored(cuff) if side else cuff
            canvas.part(cuff, cloth.turned(-76 if side else 76), relief=0.6, soft=1.2, drop=0.3)
            _button(canvas, 18 if side else 82, 79.4, look, 0.6)
    body = symmetric(
        f"M50 24 L58.5 15.4 L70 19.6 Q67.6 29 {50 + w - 0.6} 39.5 C{50 + w + 0.6} 56 "
        f"{50 + w} 68 {50 + w + 0.6} {hem - 5} Q{50 + w - 6} {hem - 4} 59 {hem + 0.4} Q54 "
        f"{hem + 2} 50 {hem + 2}"
    )
    canvas.lay(body)
    canvas.part(body, cloth.main, relief=0.55, soft=4, folds=_bodice_folds(canvas, hem, 44), drop=0.5)
    canvas.part(
        path(f"M48.1 24 L51.9 24 L51.9 {hem + 1.9} L48.1 {hem + 1.9}"), cloth.main, relief=0.35, soft=0.6, drop=0.3
    )
    _seam(canvas, f"M48.7 25 L48.7 {hem + 1}", look)
    _seam(canvas, f"M51.3 25 L51.3 {hem + 1}", look)
    for k in range(6):
        _button(canvas, 50, 31 + k * (hem - 37) / 5.4, look)
    if look.cut == "band collar":
        for side in (False, True):
            band = path("M50 25.2 Q57.2 22 60.4 14.2 L58 12.2 Q55.6 18.4 50 21")
            canvas.part(mirrored(band) if side else band, cloth.plain, relief=0.6, soft=0.8, drop=0.4)
    else:
        for side in (False, True):
            leaf = path("M50.2 23 Q55.6 19.6 57.6 12 Q60 12.4 61.4 15.4 L63.4 25.6 L56.6 31 Q53 27 50.2 23")
            leaf = mirrored(leaf) if side else leaf
            canvas.part(leaf, cloth.turned(-24 if side else 24), relief=0.7, soft=1.1, drop=0.8)
        _button(canvas, 50, 25.6, look, 0.75)
    if look.seed % 2 and look.cut != "band collar":
        pocket = path("M56.5 39 L66 39 L66 48.4 L61.2 50.6 L56.5 48.4")
        canvas.part(pocket, cloth.main, relief=0.4, soft=0.6, drop=0.25)
        _seam(canvas, "M56.5 41 L66 41", look)


def sweater(canvas: Canvas, look: Look) -> None:
    """Knitwear: crew neck, turtleneck, or a buttoned cardigan."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=1.35)
    hem = 84 + rng.uniform(-2, 1.5)
    w = 22.5 + rng.uniform(-0.8, 1.6)
    rib = shade(look.ground, -0.12) if look.pattern in ("plain", "gradient") else look.second
    deep = {"cardigan": 42.0, "turtleneck": 18.0}.get(look.cut, 22.6)
    canvas.part(symmetric(f"M50 14.4 Q56 14 60 15.6 L58 24 Q54 {deep + 6} 50 {deep + 6}"), _inside(look), relief=0.1)
    _sleeves(
        canvas,
        cloth,
        f"M66 18 Q76 21.4 80.6 31 L90.5 76 Q85.5 79.4 79.6 78.6 L{50 + w - 1} 43 Q66 28 66 18",
        16,
        [
            Fold("M74 42 Q80 46 86 44", 2.6, -0.3),
            Fold("M76 54 Q81 58 88 55", 2.6, -0.24),
            Fold("M76 28 Q83 46 86 70", 4, 0.16),
        ],
    )
    for side in (False, True):
        cuff = path("M79.6 75 Q85 76.4 90.2 72.6 L90.8 81 Q85.6 84.6 80.6 83.4")
        canvas.part(mirrored(cuff) if side else cuff, rib, relief=0.7, soft=1.4)
        for k in range(5):
            line = [(81 + k * 2.1, 76.2 - k * 0.35), (81.8 + k * 2.0, 83 - k * 0.3)]
            _seam(canvas, mirrored(line) if side else line, look)
    neck = f"M50 {deep} L59.4 15.6" if look.cut == "cardigan" else f"M50 {deep} Q58.6 {deep} 60 15.6"
    body = symmetric(
        f"{neck} L69.6 18.8 Q67 29 {50 + w - 0.8} 41 C{50 + w + 1} 56 {50 + w + 0.6} 68 {50 + w} {hem} L50 {hem}"
    )
    canvas.lay(body, 2.0)
    folds = _bodice_folds(canvas, hem, 46)
    canvas.part(body, cloth.main, relief=0.65, soft=5, folds=folds, drop=0.5)
    band = symmetric(
        f"M50 {hem - 1} L{50 + w + 0.4} {hem - 1} Q{50 + w} {hem + 3} {50 + w - 1.6} "
        f"{hem + 6} Q50 {hem + 7} 50 {hem + 7}"
    )
    canvas.part(band, rib, relief=0.7, soft=1.6)
    x = 50 - w + 1.5
    while x < 50 + w - 1:
        _seam(canvas, [(x, hem), (x * 0.98 + 1, hem + 6.2)], look)
        x += 2.1
    if look.cut == "turtleneck":
        roll = symmetric("M50 7.4 Q57.8 7.2 59.6 9.4 L61 19 Q57 22.4 50 22.4")
        canvas.part(roll, rib, relief=0.8, soft=1.8, drop=0.6, down=((0, 0.1), (0.45, -0.1), (0.55, 0.12), (1, -0.15)))
        for k in range(-4, 5):
            _seam(canvas, [(50 + k * 2.2, 8.6), (50 + k * 2.35, 21.4 - abs(k) * 0.3)], look)
        canvas.fill(ellipse(50, 9, 7.6, 1.3), _inside(look), 0.85, soft=0.2)
    else:
        edge = path(
            f"M50 {deep + 0.8} L60 15.8" if look.cut == "cardigan" else f"M50 {deep + 0.8} Q59 {deep + 1} 60.8 15.8"
        )
        canvas.part(list(reversed(edge)) + mirrored(edge), rib, width=3, relief=0.6, soft=1)
    if look.cut == "cardigan":
        canvas.part(
            path(f"M47.8 {deep + 1} L52.2 {deep + 1} L52.2 {hem + 6.9} L47.8 {hem + 6.9}"),
            rib,
            relief=0.5,
            soft=0.8,
            drop=0.4,
        )
        for k in range(5):
            _button(canvas, 50, deep + 4 + k * (hem - deep - 2) / 4.2, look, 1.2)


def hoodie(canvas: Canvas, look: Look) -> None:
    """A hooded sweatshirt: pullover, or with a zip."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=1.2)
    hem = 84 + rng.uniform(-1.5, 1.5)
    w = 23 + rng.uniform(-0.6, 1.4)
    rib = shade(look.ground, -0.14)
    hood = symmetric("M50 4.6 C60 4.4 67 10 66.4 20 Q66 26 59 29 L50 34")
    canvas.lay(hood)
    canvas.part(
        hood,
        cloth.main,
        relief=0.7,
        soft=3.4,
        folds=[Fold("M60 9 Q64 16 61 25", 2, -0.2), Fold("M40 9 Q36 16 39 25", 2, -0.2)],
    )
    _sleeves(
        canvas,
        cloth,
        f"M66 21 Q77 23.6 81.6 33 L91.5 77 Q86 80.4 80 79.6 L{50 + w - 1} 46 Q66 31 66 21",
        16,
        [
            Fold("M75 44 Q81 48 87 46", 2.8, -0.32),
            Fold("M77 56 Q82 60 89 57", 2.8, -0.26),
            Fold("M77 30 Q84 48 87 72", 4, 0.16),
        ],
    )
    for side in (False, True):
        cuff = path("M80 76.6 Q86 77.8 91.2 73.8 L91.6 81.4 Q86.4 85 81.4 84")
        canvas.part(mirrored(cuff) if side else cuff, rib, relief=0.7, soft=1.4)
    body = symmetric(
        f"M50 36 Q57 32 60.4 21 L69.6 21.4 Q67 32 {50 + w - 0.8} 44 C{50 + w + 1} 58 "
        f"{50 + w + 0.6} 70 {50 + w} {hem} L50 {hem}"
    )
    canvas.lay(body, 2.0)
    canvas.part(body, cloth.main, relief=0.65, soft=5, folds=_bodice_folds(canvas, hem, 48), drop=0.5)
    band = symmetric(
        f"M50 {hem - 1} L{50 + w + 0.4} {hem - 1} Q{50 + w} {hem + 3} {50 + w - 1.6} "
        f"{hem + 6.4} Q50 {hem + 7.4} 50 {hem + 7.4}"
    )
    canvas.part(band, rib, relief=0.7, soft=1.6)
    opening = symmetric("M50 9.4 C57.6 9.4 61.6 14 60.4 21 Q57.4 31 50 36.4")
    canvas.part(opening, _inside(look), relief=0.15, down=((0, -0.3), (1, 0.2)))
    for side in (False, True):
        lip = path("M50 8.8 C58.6 8.6 63.4 13.6 61.6 21.6 Q58.6 32 50 37.4")
        canvas.part(mirrored(lip) if side else lip, cloth.plain, width=2.6, relief=0.6, soft=1.0)
    pocket = symmetric(f"M50 {hem - 25} L59 {hem - 25} Q64 {hem - 20} 68 {hem - 9} L68 {hem - 1.6} L50 {hem - 1.6}")
    canvas.part(pocket, cloth.main, relief=0.55, soft=1.2, drop=0.5)
    _both(canvas, f"M58.6 {hem - 24} Q62.8 {hem - 19} 66.8 {hem - 9}", look)
    cord = look.second if luminance(look.second) > 0.6 else (236, 234, 228)
    if look.cut == "zip":
        canvas.line(f"M50 36 L50 {hem + 7}", 1.5, shade(look.ground, -0.45))
        canvas.line(f"M50 36 L50 {hem + 7}", 0.8, (196, 198, 202), dash=0.55)
        canvas.part(path("M49.2 36 L50.8 36 L51 40 L49 40"), (206, 208, 212), relief=0.7, soft=0.4, drop=0.3)
    for x, y, z in ((45.4, 31.6, 47), (54.6, 31.6, 45)):
        canvas.line(f"M{x} {y} Q{x - 0.8} 39 {x + 0.4} {z}", 0.95, shade(cord, -0.35), 0.6)
        canvas.line(f"M{x} {y} Q{x - 0.9} 39 {x + 0.3} {z}", 0.75, cord)


def dress(canvas: Canvas, look: Look) -> None:
    """A dress: sleeveless A-line, straight with short sleeves, or long with straps."""
    rng = canvas.rng
    cloth = Cloth(canvas, look, scale=0.9)
    hem = {"a-line": 84.0, "shift": 80.0}.get(look.cut, 94.0) + rng.uniform(-2, 2)
    canvas.part(symmetric("M50 9.5 Q55 9.4 57.5 10 L57 16 Q54 20 50 20"), _inside(look), relief=0.1)
    waist = 42.0
    flare = 25 + rng.uniform(-2, 3)
    if look.cut == "shift":
        _sleeves(
            canvas,
            cloth,
            "M63 12.4 Q71 14.4 74.6 20 L80 33.6 Q75 37 69.4 37.4 L64.6 30 Q63 20 63 12.4",
            28,
            [Fold("M68 27 Q72 27 77 32", 2, -0.2), Fold("M68 19 Q74 22 77 29", 2.4, 0.16)],
        )
        outline = symmetric(
            "M50 17.6 Q56.6 17.6 57.6 10 L65.6 13 Q63.6 22 65 30 C63 38 63.4 46 66 54 Q68 66 "
            f"68.6 {hem} Q60 {hem + 1.4} 50 {hem + 1.4}"
        )
    elif look.cut == "maxi":
        outline = symmetric(
            f"M50 23 Q57 19 60 15 Q60.6 22 65 28 C63.6 34 61 37 61 {waist} C66 56 "
            f"{46 + flare} 74 {50 + flare} {hem - 1} Q64 {hem + 2.4} 50 {hem + 2.4}"
        )
    else:
        outline = symmetric(
            f"M50 20.4 Q57 20 58.4 9.8 L63.6 11 Q62 22 66 28.4 C64 34 61.4 37 61.2 {waist} "
            f"C66 54 {50 + flare - 3} 68 {50 + flare + 2} {hem - 2} Q66 {hem + 2.6} 50 {hem + 2.6}"
        )
    canvas.lay(outline)
    folds: list[Fold] = []
    if look.cut == "shift":
        folds = [Fold("M63 32 Q58 37 55 44", 2.2, -0.24), Fold("M37 32 Q42 37 45 44", 2.2, -0.22)]
        for x in (42.0, 56.0):
            folds += [
                Fold(f"M{x} 56 Q{x + 1} 66 {x - 1} {hem - 3:.1f}", 3, -0.16),
                Fold(f"M{x + 4} 56 Q{x + 4} 66 {x + 5} {hem - 3:.1f}", 3, 0.14),
            ]
    else:
        for k in range(-4, 5):
            x = 50 + k * 2.3
            end = 50 + k * flare / 4.4
            wobble = rng.uniform(-1, 1)
            folds.append(
                Fold(
                    f"M{x} {waist + 1} Q{x + (end - x) * 0.3 + wobble:.1f} {(waist + hem) / 2:.1f} {end:.1f} {hem}",
                    2.4,
                    -0.3,
                )
            )
            folds.append(
                Fold(
                    f"M{x + 1.2} {waist + 4} Q{x + 1.2 + (end - x) * 0.3:.1f} {(waist + hem) / 2:.1f} "
                    f"{end + 2.8:.1f} {hem}",
                    2.2,
                    0.2,
                )
            )
    if look.cut == "maxi":
        for side in (False, True):
            strap = path("M59 19 Q58.6 13 55.6 7.6")
            canvas.part(mirrored(strap) if side else strap, cloth.plain, width=1.7, relief=0.6, soft=0.6, drop=0.3)
    canvas.part(outline, cloth.main, relief=0.55, soft=3.2, folds=folds, drop=0.4)
    if look.cut == "maxi":
        _seam(canvas, list(reversed(path("M50 24 Q57 20 60 16"))) + mirrored(path("M50 24 Q57 20 60 16")), look)
    else:
        edge = path("M50 18.4 Q57.2 18.4 58.4 10.4" if look.cut == "shift" else "M50 21.3 Q57.8 20.8 59.2 10.4")
        canvas.part(list(reversed(edge)) + mirrored(edge), shade(look.ground, -0.08), width=1.2, relief=0.5, soft=0.5)
    if look.cut != "shift":
        belt = symmetric(f"M50 {waist - 1.8} L61.2 {waist - 1.6} L61.4 {waist + 1.6} L50 {waist + 1.8}")
        if look.seed % 3 == 0 and look.pattern != "plain":
            canvas.part(belt, look.second, relief=0.6, soft=0.8, drop=0.4)
        else:
            canvas.part(belt, cloth.plain, relief=0.5, soft=0.8, drop=0.3)
    _seam(
        canvas,
        f"M{50 - flare + 5 if look.cut != 'shift' else 32} {hem - 1.6} Q50 {hem + 1} "
        f"{45 + flare if look.cut != 'shift' else 68} {hem - 1.6}",
        look,
    )


def skirt(canvas: Canvas, look: Look) -> None:
    """A skirt: A-line, pencil or pleated."""
    rng = canvas.rng
    cloth = Cloth(canvas, look)
    top = 16.0
    hem = {"a-line": 74.0, "pencil": 84.0}.get(look.cut, 80.0) + rng.uniform(-3, 3)
    wide = {"a-line": 30.0, "pencil": 17.5}.get(look.cut, 33.0) + rng.uniform(-1, 2)
    canvas.part(symmetric(f"M50 {top - 1.4} Q62 {top - 1.2} 65 {top + 0.6} L50 {top + 4}"), _inside(look), relief=0.1)
    if look.cut == "pencil":
        outline = symmetric(
            f"M50 {top + 2} Q60 {top + 1.6} 65 {top} C70 34 71 44 {50 + wide + 1.5} 62 "
            f"L{50 + wide} {hem} Q60 {hem + 1.4} 50 {hem + 1.4}"
        )
        folds = [
            Fold("M66 26 Q60 32 54 34", 2.6, -0.2),
            Fold("M34 26 Q40 32 46 34", 2.6, -0.2),
            Fold(f"M44 40 Q43 60 45 {hem - 4:.1f}", 4, 0.14),
            Fold(f"M57 42 Q58 60 56 {hem - 4:.1f}", 4, -0.14),
        ]
    else:
        outline = symmetric(
            f"M50 {top + 2} Q60 {top + 1.6} 65 {top} C70 34 {46 + wide} 54 {50 + wide} "
            f"{hem - 2} Q66 {hem + 3} 50 {hem + 3}"
        )
        folds = []
        count = 8 if look.cut == "pleated" else 4
        for k in range(-count, count + 1):
            x, end = 50 + k * 14 / count, 50 + k * wide / count
            bend = 0 if look.cut == "pleated" else rng.uniform(-2, 2)
            folds.append(
                Fold(
                    f"M{x:.1f} {top + 5} Q{x + (end - x) * 0.4 + bend:.1f} {(top + hem) / 2:.1f} "
                    f"{end:.1f} {hem + 1:.1f}",
                    1.4 if look.cut == "pleated" else 3,
                    -0.42 if look.cut == "pleated" else -0.26,
                )
            )
            folds.append(
                Fold(
                    f"M{x + 0.8:.1f} {top + 5} Q{x + 0.9 + (end - x) * 0.4 + bend:.1f} "
                    f"{(top + hem) / 2:.1f} {end + 1.9:.1f} {hem + 1:.1f}",
                    1.2 if look.cut == "pleated" else 2.4,
                    0.3 if look.cut == "pleated" else 0.18,
                )
            )
    canvas.lay(outline)
    canvas.part(outline, cloth.main, relief=0.55, soft=3.4, folds=folds)
    band = symmetric(f"M50 {top + 2} Q60 {top + 1.6} 65 {top} L65.8 {top + 5} Q60 {top + 7} 50 {top + 7}")
    canvas.part(
        band, cloth.plain if look.pattern != "plain" else shade(look.ground, -0.06), relief=0.6, soft=1, drop=0.4
    )
    _seam(canvas, f"M34.4 {top + 4.4} Q50 {top + 7} 65.6 {top + 4.4}", look)
    if look.cut == "a-line" and look.seed % 2:
        for k in range(5):
            _button(canvas, 50, top + 4.5 + k * (hem - top - 4) / 4.6, look, 1.1)


def trousers(canvas: Canvas, look: Look) -> None:
    """Trousers: straight, wide or tapered."""
    rng = canvas.rng
    _legs(
        canvas,
        look,
        hem=92 + rng.uniform(-1, 1),
        ankle={"wide": 17.5, "tapered": 8.8}.get(look.cut, 12.0) + rng.uniform(-0.5, 0.8),
    )


def shorts(canvas: Canvas, look: Look) -> None:
    """Shorts: chino or drawstring."""
    _legs(canvas, look, hem=62 + canvas.rng.uniform(-3, 4), ankle=15.5)


def _legs(canvas: Canvas, look: Look, *, hem: float, ankle: float) -> None:
    cloth = Cloth(canvas, look, scale=0.85)
    short = hem < 75
    top = 20.0 if short else 9.0
    crotch = top + 29
    knee = (crotch + hem) / 2
    # The hem's centre: legs lie slightly apart, and wider the fuller the cut.
    middle = 50 + (13.2 if short else 7.5 + ankle * 0.32)
    outer, inner = middle + ankle * (0.84 if short else 0.78), middle - ankle * (0.72 if short else 0.6)
    hip = 22.5 if short else 20
    canvas.part(symmetric(f"M50 {top - 1.2} Q61 {top - 1} 65 {top + 0.5} L50 {top + 5}"), _inside(look), relief=0.1)
    leg = path(
        f"M49.8 {top + 2} Q58 {top + 1.8} 65 {top} C{51 + hip} {top + 14} {50 + hip} "
        f"{crotch} {(outer + 50 + hip) / 2 if not short else outer} {knee} "
        f"L{outer} {hem} Q{middle} {hem + 1.8} {inner} {hem} L{(inner + 51) / 2} {knee} "
        f"L50.6 {crotch + 1} L49.8 {crotch}"
    )
    folds = [
        Fold(f"M51 {crotch} Q57 {crotch - 3} 63 {crotch - 9}", 2, -0.28),
        Fold(f"M52 {crotch + 4} Q57 {crotch + 2} 64 {crotch - 3}", 2, -0.2),
        Fold(f"M{(51 + hip + 50) / 2} {top + 12} Q{middle + 1} {knee} {middle} {hem - 1}", 1.4, 0.3),
        Fold(f"M{(51 + hip + 50) / 2 - 2.4} {top + 14} Q{middle - 2} {knee} {middle - 3} {hem - 1}", 3, -0.16),
    ]
    if not short:
        folds += [
            Fold(f"M{inner} {knee + 3} Q{middle} {knee + 5} {outer} {knee + 1}", 2, -0.16),
            Fold(f"M{inner} {hem - 7} Q{middle} {hem - 4} {outer} {hem - 8}", 2, -0.16),
        ]
    canvas.lay(leg)
    canvas.lay(mirrored(leg))
    canvas.part(
        mirrored(leg), cloth.main, relief=0.6, soft=3.4, folds=[Fold(mirrored(f[0]), f[1], f[2]) for f in folds]
    )
    canvas.part(leg, cloth.main, relief=0.6, soft=3.4, folds=folds)
    band = symmetric(f"M50 {top + 2} Q60 {top + 1.6} 65 {top} L65.8 {top + 5.4} Q60 {top + 7.4} 50 {top + 7.4}")
    canvas.part(band, cloth.main, relief=0.6, soft=1, drop=0.4)
    dash = 0.9 if look.material == "denim" else None
    _both(canvas, f"M57.6 {top + 7.4} Q60 {top + 13.4} 66.8 {top + 14.8}", look, dash=dash)
    _seam(canvas, f"M50 {top + 7.4} L50 {crotch}", look)
    _seam(canvas, f"M54 {top + 7.4} Q54.6 {top + 17} 50.4 {top + 21}", look, dash=dash)
    _both(canvas, f"M{inner + 0.2} {hem - 2.4} Q{middle} {hem - 0.8} {outer - 0.2} {hem - 2.4}", look, dash=dash)
    if look.cut == "drawstring":
        for side in (-1, 1):
            canvas.line(
                f"M{50 + side * 1.6} {top + 5} Q{50 + side * 4} {top + 12} {50 + side * 3} {top + 18}",
                0.9,
                (238, 234, 226),
            )
    else:
        _button(canvas, 50, top + 4.6, look, 1.1)
        for x in (40.5, 59.5):
            canvas.part(
                path(f"M{x - 0.8} {top + 0.8} L{x + 0.8} {top + 0.8} L{x + 0.8} {top + 8} L{x - 0.8} {top + 8}"),
                cloth.plain,
                relief=0.5,
                soft=0.5,
                drop=0.3,
            )

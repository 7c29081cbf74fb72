"""What a product looks like: the words that both its photo and its description are made from."""

import msgspec
from PIL import Image

from infra.demo.drawing import Canvas, Colour, luminance, shade
from infra.demo.palette import COLOURS, WOODS
from infra.demo.textures import finish, print_on


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One design. `cut` is a form that the kind knows; colours are names of the palette; seed varies proportions."""

    kind: str
    cut: str
    colour: str
    accent: str
    pattern: str
    material: str
    seed: int

    @property
    def ground(self) -> Colour:
        """The main colour; wood has its own."""
        return WOODS.get(self.material) or COLOURS[self.colour]

    @property
    def second(self) -> Colour:
        """The colour of the print, the lining or the trim."""
        return COLOURS[self.accent]

    @property
    def thread(self) -> Colour:
        """Seams: a little darker than the ground, or lighter where the ground is dark."""
        return shade(self.ground, -0.28) if luminance(self.ground) > 0.3 else shade(self.ground, 0.25)


class Cloth:
    """The textures of one design, made once per photo and turned as its parts lie."""

    def __init__(self, canvas: Canvas, look: Look, *, scale: float = 1.0) -> None:
        self._canvas = canvas
        self._look = look
        self._scale = scale
        self.plain = finish(canvas, print_on(canvas, "plain", look.ground, look.second), look.material)
        self.main = self.turned(0)

    def turned(self, angle: float) -> Image.Image:
        """The print turned by `angle` degrees counter-clockwise, for a sleeve or a strap."""
        look = self._look
        if look.pattern == "plain":
            return self.plain
        if look.pattern == "gradient" and angle:
            return self.main
        image = print_on(
            self._canvas, look.pattern, look.ground, look.second, scale=self._scale, angle=angle, seed=look.seed
        )
        return finish(self._canvas, image, look.material)

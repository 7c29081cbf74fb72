"""How a language names and describes a product."""

from typing import Literal

import msgspec

from infra.demo.look import Look
from infra.demo.palette import WOODS

Gender = Literal["m", "f", "n", "mp", "fp"]
_FORMS: tuple[Gender, ...] = ("m", "f", "n", "mp", "fp")


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The words of one language.

    title: template over {colour}, {material}, {name} and {pattern}; title_wood: the same without {colour}, for
    timber that is not painted. names: "kind/cut" -> name and gender. colours: the colour's forms for m, f, n,
    mp, fp separated by blanks (an underscore is a blank inside a form), or one form that never changes.
    materials: as the title says them; material_names: as a list says them. patterns: templates over
    {accent}. about: sentences per kind, of which a description takes one. feel: one sentence per material.
    facts: the closing line.
    """

    code: str
    title: str
    title_wood: str
    facts: str
    names: dict[str, tuple[str, Gender]]
    colours: dict[str, str]
    colour_names: dict[str, str]
    materials: dict[str, str]
    material_names: dict[str, str]
    patterns: dict[str, str]
    pattern_names: dict[str, str]
    about: dict[str, tuple[str, str]]
    feel: dict[str, str]

    def _agreed(self, colour: str, gender: Gender) -> str:
        forms = self.colours[colour].split()
        return (forms[0] if len(forms) == 1 else forms[_FORMS.index(gender)]).replace("_", " ")

    def name(self, look: Look) -> str:
        """The product's name alone, without colour and material."""
        return self.names[f"{look.kind}/{look.cut}"][0]

    def title_of(self, look: Look) -> str:
        """The product's title, first letter in upper case."""
        name, gender = self.names[f"{look.kind}/{look.cut}"]
        template = self.title_wood if look.material in WOODS else self.title
        text = template.format(
            name=name,
            colour=self._agreed(look.colour, gender),
            material=self.materials[look.material],
            pattern=self.patterns[look.pattern].format(accent=self.colour_names[look.accent]),
        )
        return text[0].upper() + text[1:]

    def description_of(self, look: Look) -> str:
        """Three sentences: what it is for, what its material is like, and the facts."""
        about = self.about[look.kind][look.seed % 2]
        facts = self.facts.format(
            colour=self.colour_names[look.colour],
            material=self.material_names[look.material],
            pattern=self.pattern_names[look.pattern],
        )
        return f"{about} {self.feel[look.material]} {facts}"

import io
import itertools

import msgspec
import pytest
from PIL import Image, ImageChops, ImageStat

from infra.demo.look import Look
from infra.demo.palette import ACCENTS, COLOURS
from infra.demo.studio import KINDS, MATERIALS_OF_CUT, photograph
from infra.demo.textures import PATTERNS
from infra.demo.words import VOCABULARIES

SHIRT = Look(kind="shirt", cut="classic", colour="navy", accent="white", pattern="stripes", material="cotton", seed=3)


def _distance(a: Look, b: Look) -> float:
    first, second = (Image.open(io.BytesIO(photograph(look))) for look in (a, b))
    return sum(ImageStat.Stat(ImageChops.difference(first, second)).mean)


def test_every_language_names_every_form() -> None:
    """No kind, cut, colour, material or pattern is without its word in any language."""
    forms = {f"{name}/{cut}" for name, kind in KINDS.items() for cut in kind.cuts}
    materials = {material for kind in KINDS.values() for material in kind.materials}
    materials |= set(itertools.chain.from_iterable(MATERIALS_OF_CUT.values()))
    for words in VOCABULARIES.values():
        assert set(words.names) == forms
        assert set(words.about) == set(KINDS)
        assert set(words.colours) == set(words.colour_names) == set(COLOURS)
        assert materials <= set(words.materials) & set(words.material_names) & set(words.feel)
        assert set(words.patterns) == set(words.pattern_names) == set(PATTERNS)


def test_the_palette_matches_itself() -> None:
    """Every accent is a colour of the palette, and every colour has accents other than itself."""
    assert set(ACCENTS) == set(COLOURS)
    assert all(set(accents) <= set(COLOURS) - {colour} for colour, accents in ACCENTS.items())


def test_russian_colours_agree_with_the_noun() -> None:
    """An adjective takes the gender of its product."""
    russian = VOCABULARIES["ru"]
    assert russian.title_of(SHIRT) == "Рубашка из хлопка, тёмно-синяя, в полоску"
    dress = msgspec.structs.replace(SHIRT, kind="dress", cut="maxi", colour="red", pattern="plain")
    assert russian.title_of(dress) == "Платье макси из хлопка, красное"


def test_french_colours_agree_with_the_noun() -> None:
    """A feminine noun takes the feminine colour; an invariable colour stays as it is."""
    french = VOCABULARIES["fr"]
    white = msgspec.structs.replace(SHIRT, colour="white", pattern="plain")
    assert french.title_of(white) == "Chemise blanche en coton"
    assert french.title_of(SHIRT) == "Chemise bleu marine en coton à rayures"


def test_look_alikes_look_alike() -> None:
    """The same shirt in other proportions is nearer in pixels than another colour, and that than another kind."""
    shirt = msgspec.structs.replace(SHIRT, pattern="plain")
    sibling = msgspec.structs.replace(shirt, seed=13)
    other_colour = msgspec.structs.replace(shirt, colour="yellow")
    other_kind = msgspec.structs.replace(shirt, kind="armchair", cut="club", colour="yellow", material="linen")
    assert _distance(shirt, sibling) < _distance(shirt, other_colour) < _distance(shirt, other_kind)


def test_a_close_up_shows_the_same_product_differently() -> None:
    """The second photo is another picture."""
    assert photograph(SHIRT) != photograph(SHIRT, "detail")


def test_an_unknown_kind_is_refused() -> None:
    """A look of no known kind cannot be drawn."""
    with pytest.raises(KeyError):
        photograph(msgspec.structs.replace(SHIRT, kind="sofa"))

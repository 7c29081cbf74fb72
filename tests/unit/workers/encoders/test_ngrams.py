"""The character n-gram space."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.encoders.ngrams import DIM, VERSION, NgramEncoder, split_words, weigh_features

encoder = NgramEncoder()

PINNED_PLACES = [8, 11, 16, 87, 91]
PINNED_VALUES = [-0.316228, 0.158114, 0.173205, 0.173205, 0.158114]


def cosine(one: str, other: str) -> float:
    rows = encoder.encode([one, other])
    return float(rows[0] @ rows[1])


def test_the_space_has_the_width_of_the_text_pack() -> None:
    """Rows fit the column of the text pack's vectors."""
    assert encoder.space.dim == DIM == 384
    assert encoder.space.name == "char-ngrams-384@1"


def test_the_vectors_are_pinned() -> None:
    """Stored vectors stay comparable: a change here needs a new version in the space's name."""
    row = encoder.encode(["Умная лампочка Яндекса E14"])[0]
    places = np.flatnonzero(row)[:5]
    assert VERSION == 1
    assert places.tolist() == PINNED_PLACES
    np.testing.assert_allclose(row[places], PINNED_VALUES, atol=1e-5)


def test_inflected_words_are_near() -> None:
    """A Russian word in another case, a German compound and its part are near; unrelated words are not."""
    assert cosine("лампочка", "лампочками") > 0.4
    assert cosine("Espressomaschine", "Kaffeemaschine") > 0.2
    assert abs(cosine("лампочка", "телевизор")) < 0.2


def test_case_accents_and_width_do_not_matter() -> None:
    """NFKC, case folding and no accents: what shoppers type is what the shop wrote."""
    assert cosine("CAFÉ crème", "cafe Creme") > 0.999
    assert cosine("ＡＢＣ１２３", "abc123") > 0.999
    assert split_words("Straße Ёлка") == ["strasse", "елка"]


def test_marks_of_other_scripts_stay() -> None:
    """Vowel signs are letters in Hindi and Arabic points are kept: only European accents are dropped."""
    assert split_words("किताब") != split_words("कताब")


def test_scripts_without_blanks_match_by_parts() -> None:
    """A Japanese word inside a longer run is found."""
    assert cosine("ランニングシューズ", "メンズランニングシューズ通気性") > 0.3


def test_function_words_weigh_little() -> None:
    """Sharing only `und`, `mit` and `der` does not make two products alike."""
    assert cosine("Lampe mit Schirm und der Fuss", "Tasse mit Henkel und der Deckel") < 0.25


def test_a_long_word_counts_as_one_word() -> None:
    """A word's squared weights do not grow with its length, so compounds do not drown the rest."""
    short = sum(v * v for v in weigh_features("kaffee").values())
    long = sum(v * v for v in weigh_features("kaffeevollautomat").values())
    assert abs(short - long) < 1e-6


def test_a_text_without_words_is_zeros() -> None:
    """Nothing to encode is a row of zeros, not a division by zero."""
    assert not encoder.encode(["", "!!!", " \n"]).any()


@given(st.lists(st.text(max_size=60), max_size=5))
def test_every_text_is_a_unit_row_or_zeros(texts: list[str]) -> None:
    """Any Unicode gives rows of length one or zero, the same alone as with others."""
    rows = encoder.encode(texts)
    lengths = np.linalg.norm(rows, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_array_equal(row, encoder.encode([text])[0])

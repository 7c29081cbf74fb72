"""Which texts a pack covers, and the encoder that falls back."""

from collections.abc import Sequence

import numpy as np
import pytest

from workers.encoders.coverage import CoveringTextEncoder, foreignness, fragmentation, is_covered
from workers.encoders.minilm import build_minilm
from workers.encoders.ngrams import NgramEncoder
from workers.encoders.text import OnnxTextEncoder

ENGLISH = "Men's running shoes with a rubber sole and breathable fabric, navy blue. Light and fast."
FOREIGN = {
    "de": "Vollautomatische Espressomaschine mit Keramikmahlwerk und intuitivem Touchdisplay für zu Hause",
    "fr": "Machine espresso automatique grain-à-tasse avec broyeur céramique et écran tactile intuitif",
    "ru": "Умная лампочка для дома с управлением голосом и настройкой яркости",
    "es": "Zapatillas de correr para hombre con suela de goma y tejido transpirable",
    "pl": "Męskie buty do biegania z gumową podeszwą i oddychającym materiałem",
    "tr": "Kauçuk tabanlı ve nefes alabilen kumaştan erkek koşu ayakkabısı",
    "id": "Sepatu lari pria dengan sol karet dan bahan yang ringan untuk olahraga",
    "ja": "通気性のある生地とゴム底のメンズランニングシューズ",
    "ar": "حذاء جري رجالي بنعل مطاطي ونسيج يسمح بمرور الهواء",
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> OnnxTextEncoder:
    """The built English pack."""
    return OnnxTextEncoder(build_minilm(tmp_path_factory.mktemp("packs") / "minilm"))


@pytest.fixture(scope="module")
def encoder(pack: OnnxTextEncoder) -> CoveringTextEncoder:
    """The pack with its fall-back."""
    return CoveringTextEncoder(pack)


def test_english_is_covered(pack: OnnxTextEncoder) -> None:
    """English product texts, brand names and codes stay with the pack."""
    for text in (ENGLISH, "Samsung Galaxy S21 Ultra 5G SM-G998B/DS", "KALLAX shelf", "", "12345", "Mug"):
        assert is_covered(pack.tokenizer, text), text


@pytest.mark.parametrize("language", FOREIGN)
def test_other_languages_are_not(pack: OnnxTextEncoder, language: str) -> None:
    """A sentence in another language is told without being told which."""
    assert not is_covered(pack.tokenizer, FOREIGN[language])


def test_the_items_own_language_decides(pack: OnnxTextEncoder) -> None:
    """`language` wins over what the text looks like, regions aside."""
    assert not is_covered(pack.tokenizer, ENGLISH, language="de")
    assert is_covered(pack.tokenizer, FOREIGN["de"], language="en-GB")


def test_a_pack_of_many_languages_covers_what_it_can_read(pack: OnnxTextEncoder) -> None:
    """With `*` only unknown words count against it."""
    assert is_covered(pack.tokenizer, FOREIGN["de"], languages=["*"], language="de")
    assert not is_covered(pack.tokenizer, "ꦲꦏ꧀ꦱꦫ ꦗꦮ ꦧꦱ", languages=["*"])


def test_fragmentation_runs_from_whole_words_to_letters(pack: OnnxTextEncoder) -> None:
    """One piece for a long English word is low, a spelt word is 1, no word is 0."""
    assert fragmentation(pack.tokenizer, "international") == pytest.approx(1 / 13)
    assert fragmentation(pack.tokenizer, "ꦲꦏꦱ") == 1
    assert fragmentation(pack.tokenizer, "42 !") == 0
    assert foreignness(pack.tokenizer, "42 !") == 0


def test_documents_go_whole_to_one_kind(pack: OnnxTextEncoder, encoder: CoveringTextEncoder) -> None:
    """Covered rows are the pack's own, the others the n-grams', in the order of the texts."""
    texts = [ENGLISH, FOREIGN["ru"], "red mug", FOREIGN["de"]]
    rows = encoder.encode(texts)
    np.testing.assert_allclose(rows[[0, 2]], pack.encode([texts[0], texts[2]]), atol=1e-5)
    np.testing.assert_allclose(rows[[1, 3]], NgramEncoder().encode([texts[1], texts[3]]), atol=1e-6)
    assert encoder.space.name == f"{pack.space.name}+char-ngrams@1"


def test_a_known_language_is_followed(pack: OnnxTextEncoder, encoder: CoveringTextEncoder) -> None:
    """`languages` of the items decide row by row."""
    rows = encoder.encode(["mug", "mug"], languages=["en", "de"])
    np.testing.assert_allclose(rows[0], pack.encode(["mug"])[0], atol=1e-5)
    np.testing.assert_allclose(rows[1], NgramEncoder().encode(["mug"])[0], atol=1e-6)


def first(encoder: CoveringTextEncoder, query: str, texts: Sequence[str]) -> int:
    return int((encoder.encode(texts) @ encoder.encode([query], role="query")[0]).argmax())


def test_a_query_finds_either_kind(encoder: CoveringTextEncoder) -> None:
    """In a shop of several languages a query finds its item whichever way that was encoded."""
    texts = [ENGLISH, *FOREIGN.values(), "Red ceramic mug for coffee and tea, with a large handle"]
    assert first(encoder, "running shoes", texts) == 0
    assert first(encoder, "coffee cup", texts) == len(texts) - 1
    assert first(encoder, "Espressomaschine Keramikmahlwerk", texts) == 1
    assert first(encoder, "умные лампочки", texts) == 3
    assert first(encoder, "sepatu lari", texts) == 7


def test_queries_are_unit_rows(encoder: CoveringTextEncoder) -> None:
    """A query's row has length one; no query gives no row."""
    rows = encoder.encode(["mug", "лампа", ""], role="query")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.encode([], role="query").shape == (0, 384)
    assert encoder.encode([]).shape == (0, 384)

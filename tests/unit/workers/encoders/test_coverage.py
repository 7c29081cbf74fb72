"""Which texts a pack covers."""

import pytest

from workers.encoders.coverage import foreignness, fragmentation, is_covered
from workers.encoders.minilm import build_minilm
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

"""From a setting to an encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.encoders.image import OnnxImageEncoder
from workers.encoders.load import load_image_encoder, load_text_encoder
from workers.encoders.pack import BadPack, Pack
from workers.encoders.sources import fetch_pack

MakePack = Callable[[str], Pack]


def test_the_default_text_encoder_knows_english_only(tmp_path: Path) -> None:
    """The built pack encodes English, the n-grams the rest."""
    fetch_pack("all-minilm-l6-v2", tmp_path)
    encoder = load_text_encoder("all-minilm-l6-v2", tmp_path)
    assert encoder.space.name == "all-minilm-l6-v2@53aa51-b8-1+char-ngrams@1"
    assert encoder.covers("Red running shoes with a rubber sole")
    assert not encoder.covers("Умная лампочка для дома с управлением голосом")


def test_an_own_pack_is_taken_to_cover_its_shop(make_pack: MakePack, tmp_path: Path) -> None:
    """A folder's languages are not known, so only words that its tokenizer lacks speak against it."""
    encoder = load_text_encoder(str(make_pack("minilm").folder), tmp_path)
    assert encoder.covers("the red shoe")
    assert not encoder.covers("machine automatique avec broyeur")


def test_a_clip_pack_serves_both_kinds(make_pack: MakePack, tmp_path: Path) -> None:
    """One folder as text and image setting gives two encoders of one width."""
    folder = str(make_pack("clip").folder)
    text, image = load_text_encoder(folder, tmp_path), load_image_encoder(folder, tmp_path)
    assert isinstance(image, OnnxImageEncoder)
    assert text.space.dim == image.space.dim


def test_a_damaged_pack_is_never_opened(make_pack: MakePack, tmp_path: Path) -> None:
    """Verification comes before the session: a damaged tokenizer is named as damaged, not as unreadable."""
    pack = make_pack("minilm")
    (pack.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BadPack, match=r"tokenizer\.json .* sha256"):
        load_text_encoder(str(pack.folder), tmp_path)


def test_the_default_image_encoder_is_part_of_kindred(tmp_path: Path) -> None:
    """kindred-image-v1 needs no fetch and gives rows of 256."""
    encoder = load_image_encoder("kindred-image-v1", tmp_path)
    rows = encoder.encode([np.full((40, 30, 3), 200, np.uint8)])
    assert rows.shape == (1, 256)

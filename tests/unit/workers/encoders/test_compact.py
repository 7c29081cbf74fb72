"""The offline image encoder that is part of the repository."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from workers.encoders.compact import PACK, CompactImageEncoder, square
from workers.encoders.pack import verify_pack


@pytest.fixture(scope="module")
def encoder() -> CompactImageEncoder:
    return CompactImageEncoder()


def shirt(colour: tuple[int, int, int], *, width: int = 300, height: int = 400) -> NDArray[np.uint8]:
    """A plain garment on white."""
    picture = Image.new("RGB", (width, height), "white")
    outline = [(0.4, 0.15), (0.1, 0.3), (0.18, 0.42), (0.3, 0.35), (0.3, 0.85)]
    outline += [(1 - x, y) for x, y in reversed(outline)]
    ImageDraw.Draw(picture).polygon([(x * width, y * height) for x, y in outline], fill=colour)
    return np.asarray(picture)


def ball(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A disc on white."""
    picture = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(picture).ellipse((30, 30, 270, 270), fill=colour)
    return np.asarray(picture)


def noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_pack_is_small_and_as_its_manifest_says() -> None:
    """Every file has the sha256 of the manifest, the revision is the model's, and the model is at most 1 MB."""
    pack = verify_pack(PACK)
    assert pack.manifest.revision == pack.manifest.files["model.onnx"]
    assert {"model.onnx", "config.json", "preprocessor_config.json"} <= set(pack.manifest.files)
    assert (PACK / "model.onnx").stat().st_size <= 1_000_000
    assert (PACK / "CARD.md").is_file()


def test_space_is_the_packs(encoder: CompactImageEncoder) -> None:
    """The encoder names the space that the pack names."""
    assert encoder.space == verify_pack(PACK).space("image")


def test_rows_have_the_promised_shape_and_length(encoder: CompactImageEncoder) -> None:
    """One float32 row of length 1 per photo, more photos than fit one run included."""
    rows = encoder.encode([noise(i, 20 + i, 30) for i in range(35)])
    assert rows.shape == (35, 256)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_no_photos_give_no_rows(encoder: CompactImageEncoder) -> None:
    """An empty call is an empty array of the right width."""
    assert encoder.encode([]).shape == (0, 256)


def test_same_photo_gives_the_same_row(encoder: CompactImageEncoder) -> None:
    """Encoding is deterministic, also by another encoder over the same pack."""
    photos = [shirt((180, 30, 40)), ball((20, 90, 200))]
    np.testing.assert_array_equal(encoder.encode(photos), CompactImageEncoder().encode(photos))


def test_row_does_not_depend_on_the_batch(encoder: CompactImageEncoder) -> None:
    """A photo alone has the row that it has among others, wherever it stands."""
    photos = [noise(1, 64, 48), shirt((180, 30, 40)), ball((20, 90, 200))]
    alone = np.vstack([encoder.encode([photo]) for photo in photos])
    np.testing.assert_allclose(encoder.encode(photos), alone, atol=1e-4)
    np.testing.assert_allclose(encoder.encode(photos[::-1])[::-1], alone, atol=1e-4)


def test_given_photos_are_left_alone(encoder: CompactImageEncoder) -> None:
    """A read-only photo can be encoded, and is not written to."""
    photo = shirt((180, 30, 40))
    before = photo.copy()
    photo.flags.writeable = False
    encoder.encode([photo])
    np.testing.assert_array_equal(photo, before)


def test_scaled_is_nearer_than_recoloured(encoder: CompactImageEncoder) -> None:
    """The same picture at another size stays the same thing; in another colour it is less so."""
    red, small, blue = encoder.encode(
        [shirt((180, 30, 40)), shirt((180, 30, 40), width=150, height=200), shirt((30, 60, 190))]
    )
    assert red @ small > 0.95
    assert red @ small > red @ blue + 0.1


def test_recoloured_is_nearer_than_another_thing_in_another_colour(encoder: CompactImageEncoder) -> None:
    """Shape counts: a blue shirt is nearer to a red shirt than a blue ball is."""
    red, blue, other = encoder.encode([shirt((180, 30, 40)), shirt((30, 60, 190)), ball((30, 60, 190))])
    assert red @ blue > red @ other


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_photo_has_a_row(encoder: CompactImageEncoder, level: int) -> None:
    """A photo of one colour, white ground included, still gives a finite row of length 1."""
    row = encoder.encode([np.full((50, 50, 3), level, np.uint8)])[0]
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.sampled_from([8, 96]))
def test_square_holds_the_whole_photo(height: int, width: int, side: int) -> None:
    """Of any size and aspect, the photo fills the square along its longer side, and the rest is white."""
    result = square(np.zeros((height, width, 3), np.uint8), side)
    assert result.shape == (side, side, 3)
    dark = (result < 128).all(2)
    assert dark.any(1).all() if height >= width else dark.any(0).all()
    assert set(np.unique(result)) <= {0, 255}


@settings(max_examples=20)
@given(height=st.integers(1, 40), width=st.integers(1, 3000))
def test_any_size_is_encoded(encoder: CompactImageEncoder, height: int, width: int) -> None:
    """One pixel or a long strip: a row of length 1."""
    row = encoder.encode([noise(0, height, width)])[0]
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)

"""The image encoder, over tiny packs in the CLIP and SigLIP layouts."""

from collections.abc import Callable

import numpy as np
import pytest

from workers.encoders.image import OnnxImageEncoder, Preparation, prepare
from workers.encoders.pack import BadPack, Pack, seal_folder

MakePack = Callable[[str], Pack]


def photo(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("layout", ["clip", "whole-clip", "siglip"])
def test_rows_keep_their_order_and_length_one(make_pack: MakePack, layout: str) -> None:
    """Photos of any size become unit rows in their order, the same alone as in a batch."""
    encoder = OnnxImageEncoder(make_pack(layout), batch=2)
    photos = [photo(1, 8, 8), photo(2, 5, 31), photo(3, 1, 1)]
    rows = encoder.encode(photos)
    assert rows.shape == (3, 6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows, np.vstack([encoder.encode([p]) for p in photos]), atol=1e-6)


def test_no_photos_give_no_rows(make_pack: MakePack) -> None:
    """An empty batch is an empty array of the right width."""
    assert OnnxImageEncoder(make_pack("siglip")).encode([]).shape == (0, 6)


def test_text_and_photos_share_a_space_of_two_kinds(make_pack: MakePack) -> None:
    """A pack with both towers names its spaces alike, apart from the kind."""
    pack = make_pack("clip")
    text, image = pack.space("text"), pack.space("image")
    assert (text.name, text.dim) == (image.name, image.dim)
    assert (text.kind, image.kind) == ("text", "image")


def test_clip_crops_the_centre_after_the_shortest_edge() -> None:
    """A wide photo keeps its middle: the left and right thirds do not reach the model."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    how = Preparation(size={"shortest_edge": 10}, crop_size={"height": 10, "width": 10}, do_center_crop=True)
    np.testing.assert_allclose(prepare(wide, how), 1, atol=1e-6)


def test_siglip_squeezes_the_whole_photo() -> None:
    """A rectangle as size means no crop: every part is seen."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 20:] = 255
    pixels = prepare(wide, Preparation(size={"height": 6, "width": 6}, resample=2))
    assert pixels.shape == (3, 6, 6)
    assert pixels[0, 0, 0] == pytest.approx(-1)
    assert pixels[0, 0, 5] == pytest.approx(1)


def test_mean_and_deviation_are_per_channel() -> None:
    """Pixels become (value / 255 - mean) / std of their channel, channels first."""
    grey = np.full((2, 2, 3), 51, np.uint8)
    how = Preparation(do_resize=False, image_mean=(0.1, 0.2, 0.3), image_std=(0.1, 0.2, 0.5))
    np.testing.assert_allclose(prepare(grey, how)[:, 0, 0], [1, 0, -0.2], atol=1e-6)


def test_an_old_style_size_is_the_shortest_edge() -> None:
    """Older configurations give one number."""
    assert prepare(photo(1, 8, 16), Preparation(size=4)).shape == (3, 4, 8)


def test_an_unusable_configuration_is_named(make_pack: MakePack) -> None:
    """A preprocessor_config.json of the wrong types is a BadPack, not a crash."""
    pack = make_pack("clip")
    (pack.folder / "preprocessor_config.json").write_text('{"size": "large"}')
    with pytest.raises(BadPack, match=r"preprocessor_config\.json"):
        OnnxImageEncoder(pack)


def test_a_pack_without_pixels_is_refused(make_pack: MakePack) -> None:
    """A text model named as the image model is refused when it is opened."""
    pack = make_pack("clip")
    sealed = seal_folder(pack.folder, name="x", kind="both", dim=6, licence="MIT")
    (pack.folder / "model.onnx").write_bytes((pack.folder / "text_model.onnx").read_bytes())
    sealed = seal_folder(pack.folder, name="x", kind="both", dim=6, licence="MIT")
    with pytest.raises(BadPack, match="pixel_values"):
        OnnxImageEncoder(sealed)

"""The parts of the image encoder, where torch is installed (the `train` extra)."""

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model() -> Any:
    """An untrained network with a palette fitted to random pictures."""
    from workers.training.image_encoder.fit import fit
    from workers.training.image_encoder.model import ColourHistogram, ImageEncoder, ShapeNet

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (160, 3, 96, 96), generator=generator, dtype=torch.uint8)
    built = ImageEncoder(ShapeNet((8, 16, 24, 80), (1, 1, 1)), ColourHistogram(160), 4, 0.5, 0.8).eval()
    kinds = torch.arange(160) % 4
    fit(built, (pictures[:150], kinds[:150]), (pictures[150:], kinds[150:]), generator)
    return built


def test_lab_of_known_colours(model: Any) -> None:
    """sRGB red, white and black have the CIE Lab coordinates of the tables."""
    colours = torch.tensor([[1.0, -1, -1], [1, 1, 1], [-1, -1, -1]])[..., None, None].expand(-1, -1, 2, 2)
    lab = model.colour.lab(colours).reshape(3, 3)
    expected = [[53.2, 80.1, 67.2], [100, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(lab, torch.tensor(expected), atol=0.2, rtol=0)


def test_colour_part_ignores_where_things_are(model: Any) -> None:
    """Moving blocks of a picture about leaves its colour row as it was."""
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    moved = picture.flip(2).roll(48, 3)
    torch.testing.assert_close(model.colour(picture), model.colour(moved), atol=1e-4, rtol=0)


def test_mirrored_picture_has_the_same_row(model: Any) -> None:
    """Left and right do not matter."""
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(model(picture), model(picture.flip(3)), atol=1e-4, rtol=0)


def test_compressed_export_answers_like_the_model(model: Any) -> None:
    """The ONNX file with 8-bit weights gives nearly the torch model's rows, for any number of pictures."""
    import onnxruntime

    from workers.training.image_encoder.export import compress, to_onnx

    session = onnxruntime.InferenceSession(compress(to_onnx(model)), providers=["CPUExecutionProvider"])
    pictures = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    rows = session.run(["image_embeds"], {"pixel_values": pictures.numpy()})[0]
    with torch.no_grad():
        cosines = (model(pictures).numpy() * rows).sum(1)
    assert rows.shape == (3, 256)
    assert np.all(cosines > 0.99)

"""The text encoder, over tiny packs in the layouts that optimum exports."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.encoders.pack import BadPack, Pack, TextOptions, seal_folder
from workers.encoders.text import OnnxTextEncoder

MakePack = Callable[[str], Pack]
HIDDEN, DIM = 8, 6


def table(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def test_mean_pooling_counts_the_real_tokens_only(make_pack: MakePack) -> None:
    """A MiniLM layout is the mean over the text's own tokens, whatever the batch pads it to."""
    encoder = OnnxTextEncoder(make_pack("minilm"))
    short, _ = encoder.encode(["red shoe", "the red shoe the blue shirt"])
    words = table(1, 12, HIDDEN)
    np.testing.assert_allclose(short, unit(words[[2, 7, 9, 3]].mean(0)), atol=1e-6)


@pytest.mark.parametrize("layout", ["minilm", "e5", "clip", "whole-clip", "siglip"])
def test_rows_keep_their_order_and_length_one(make_pack: MakePack, layout: str) -> None:
    """Every layout gives unit rows in the order of the texts, the same alone as in a batch."""
    encoder = OnnxTextEncoder(make_pack(layout), tokens=12)
    texts = ["red", "the red shoe the blue", "blue shirt", "shoe"]
    rows = encoder.encode(texts)
    assert rows.shape == (4, encoder.space.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(rows, alone, atol=1e-6)


def test_no_texts_give_no_rows(make_pack: MakePack) -> None:
    """An empty batch is an empty array of the right width."""
    assert OnnxTextEncoder(make_pack("minilm")).encode([]).shape == (0, HIDDEN)


def test_prefixes_follow_the_role(make_pack: MakePack) -> None:
    """E5 reads `query: ` before a query and `passage: ` before a document."""
    encoder = OnnxTextEncoder(make_pack("e5"))
    words = table(1, 12, HIDDEN)
    query, document = encoder.encode(["red"], role="query"), encoder.encode(["red"])
    np.testing.assert_allclose(query[0], unit(words[[2, 4, 6, 7, 3]].mean(0)), atol=1e-6)
    np.testing.assert_allclose(document[0], unit(words[[2, 5, 6, 7, 3]].mean(0)), atol=1e-6)


def test_long_texts_are_cut_at_the_pack_limit(make_pack: MakePack) -> None:
    """sentence_bert_config.json's limit of 8 holds, and a megabyte of text is not tokenised in full."""
    encoder = OnnxTextEncoder(make_pack("minilm"))
    assert encoder.max_tokens == 8
    assert [len(ids) for ids in encoder.tokenize(["red " * 300_000, "red"])] == [8, 3]
    np.testing.assert_allclose(encoder.encode(["red " * 9]), encoder.encode(["red " * 300_000]), atol=1e-6)


def test_cls_pooling_is_taken_from_the_pack(tmp_path: Path, make_pack: MakePack) -> None:
    """`pooling_mode_cls_token` takes the first position."""
    pack = make_pack("minilm")
    config = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (pack.folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    row = OnnxTextEncoder(pack).encode(["red shoe"])[0]
    np.testing.assert_allclose(row, unit(table(1, 12, HIDDEN)[2]), atol=1e-6)


def test_the_manifest_overrides_the_pooling_file(make_pack: MakePack) -> None:
    """`pooling = "cls"` in the manifest wins over 1_Pooling."""
    pack = make_pack("minilm")
    sealed = seal_folder(pack.folder, name="x", kind="text", dim=HIDDEN, licence="MIT", text=TextOptions(pooling="cls"))
    row = OnnxTextEncoder(sealed).encode(["red shoe"])[0]
    np.testing.assert_allclose(row, unit(table(1, 12, HIDDEN)[2]), atol=1e-6)


def test_unknown_pooling_is_refused(make_pack: MakePack) -> None:
    """A pooling mode that we have not is an error, never a silent mean."""
    pack = make_pack("minilm")
    (pack.folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BadPack, match="pooling_mode_max_tokens"):
        OnnxTextEncoder(pack)


def test_a_dense_layer_follows_the_pooling(make_pack: MakePack) -> None:
    """sentence-transformers' 2_Dense (multilingual CLIP) changes the width."""
    pack = make_pack("minilm")
    dense = pack.folder / "2_Dense"
    dense.mkdir()
    weight = table(9, DIM, HIDDEN)
    entry = {"dtype": "F32", "shape": [DIM, HIDDEN], "data_offsets": [0, weight.nbytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "linear.weight": entry}).encode()
    (dense / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weight.tobytes())
    activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
    (dense / "config.json").write_text(json.dumps(activation))
    sealed = seal_folder(pack.folder, name="x", kind="text", dim=DIM, licence="MIT")
    row = OnnxTextEncoder(sealed).encode(["red"])[0]
    mean = table(1, 12, HIDDEN)[[2, 7, 3]].mean(0)
    np.testing.assert_allclose(row, unit(np.tanh(weight @ mean)), atol=1e-6)


def test_siglip_texts_are_padded_to_the_full_length(make_pack: MakePack) -> None:
    """Without an attention mask the padding is read, so it is as long as in training."""
    encoder = OnnxTextEncoder(make_pack("siglip"))
    expected = table(5, 12, DIM)[[2, 7, 3] + [0] * 7].mean(0)
    np.testing.assert_allclose(encoder.encode(["red"])[0], unit(expected), atol=1e-6)


def test_a_wrong_width_is_named(make_pack: MakePack) -> None:
    """A manifest whose dim is not the model's is refused at the first text."""
    pack = make_pack("minilm")
    sealed = seal_folder(pack.folder, name="x", kind="text", dim=5, licence="MIT")
    with pytest.raises(BadPack, match="not 5"):
        OnnxTextEncoder(sealed).encode(["red"])


def test_a_file_that_is_no_model_is_refused(make_pack: MakePack) -> None:
    """ONNX Runtime's failure to load becomes a BadPack that names the file."""
    pack = make_pack("minilm")
    (pack.folder / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(BadPack, match=r"model\.onnx"):
        OnnxTextEncoder(pack)


def test_an_image_pack_has_no_text_space(make_pack: MakePack) -> None:
    """Asking a pack for a tower that it lacks is a clear error."""
    pack = make_pack("minilm")
    with pytest.raises(BadPack, match="encodes text, not image"):
        pack.space("image")

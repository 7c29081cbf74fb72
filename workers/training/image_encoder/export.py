"""Writes the pack: the ONNX file with 8-bit weights, its configuration, and the manifest."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from workers.training.image_encoder.model import COLOUR_DIM, FORM_DIM, INPUT_SIDE, KIND_DIM, ImageEncoder

MAX_BYTES = 1_000_000
OPSET = 17
DIM = KIND_DIM + FORM_DIM + COLOUR_DIM

_BIG = 1024
"""Weights with more numbers than this are stored in 8 or 16 bits."""


def write_pack(model: ImageEncoder, folder: Path, name: str) -> str:
    """Write model.onnx and its configuration files into `folder`; returns the revision (of model.onnx).

    Raises ValueError where the file would be larger than MAX_BYTES.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = compress(to_onnx(model))
    if len(data) > MAX_BYTES:
        raise ValueError(f"model.onnx would have {len(data)} bytes, more than {MAX_BYTES}")
    (folder / "model.onnx").write_bytes(data)
    config = {
        "model_type": "kindred-compact-image",
        "projection_dim": DIM,
        "kind_dim": KIND_DIM,
        "form_dim": FORM_DIM,
        "colour_dim": COLOUR_DIM,
        "form_weight": model.form_weight,
        "colour_weight": model.colour_weight,
    }
    preprocessor = {
        "image_processor_type": "KindredSquareImageProcessor",
        "do_resize": True,
        "size": {"longest_edge": INPUT_SIDE},
        "resample": 3,
        "do_pad": True,
        "pad_size": {"height": INPUT_SIDE, "width": INPUT_SIDE},
        "pad_color": [255, 255, 255],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for file, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (folder / file).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    return write_manifest(folder, name)


def write_manifest(folder: Path, name: str) -> str:
    """Write manifest.json over the files that lie in `folder` now, the card aside; returns the revision."""
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name not in {"manifest.json", "CARD.md"}
    }
    revision = files["model.onnx"]
    manifest = {
        "name": name,
        "kind": "image",
        "dim": DIM,
        "revision": revision,
        "licence": "MIT",
        "files": files,
        "image": {"runner": "compact"},
    }
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return revision


def to_onnx(model: ImageEncoder) -> onnx.ModelProto:
    """The model as ONNX in float32: `pixel_values` float[n, 3, side, side] -> `image_embeds` float[n, dim]."""
    buffer: Any = io.BytesIO()  # torch's annotation knows only paths
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the TorchScript exporter is deprecated, and the only one without more packages
        torch.onnx.export(
            model.eval(),
            (torch.zeros(2, 3, INPUT_SIDE, INPUT_SIDE),),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=["image_embeds"],
            dynamic_axes={"pixel_values": {0: "n"}, "image_embeds": {0: "n"}},
        )
    return onnx.load_from_string(buffer.getvalue())


def compress(model: onnx.ModelProto) -> bytes:
    """The same model with its convolutions in 8 bits (one scale per output channel) and other large weights in 16.

    They are widened by Cast and Mul nodes over constants, which ONNX Runtime folds when it opens the file.
    """
    graph = model.graph
    convolutions = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    nodes: list[onnx.NodeProto] = []
    kept: list[onnx.TensorProto] = []
    shared: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size <= _BIG:
            kept.append(tensor)
            continue
        known = shared.setdefault(array.tobytes(), tensor.name)
        if known != tensor.name:
            renamed[tensor.name] = known
            continue
        small, wide = f"{tensor.name}.small", f"{tensor.name}.wide"
        if tensor.name in convolutions:
            scale = np.abs(array).max(axis=(1, 2, 3), keepdims=True) / 127
            scale = np.maximum(scale, np.float32(1e-12)).astype(np.float32)
            kept.append(numpy_helper.from_array(np.rint(array / scale).astype(np.int8), small))
            kept.append(numpy_helper.from_array(scale, f"{tensor.name}.scale"))
            nodes.append(helper.make_node("Cast", [small], [wide], to=onnx.TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [wide, f"{tensor.name}.scale"], [tensor.name]))
        else:
            kept.append(numpy_helper.from_array(array.astype(np.float16), small))
            nodes.append(helper.make_node("Cast", [small], [tensor.name], to=onnx.TensorProto.FLOAT))
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.producer_name, model.producer_version, model.doc_string = "kindred", "", ""
    for node in graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())

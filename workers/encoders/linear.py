"""Linear layers and embedding tables of an ONNX graph, in several precisions."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

Precision = Literal["fp32", "fp16", "int8", "int8_mixed", "weights8", "blocks8"]
"""What the weights are, and what is computed with.

- `fp32`: as trained.
- `fp16`: weights stored in half, cast when the session loads: half the file, the same memory and speed.
- `int8`: weights per output channel, activations per tensor at run time (`MatMulInteger`), the fastest. A
  text's vector then depends on what else is in its batch, because the scale is the batch's.
- `int8_mixed`: `int8`, but `blocks8` for the layers whose inputs have outliers.
- `weights8`: weights per output channel, computed in fp32.
- `blocks8`: weights in blocks of 64 along the input, activations in blocks per row at run time
  (`MatMulNBits`, 8 bits): a text's vector does not depend on its neighbours.

All but the first two keep embedding tables in int8, one scale per row.
"""

_MICROSOFT = "com.microsoft"
_OPSET = 20
_BLOCK = 64


class Graph:
    """Collects the nodes and constants of one ONNX graph; `precision` decides how weights are written."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: NDArray[Any] | np.float32) -> str:
        """Store an array; its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; the output's name."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs; their names."""
        name = f"{kind}_{len(self._nodes)}"
        names = [f"{name}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=name, domain=domain, **attributes))
        return names

    def model(self, *, inputs: list[Any], output: str, shape: list[Any], result: str) -> ModelProto:
        """The finished model: float32 `output` of `shape`, renamed from `result`."""
        self._nodes.append(helper.make_node("Identity", [result], [output], name="result"))
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self._nodes, "kindred", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="kindred")

    def linear(self, x: str, weight: NDArray[np.float32], *, outliers: bool = False) -> str:
        """`x @ weight` for `weight` of `[inputs, outputs]`; `outliers`: `x` has a few huge values."""
        mixed = self.precision == "int8_mixed" and outliers
        return _WRITERS["blocks8" if mixed else self.precision](self, x, weight)

    def gather(self, table: NDArray[np.float32], ids: str) -> str:
        """Rows of `table` (`[rows, columns]`) at `ids`."""
        if self.precision == "fp32":
            return self.op("Gather", self.constant(table), ids)
        if self.precision == "fp16":
            rows = self.op("Gather", self.constant(table.astype(np.float16)), ids)
            return self.op("Cast", rows, to=TensorProto.FLOAT)
        quantised, scale = _per_channel(table, axis=1)
        rows = self.op("Cast", self.op("Gather", self.constant(quantised), ids), to=TensorProto.FLOAT)
        return self.op("Mul", rows, self.op("Gather", self.constant(scale), ids))


def _per_channel(weight: NDArray[np.float32], *, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale per slice along `axis`; the scales keep that axis."""
    largest = np.abs(weight).max(axis=axis, keepdims=True)
    scale = np.where(largest == 0, 1, largest / 127).astype(np.float32)
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale


def _fp32(graph: Graph, x: str, weight: NDArray[np.float32]) -> str:
    return graph.op("MatMul", x, graph.constant(weight))


def _fp16(graph: Graph, x: str, weight: NDArray[np.float32]) -> str:
    half = graph.constant(weight.astype(np.float16))
    return graph.op("MatMul", x, graph.op("Cast", half, to=TensorProto.FLOAT))


def _int8(graph: Graph, x: str, weight: NDArray[np.float32]) -> str:
    quantised, scale = _per_channel(weight, axis=0)
    row, row_scale, zero = graph.ops("DynamicQuantizeLinear", x, outputs=3)
    product = graph.op("MatMulInteger", row, graph.constant(quantised), zero)
    product = graph.op("Cast", product, to=TensorProto.FLOAT)
    return graph.op("Mul", product, graph.op("Mul", row_scale, graph.constant(scale[0])))


def _weights8(graph: Graph, x: str, weight: NDArray[np.float32]) -> str:
    quantised, scale = _per_channel(weight, axis=0)
    restored = graph.op("DequantizeLinear", graph.constant(quantised), graph.constant(scale[0]), axis=1)
    return graph.op("MatMul", x, restored)


def _blocks8(graph: Graph, x: str, weight: NDArray[np.float32]) -> str:
    inputs, outputs = weight.shape
    block = _BLOCK if inputs % _BLOCK == 0 else 16
    blocks = weight.T.reshape(outputs, inputs // block, block)
    quantised, scale = _per_channel(blocks, axis=2)
    # The operator counts from 0 with an implied zero point of 128.
    packed = (quantised.astype(np.int16) + 128).astype(np.uint8)
    return graph.op(
        "MatMulNBits",
        x,
        graph.constant(packed),
        graph.constant(scale[:, :, 0]),
        domain=_MICROSOFT,
        K=inputs,
        N=outputs,
        bits=8,
        block_size=block,
        accuracy_level=4,
    )


_WRITERS: dict[str, Callable[[Graph, str, NDArray[np.float32]], str]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "int8_mixed": _int8,
    "weights8": _weights8,
    "blocks8": _blocks8,
}

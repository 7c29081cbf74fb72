"""Reads safetensors files without torch: an 8-byte length, a JSON header, raw little-endian arrays."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import Invalid

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1"}


class BadWeights(Invalid):
    """A weights file does not hold what its header says."""

    code = "bad_weights"
    title = "The weights file is damaged"


def read_safetensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Every array of the file by name, as read-only views of one memory map.

    Raises `BadWeights` when the file is cut or names a type that numpy has not (bfloat16).
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        size = int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8 : 8 + size].tobytes())
        base = 8 + size
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            raw = data[base + start : base + end]
            arrays[name] = raw.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"{path.name} cannot be read ({error}). Fetch the model pack again.") from error
    return arrays

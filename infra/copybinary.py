"""PostgreSQL's binary COPY format to and from numpy arrays, without a Python object per value.

Rows whose columns are never null and of fixed width are records of one size, so a whole file is one array; lists of
one length alike. Reading 2 million events takes a fifth of a second this way, and six as rows.
Source: PostgreSQL documentation, COPY, "Binary Format"; array_send and pgvector's halfvec_send for the values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_OID: Final[Mapping[str, int]] = {"int2": 21, "int4": 23, "int8": 20, "float4": 700}
_CODE: Final[Mapping[str, str]] = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float4": ">f4", "float8": ">f8"}

Column = tuple[str, NDArray[Any]]
"""A type and its values: `int2`, `int4`, `int8`, `float4`, `float8` [n]; `int4[]` and the like [n, k]; `halfvec`
[n, dim]. Of lists that are shorter than k, see `sizes` of `pack_rows`."""


def read_records(path: Path, columns: Mapping[str, str]) -> NDArray[Any]:
    """A file that COPY wrote, as a structured array over the file itself; big-endian values.

    `columns`: name -> type, in the order of the query; `halfvec(640)` becomes a float16[640] column. No value may be
    null. Raises ValueError where the file is not of these columns.
    """
    layout, lengths = _layout(columns)
    count = count_records(path, columns)
    if not count:
        return np.zeros(0, layout)
    records = np.memmap(path, layout, mode="r", offset=len(HEADER), shape=(count,))
    for name, value in (("_fields", len(columns)), *lengths.items()):
        if (records[name] != value).any():
            raise ValueError(f"{path.name} has a null or a value of another type in {name}")
    return records


def count_records(path: Path, columns: Mapping[str, str]) -> int:
    """How many rows `read_records` would give; reads nothing. Raises ValueError where the size does not fit."""
    size = _layout(columns)[0].itemsize
    count, rest = divmod(path.stat().st_size - len(HEADER) - len(TRAILER), size)
    if rest:
        raise ValueError(f"{path.name} does not hold rows of {size} bytes")
    return count


def _layout(columns: Mapping[str, str]) -> tuple[np.dtype[Any], dict[str, int]]:
    """A row as a structured type, and what the length of each value must say."""
    fields: list[Any] = [("_fields", ">i2")]
    lengths = {}
    for name, kind in columns.items():
        fields.append((f"_{name}", ">i4"))
        if kind.startswith("halfvec("):
            dim = int(kind[8:-1])
            fields += [(f"_dim_{name}", ">i2"), (f"_unused_{name}", ">i2"), (name, ">f2", (dim,))]
            lengths[f"_{name}"] = 4 + 2 * dim
        else:
            fields.append((name, _CODE[kind]))
            lengths[f"_{name}"] = np.dtype(_CODE[kind]).itemsize
    return np.dtype(fields), lengths


def pack_rows(columns: Sequence[Column], sizes: NDArray[np.integer[Any]] | None = None) -> bytes:
    """Rows for COPY, without header and trailer, in the order of their lists' lengths.

    `sizes`: how many values of each row's lists count, the same for all its lists; rows with none are left out.
    """
    count = len(columns[0][1])
    if sizes is None:
        return _pack(columns, None) if count else b""
    parts = []
    for size in np.unique(sizes[sizes > 0]).tolist():
        chosen = sizes == size
        parts.append(_pack([(kind, values[chosen]) for kind, values in columns], int(size)))
    return b"".join(parts)


def _pack(columns: Sequence[Column], size: int | None) -> bytes:
    fields: list[Any] = [("fields", ">i2")]
    for at, (kind, values) in enumerate(columns):
        fields.append((f"length{at}", ">i4"))
        if kind == "halfvec":
            fields += [(f"dim{at}", ">i2"), (f"unused{at}", ">i2"), (f"value{at}", ">f2", (values.shape[1],))]
        elif kind.endswith("[]"):
            element = np.dtype([("length", ">i4"), ("value", _CODE[kind[:-2]])])
            length = values.shape[1] if size is None else size
            fields += [(f"head{at}", ">i4", (5,)), (f"list{at}", element, (length,))]
        else:
            fields.append((f"value{at}", _CODE[kind]))
    rows = np.zeros(len(columns[0][1]), np.dtype(fields))
    rows["fields"] = len(columns)
    for at, (kind, values) in enumerate(columns):
        if kind == "halfvec":
            rows[f"length{at}"] = 4 + 2 * values.shape[1]
            rows[f"dim{at}"] = values.shape[1]
            rows[f"value{at}"] = values
        elif kind.endswith("[]"):
            inner = rows[f"list{at}"]
            width = inner.dtype["value"].itemsize
            rows[f"length{at}"] = 20 + inner.shape[1] * (4 + width)
            # dimensions, whether there are nulls, element type, length, lower bound
            rows[f"head{at}"] = (1, 0, _OID[kind[:-2]], inner.shape[1], 1)
            inner["length"] = width
            inner["value"] = values[:, : inner.shape[1]]
        else:
            rows[f"length{at}"] = rows.dtype[f"value{at}"].itemsize
            rows[f"value{at}"] = values
    return rows.tobytes()

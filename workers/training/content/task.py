"""Precomputed neighbours by content, from file to file: what the child process does."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from infra.copybinary import HEADER, TRAILER, pack_rows, read_records
from workers.training.content.nearest import Catalogue, Dial, nearest_lists

VECTORS: Final = "vectors.copy"
PLAN: Final = "plan.json"
LISTS: Final = "lists.copy"

_IN_MEMORY: Final = 96 * 1024 * 1024
"""Vectors that take more as float32 lie in a file that is mapped: memory that the system can take back."""
_CHUNK: Final = 8192


class Plan(Struct, frozen=True, kw_only=True):
    """What to make. `text_dim`, `image_dim` of the fused vectors."""

    text_dim: int
    image_dim: int
    keep: int
    dials: list[Dial]


def _columns(plan: Plan) -> dict[str, str]:
    vec = f"halfvec({plan.text_dim + plan.image_dim})"
    return {
        "item_no": "int4",
        "text_space": "int2",
        "image_space": "int2",
        "group": "int4",
        "shown": "int2",
        "vec": vec,
    }


def run(folder: Path, report: Callable[[int, int], None]) -> None:
    """Read `PLAN` and `VECTORS`, write `LISTS` as rows (kind, item_no, others, scores) of a binary COPY."""
    plan = msgspec.json.decode((folder / PLAN).read_bytes(), type=Plan)
    catalogue = _read(folder, plan)
    with (folder / LISTS).open("wb") as file:
        file.write(HEADER)
        for lists in nearest_lists(
            catalogue, plan.dials, keep=plan.keep, progress=lambda done: report(done, len(catalogue.item_no))
        ):
            columns = [
                ("int2", np.full(len(lists.item_no), lists.kind)),
                ("int4", lists.item_no),
                ("int4[]", lists.others),
                ("int2[]", lists.scores),
            ]
            file.write(pack_rows(columns, lists.sizes))
        file.write(TRAILER)


def _read(folder: Path, plan: Plan) -> Catalogue:
    dim = plan.text_dim + plan.image_dim
    records = read_records(folder / VECTORS, _columns(plan))
    vectors: NDArray[np.float32]
    if len(records) * dim * 4 <= _IN_MEMORY:
        vectors = np.empty((len(records), dim), np.float32)
    else:
        vectors = np.memmap(folder / "vectors.f32", np.float32, mode="w+", shape=(len(records), dim))
    for at in range(0, len(records), _CHUNK):
        vectors[at : at + _CHUNK] = records["vec"][at : at + _CHUNK]
    return Catalogue(
        item_no=records["item_no"].astype(np.int32),
        vectors=vectors,
        text_dim=plan.text_dim,
        text_space=records["text_space"].astype(np.int16),
        image_space=records["image_space"].astype(np.int16),
        group=records["group"].astype(np.int32),
        shown=records["shown"] != 0,
    )

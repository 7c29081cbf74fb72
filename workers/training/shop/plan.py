"""What the worker and the child that trains tell each other: files, and the structs within.

Without the libraries of the training: they are loaded in the child alone, whose memory goes back to the system.
"""

from datetime import datetime
from typing import Any, Final

from msgspec import Struct

EVENTS: Final = "events.copy"
LIKES: Final = "likes.copy"
PLAN: Final = "plan.json"
RESULT: Final = "result.json"
LISTS: Final = "lists.copy"
VECTORS: Final = "vectors.copy"
SCORES: Final = "scores.copy"
SHOPPERS: Final = "shoppers.copy"
SERVED_LISTS: Final = "served_lists.copy"
SERVED_VECTORS: Final = "served_vectors.copy"

OF_EACH: Final = 60
"""Neighbours of an item that are looked at: of so many some have events, where any do."""


SERVED: Final = 100
"""Neighbours of an item that are read of the model that serves: as many as an answer reads of each of 30."""


class Counts(Struct, frozen=True, kw_only=True):
    """What a shop has to learn from. `rows` were read, `events` of them count: of a type with a weight, and of an
    item of the catalogue. `types`: how many of each.
    """

    rows: int = 0
    events: int = 0
    shoppers: int = 0
    items: int = 0
    unjoined: int = 0
    purchases: int = 0
    shoppers_of_two: int = 0
    sessions_of_two: int = 0
    baskets_of_two: int = 0
    repeats: int = 0
    days: float = 0.0
    types: dict[str, int] = {}


class Readiness(Struct, frozen=True, kw_only=True):
    """One model of a shop. `eta`: when there will be enough at the pace so far, null when nobody can tell."""

    model: str
    ready: bool
    has: dict[str, int]
    needs: dict[str, int]
    eta: datetime | None
    meanwhile: str | None


class Champion(Struct, frozen=True, kw_only=True):
    """The model that serves: `space` graph or als, `alpha` and `dims` of its vectors, `until` the last event that it
    was trained on (seconds since 1970), `blend` the weights that it is mixed by, empty where none were fitted.
    """

    model: int
    space: str
    alpha: float
    dims: int
    until: int
    blend: dict[str, float]


class Comparison(Struct, frozen=True, kw_only=True):
    """A new model against the `model` that serves, by `shoppers`, on what they met that neither has seen.

    `recall` and `champion_recall` are recall@20 of the two; `difference` the first less the second, `low` to `high`
    its 95 % interval. `worse`: the interval lies wholly below zero, and the shoppers are enough to tell.
    """

    model: int
    shoppers: int
    recall: float
    champion_recall: float
    difference: float
    low: float
    high: float
    worse: bool


class FitPlan(Struct, frozen=True, kw_only=True):
    """`now` seconds since 1970; `weights` of the types, in the order of their numbers in the log; `likes` whether
    there is a file of neighbours in content, `champion` the model that serves, whose files are there then.
    """

    now: int
    weights: list[tuple[str, float]]
    likes: bool
    champion: Champion | None = None


class FitResult(Struct, frozen=True, kw_only=True):
    """What was made. `trained` names the models; `sha256` is of the files, hexadecimal as `content_hash`."""

    counts: Counts
    trusted: bool
    readiness: list[Readiness]
    trained: list[str]
    window_from: datetime | None
    window_to: datetime | None
    content_hash: str
    sha256: str
    settings: dict[str, Any]
    metrics: dict[str, Any]
    blend: dict[str, float]
    comparison: Comparison | None = None

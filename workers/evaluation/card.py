"""The metric card: what was measured, on what, by which code, and how sure it is."""

from typing import Any

import msgspec

from workers.evaluation.bootstrap import Difference, Interval


class SplitCard(msgspec.Struct, frozen=True, kw_only=True):
    """How train and test were told apart. Dates are ISO 8601, UTC, None where the data has no times."""

    kind: str
    share: float | None
    train_from: str | None
    train_to: str | None
    test_from: str | None
    test_to: str | None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """`shoppers_asked` have a history and something to find; `shoppers_without_history` had something to find, but
    nothing to go by: every model shows them what sells, so they are counted and left out. `candidates` is the number
    of items that compete for every list.
    """

    events_train: int
    events_test: int
    shoppers_train: int
    shoppers_asked: int
    shoppers_without_history: int
    items_train: int
    candidates: int
    items_asked_for: int
    dropped: dict[str, int]


class SliceCard(msgspec.Struct, frozen=True, kw_only=True):
    """One part: Recall at `k` of each model, over `shoppers` of them."""

    kind: str
    name: str
    k: int
    shoppers: int
    models: dict[str, Interval]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between two models over the same shoppers, by paired bootstrap."""

    metric: str
    model: str
    against: str
    difference: Difference


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """`card.json`. `repeats` says whether items that the shopper had met may be recommended and are asked for;
    `models` hold per metric a mean over shoppers with its 95 % interval; `catalogue` how the lists spread; `code` the
    versions that the figures come of.
    """

    title: str
    made: str
    command: str
    split: SplitCard
    repeats: str
    counts: Counts
    models: dict[str, dict[str, Interval]]
    catalogue: dict[str, dict[str, float]]
    slices: list[SliceCard]
    claims: list[Claim]
    blend: dict[str, Any] | None
    about: dict[str, str]
    fit_s: dict[str, float]
    code: dict[str, str]


def encode_card(card: Card) -> bytes:
    """The JSON of a card, one line per entry, figures to six digits."""
    plain = msgspec.to_builtins(card)
    return msgspec.json.format(msgspec.json.encode(_rounded(plain)), indent=1) + b"\n"


def decode_card(data: bytes) -> Card:
    """A card that was written by `encode_card`."""
    return msgspec.json.decode(data, type=Card)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value

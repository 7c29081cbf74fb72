"""How the scores of several sources become one: the same arithmetic online, in SQL, and offline, over arrays.

Each source has a scale of its own (a cosine, a sum of neighbours' scores, a popularity), so a score is first divided
by the best of its source in this list; then the weighted mean is taken, and a source that does not name an item adds
nothing:

    score(j) = Σ_s w_s · max(0, z_s(j)) / max_k z_s(k)  /  Σ_s w_s

The best of a source rather than its mean and deviation: it needs no distribution, an item that only one source names
keeps its place, and a new shopper's three candidates are on the same footing as three hundred.

Weights are fitted by the learning jobs on exactly this function and stored in the generation's `blend`, by the names
of `tenants.sources` (`graph`, `similar`, `popular`, `buy_again`, …).

What few have met has a source of its own, `fresh`: being new it is little of what is bought next, so by the weights of
the others alone it never reaches a list. It is drawn from the `KNOWING` of the same list, s, and with j, k over the
items of fewer than `FEW_EVENTS` events in `FEW_DAYS`, z(j) = Σ_s z_s(j) / max_k z_s(k).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

DEFAULT_BLEND: Final[Mapping[str, float]] = {"graph": 1.0, "similar": 0.6, "buy_again": 0.3, "popular": 0.15}
"""`for_you` before anything is fitted, where there is a model of behaviour."""

KNOWING: Final = ("graph", "als", "similar")
"""Sources that name items with few events or none: by what they borrow from look-alikes, or by content."""

LISTED: Final = 200
"""So many of each of them are looked at for `fresh`: what few have met is rarely at the top."""

FEW_EVENTS: Final = 5
FEW_DAYS: Final = 150

CONTENT_BLEND: Final[Mapping[str, float]] = {"similar": 1.0, "popular": 0.1}
"""`for_you` of a shop that has no model: what the shopper looked at, by its text and photos."""


def blend(scores: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """float64[n] in 0..1 of n candidates; `scores[source]` float64[n], NaN or ≤ 0 where the source names it not.

    Raises ValueError when no source has a weight above 0.
    """
    total = sum(weights.get(source, 0.0) for source in scores)
    if total <= 0:
        raise ValueError("at least one source needs a weight above 0")
    size = len(next(iter(scores.values())))
    blended = np.zeros(size)
    for source, column in scores.items():
        positive = np.where(np.isnan(column), 0.0, np.maximum(column, 0.0))
        best = positive.max(initial=0.0)
        if best > 0:
            blended += weights.get(source, 0.0) / total * positive / best
    return blended


def blend_sql(names: Sequence[str], weights: Sequence[str], *, absolute: bool = False) -> str:
    """SQL of the same: a query of (src, item_no, part, because), whose parts add up to the score.

    `names` are CTEs of (item_no, z, because) with z > 0, `weights` their weights as SQL. `absolute`: z is the score
    already, cut to 0..1; so the one source of a list keeps the scale that `min_score` speaks of.
    """
    total = " + ".join(weights)
    share = "greatest(0, least(x.z, 1))" if absolute else "x.z / max(x.z) over ()"
    return " union all ".join(
        f"select {at} as src, x.item_no, {weight} / ({total}) * {share} as part, x.because from {name} x"
        for at, (name, weight) in enumerate(zip(names, weights, strict=True))
    )

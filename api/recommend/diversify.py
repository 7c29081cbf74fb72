"""diversify: from candidates in order to a list that is not all alike, obeys `max_per` and shows a group once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from api.recommend.types import Candidate
from tenants.lifecycle import Generation


def diversify(candidates: Iterable[Candidate], *, count: int, max_per: Mapping[str, int]) -> Sequence[Candidate]:
    """Take candidates greedily, best first, skipping those of a shown group or over a cap.

    A candidate without a value for a capped field is not counted under it.
    """
    taken: list[Candidate] = []
    groups: set[str] = set()
    seen: Counter[tuple[int, str]] = Counter()
    caps = list(max_per.values())
    for candidate in candidates:
        hit = candidate.hit
        if hit.group_id is not None and hit.group_id in groups:
            continue
        if caps:
            values = [(at, value) for at, value in enumerate(hit.capped) if value is not None]
            if any(seen[key] >= caps[key[0]] for key in values):
                continue
            seen.update(values)
        if hit.group_id is not None:
            groups.add(hit.group_id)
        taken.append(candidate)
        if len(taken) == count:
            break
    return taken


def spread_out(
    candidates: Sequence[Candidate], *, count: int, diversity: float, generation: Generation
) -> Sequence[Candidate]:
    """Maximal marginal relevance (Carbonell, Goldstein: SIGIR 1998) over the fused vectors, the fallback left behind.

    Each place goes to the highest (1 - diversity) · score - diversity · likeness to the likest taken before, scores
    relative to the best one. An item without a vector is like none. All candidates come back, `count` of them chosen.
    """
    own = [candidate for candidate in candidates if not candidate.fallback]
    if len(own) < 3 or diversity == 0:
        return candidates
    alike = _likeness([candidate.hit.vector for candidate in own], generation)
    scores = np.array([candidate.hit.score for candidate in own])
    gain = (1 - diversity) * scores / max(scores.max(), 1e-9)
    nearest = np.zeros(len(own))
    left = np.ones(len(own), dtype=bool)
    order: list[int] = []
    for _ in range(min(count, len(own))):
        best = int(np.argmax(np.where(left, gain - diversity * nearest, -np.inf)))
        order.append(best)
        left[best] = False
        nearest = np.maximum(nearest, alike[best])
    order += np.flatnonzero(left).tolist()
    return [*(own[at] for at in order), *(candidate for candidate in candidates if candidate.fallback)]


def _likeness(vectors: Sequence[bytes | None], generation: Generation) -> NDArray[np.float32]:
    """float32[n, n]: cosines of the fused vectors, their halves weighed as the tenant weighs them."""
    dim = generation.text.dim + generation.image.dim
    rows = np.zeros((len(vectors), dim), dtype=np.float32)
    for at, vector in enumerate(vectors):
        if vector is not None:
            # halfvec_send: two int16 (dimensions, unused), then the float16s, all big-endian
            rows[at] = np.frombuffer(vector, dtype=">f2", offset=4)
    rows[:, : generation.text.dim] *= generation.text_weight
    rows[:, generation.text.dim :] *= generation.image_weight
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return np.asarray(rows @ rows.T, np.float32)

"""diversify: from candidates in order to a list that obeys `max_per` and shows a group once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from api.recommend.types import Candidate


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

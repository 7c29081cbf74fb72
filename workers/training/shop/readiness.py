"""What each model needs, as data; what a shop has of it, when it will be enough, and what serves meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from workers.training.shop.plan import Counts, Readiness

UNJOINED_SHARE: Final = 0.5
"""Where more of the events are of items that the catalogue lacks, the ids do not match, and nothing is learned."""

_FARTHEST: Final = timedelta(days=365)


class Need(Struct, frozen=True, kw_only=True):
    """The least of each count that a model is worth training on."""

    model: str
    needs: dict[str, int]
    meanwhile: str


NEEDS: Final = (
    Need(model="popularity", needs={"events": 1}, meanwhile="the newest items"),
    Need(model="also_viewed", needs={"sessions_of_two": 50}, meanwhile="items alike by text and photos"),
    Need(model="bought_together", needs={"baskets_of_two": 30}, meanwhile="items alike by text and photos"),
    Need(
        model="graph",
        needs={"events": 500, "shoppers_of_two": 50, "items": 20},
        meanwhile="items alike by text and photos to those a shopper looked at, and popular ones",
    ),
    Need(model="item_cf", needs={"events": 500, "shoppers_of_two": 100, "items": 20}, meanwhile="also_viewed"),
    Need(model="user_cf", needs={"events": 500, "shoppers_of_two": 100, "items": 20}, meanwhile="graph"),
    Need(model="buy_again", needs={"repeats": 30}, meanwhile="every item bought before, 30 days afterwards"),
    Need(model="blend", needs={"events": 2000, "shoppers_of_two": 200}, meanwhile="weights that do well in most shops"),
)


def judge(counts: Counts, now: datetime) -> list[Readiness]:
    """A line for each model."""
    have: dict[str, int] = {
        name: value for name, value in msgspec.structs.asdict(counts).items() if isinstance(value, int)
    }
    lines = []
    for need in NEEDS:
        has = {name: have[name] for name in need.needs}
        ready = all(has[name] >= least for name, least in need.needs.items())
        lines.append(
            Readiness(
                model=need.model,
                ready=ready,
                has=has,
                needs=need.needs,
                eta=None if ready else _eta(has, need.needs, counts.days, now),
                meanwhile=None if ready else need.meanwhile,
            )
        )
    return lines


def trusted(counts: Counts) -> bool:
    """Whether the events are of this catalogue at all."""
    return counts.rows == 0 or counts.unjoined <= UNJOINED_SHARE * counts.rows


def _eta(has: dict[str, int], needs: dict[str, int], days: float, now: datetime) -> datetime | None:
    wait = timedelta(0)
    for name, least in needs.items():
        if has[name] >= least:
            continue
        if has[name] == 0 or days <= 0:
            return None
        wait = max(wait, timedelta(days=min((least - has[name]) / has[name] * days, 10_000)))
    return (now + wait).astimezone(UTC).replace(microsecond=0) if wait <= _FARTHEST else None

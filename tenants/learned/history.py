"""What of a shopper's past counts for a personal list: the same figures online, in SQL, and where models are measured.

    w(i) = s / (1 + s),   s = Σ over the events of item i of weight · 2^(-age in days / HALF_LIFE_DAYS)

of the events of REACH_DAYS, the ITEMS strongest. The reach matters more than the half-life: on data/online_retail a
reach of 90 days instead of 160 loses a sixth of Recall@20 of every source (shoppers who come back after a season
have no history then), and half-lives of 14 to 120 days are within 3 % of each other.
"""

from typing import Final

ITEMS: Final = 30
"""So many items of a history count; each brings up to 200 neighbours."""

HALF_LIFE_DAYS: Final = 14.0
"""After so many days an event counts half."""

REACH_DAYS: Final = 180
EVENTS: Final = 200
"""The latest so many events of the reach are looked at."""

OTHERS: Final = 30
"""So many shoppers of like taste are asked (`user_cf`), the likest,"""

OTHERS_DAYS: Final = 90
OTHERS_EVENTS: Final = 20
"""each for the latest so many events of so many days."""

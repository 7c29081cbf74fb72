"""Who is no person: programs that say so (tenants/events/agents.py), and shoppers faster than anybody can be.

Their events are stored and flagged, so that the shop can see them, and are never learned from.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from infra.db import TenantId
from tenants.events.agents import is_bot
from tenants.events.event import BOT, Event, shopper_of

PER_MINUTE: Final = 300
"""Events of one shopper in one minute, impressions apart, above which nobody can have done them by hand."""

FLAGGED_FOR_S: Final = 3600
_SHOPPERS: Final = 50_000


class Rates:
    """Counts each shopper's events by the minute in which they happened; bounded, and of this process alone.

    By when they happened and not by when they came: a server that sends an hour's events at once is no bot.
    """

    def __init__(self) -> None:
        self._counts: dict[TenantId, dict[tuple[str, int], int]] = {}
        self._flagged: dict[TenantId, dict[str, float]] = {}
        self._size = 0

    def flags(self, tenant_id: TenantId, events: Sequence[Event], *, agent: str | None, now: datetime) -> list[int]:
        """`BOT` or 0 for each event; `agent` is the browser's, None where a server calls for its shoppers.

        A server may hand the shopper's agent on, in `context.user_agent`.
        """
        if agent is not None and is_bot(agent):
            return [BOT] * len(events)
        made = []
        counts = self._counts.setdefault(tenant_id, {})
        flagged = self._flagged.get(tenant_id, {})
        present = now.timestamp()
        before = len(counts)
        for event in events:
            flag = 0
            if event.context and "user_agent" in event.context:
                told = event.context["user_agent"]
                flag = BOT if isinstance(told, str) and is_bot(told) else 0
            shopper = shopper_of(event)
            if shopper is not None and event.type != "impression":
                minute = int(present if event.ts is None else event.ts.timestamp()) // 60
                count = counts[shopper, minute] = counts.get((shopper, minute), 0) + 1
                if count > PER_MINUTE:
                    flagged = self._flagged.setdefault(tenant_id, {})
                    flagged[shopper] = minute * 60 + FLAGGED_FOR_S
                if flagged and shopper in flagged:
                    happened = present if event.ts is None else event.ts.timestamp()
                    flag = BOT if happened <= flagged[shopper] else flag
            made.append(flag)
        self._size += len(counts) - before
        if self._size > _SHOPPERS:
            self._forget(int(present) // 60)
        return made

    def _forget(self, minute: int) -> None:
        """Keep what is of this minute and the one before; where that is too much still, nothing."""
        for tenant_id, counts in list(self._counts.items()):
            kept = {key: count for key, count in counts.items() if key[1] >= minute - 1}
            if kept:
                self._counts[tenant_id] = kept
            else:
                del self._counts[tenant_id]
        self._size = sum(len(counts) for counts in self._counts.values())
        if self._size > _SHOPPERS // 2:
            self._counts.clear()
            self._size = 0
        for tenant_id, flagged in list(self._flagged.items()):
            still = {shopper: until for shopper, until in flagged.items() if until >= minute * 60}
            if still:
                self._flagged[tenant_id] = still
            else:
                del self._flagged[tenant_id]

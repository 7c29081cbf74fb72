"""What every source of one request reads: the shopper's history, the anchors, and which items may be shown.

Its common table expressions, in the order in which they depend on each other:

    recent    the session's items, newest first, from the request; nothing of it is stored
    shopper   the shopper's number, what it sells and its segments (tenants/sources/shopper.py)
    activity  (type, item_no, ts) what the shopper lately did, impressions and bots left out
    decided   (type, item_no, ts) what the shopper disliked within a year and, where the list asks for it, ever bought
    bought    (item_no, days, since, usual, unsure) of each item bought: on how many days, days since the last, and days
              after which it is bought again
    history   (item_no, w, ts) the strongest of the activity, of the session and of the items asked about; w in 0..1
    known     the items asked about that exist
    anchor    (item_no, w) what the list starts from: the items asked about, the history, or the cart
    barred    the items that the request excludes
    due       what is to be bought again about now, and so stays in a list that leaves the history out
    met       what such a list leaves out
"""

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import Any, Final, Literal

from msgspec import Struct

from tenants.learned.history import HALF_LIFE_DAYS, ITEMS
from tenants.learned.repurchase import DEFAULT_DAYS
from tenants.lifecycle import TenantRef
from tenants.retrieval.likeness import same_as_known
from tenants.retrieval.nearest import each
from tenants.retrieval.wanted import TENANT, Statement, Wanted
from tenants.sources.shopper import DISLIKED_DAYS, MEANT, Reach, ShopperKey, recent_events, shopper_ctes

_DUE: Final = 0.5
"""Bought again after this part of the usual days, an item is no surprise."""

_SESSION_WEIGHT: Final = 2.0
_SESSION_DECAY: Final = 0.85
"""The item looked at last counts as two views made now, the one before 0.85 of that."""


Anchor = Literal["seeds", "history", "cart"]
LeaveOut = Literal["nothing", "anchor", "history"]


AT_MODEL: Final = "@"


class Chosen(Struct, frozen=True, kw_only=True):
    """One source of a list; `limit` candidates are taken from it at most.

    `model`: the model of behaviour that it reads; None, the one that serves. `fields`: what `attributes` compares, and
    how much each counts; empty, the usual ones.
    """

    name: str
    weight: float
    limit: int | None = None
    model: int | None = None
    fields: Mapping[str, float] = {}

    @property
    def label(self) -> str:
        """The name in answers: that of the source, and the model where it is not the one that serves."""
        return self.name if self.model is None else f"{self.name}{AT_MODEL}{self.model}"


class Asked(Struct, frozen=True, kw_only=True):
    """A blended list.

    `anchor` says what it starts from. `leave_out`: what is kept out of it, with the groups of it: the anchors, or what
    the shopper met lately (activity, session, items asked about) or ever bought. `among`: only these items, by their
    ids. `absolute`: the one source's z is the score. `live`: precomputed neighbours in content are not read.
    """

    sources: Sequence[Chosen]
    seeds: Sequence[str] = ()
    recent: Sequence[str] = ()
    shopper: ShopperKey | None = None
    anchor: Anchor = "history"
    leave_out: LeaveOut = "history"
    text_weight: float = 0.5
    image_weight: float = 0.5
    seen: bool = False
    purchased: bool = False
    in_cart: bool = False
    same: Sequence[str] = ()
    among: Sequence[str] | None = None
    min_score: float = 0.0
    fallback: bool = True
    absolute: bool = False
    live: bool = False
    with_evidence: bool = False
    with_vectors: bool = False


class Scene:
    """One statement in the making: `bind` adds a parameter, `ctes` are what the sources may read, `listed` the names of
    those that hold the sources so far, as (item_no, z, because).

    `cut`: how many of each source are looked at before it is known which may be shown; None where the condition
    `eligible` comes first, as under a filter. `stop`: how many that may be shown are enough of a source that finds
    them in order; None where all are wanted.
    """

    def __init__(self, tenant: TenantRef, wanted: Wanted, asked: Asked, *, cut: int | None, stop: int | None) -> None:
        self.tenant = tenant
        self.wanted = wanted
        self.asked = asked
        self.cut = cut
        self.stop = stop
        self.statement = Statement(tenant, wanted)
        self.now = self.statement.now
        self.model = tenant.generation.behaviour_model
        self.fields: Mapping[str, float] = {}
        self.build = None if asked.live else tenant.generation.neighbours_build
        self.listed: dict[str, str] = {}
        self._bound: dict[tuple[str, str], str] = {}
        self.ctes = [*self._shopper(), *self._bought(), *self._history(), *self._anchor()]
        self.base, self.eligible = self._conditions()

    def of(self, chosen: Chosen) -> "Scene":
        """The scene as one source reads it: the same statement, with what was chosen for that source alone."""
        if chosen.model is None and not chosen.fields:
            return self
        part = copy(self)
        part.model = self.model if chosen.model is None else chosen.model
        part.fields = chosen.fields
        return part

    @property
    def args(self) -> Sequence[Any]:
        """The parameters after the tenant's two."""
        return self.statement.args[2:]

    def bind(self, value: object, kind: str) -> str:
        """Add a parameter; returns how to write it. The same value twice is one parameter."""
        key = (repr(value), kind)
        if key not in self._bound:
            self._bound[key] = self.statement.bind(value, kind)
        return self._bound[key]

    @property
    def limit(self) -> str:
        """The cut of a source that looks at many items, as SQL."""
        # Written out, for the planner's sake: of a parameter it expects a tenth of the table.
        return "all" if self.cut is None else str(int(self.cut))

    @property
    def enough(self) -> str:
        """The limit of a source that finds its items in order, as SQL."""
        return "all" if self.stop is None else str(int(self.stop))

    def may_show(self, condition: str | None = None) -> str:
        """What a source that looks at every item asks of `item_facets f`: all, unless it is asked after the cut."""
        return f"f.tenant_id = {TENANT}" if self.cut is not None else condition or self.eligible

    def events(self, alias: str, days: int) -> str:
        """The condition on `events` of the last days."""
        return recent_events(self.bind, alias, now=self.wanted.now, days=days)

    def weights(self, alias: str) -> str:
        """SQL of (type, weight), what an event of each type says of a taste."""
        types = dict(self.tenant.event_weights)
        return (
            f"unnest({self.bind(list(types), 'text[]')}, {self.bind(list(types.values()), 'float8[]')}) "
            f"{alias}(type, weight)"
        )

    def _shopper(self) -> list[str]:
        shopper = self.asked.shopper
        if shopper is None:
            return []
        return shopper_ctes(self.bind, shopper, now=self.wanted.now, reach=self.reach)

    @property
    def reach(self) -> Reach:
        """What the list asks of the shopper beyond what was done lately."""
        if self.asked.in_cart:
            return "cart"
        return "purchases" if self._asks_for_purchases else "dislikes"

    @property
    def _asks_for_purchases(self) -> bool:
        asked = self.asked
        return asked.leave_out == "history" or asked.purchased or self._buys_again

    @property
    def _buys_again(self) -> bool:
        asked = self.asked
        return asked.shopper is not None and any(chosen.name == "buy_again" for chosen in asked.sources)

    @property
    def shown_anchors(self) -> str | None:
        """SQL of the anchors that may be in the list themselves; None where none may."""
        if self.asked.leave_out == "nothing":
            return "select a.item_no, a.w from anchor a"
        if self.asked.leave_out == "history" and self._buys_again:
            return "select a.item_no, a.w from anchor a where a.item_no in (select d.item_no from due d)"
        return None

    def _bought(self) -> list[str]:
        """The usual days are the shopper's own mean pause where it was bought on two days, else those that were learned
        of the item, else a guess, of which we are unsure."""
        if not self._buys_again:
            return []
        return [
            f"""bought as materialized (
        select b.item_no, b.days,
            extract(epoch from greatest({self.now} - b.last, interval '0'))::float8 / 86400 as since,
            greatest(coalesce(b.own, s.repurchase_days, {DEFAULT_DAYS}), 0.5)::float8 as usual,
            b.own is null and s.repurchase_days is null as unsure
        from (select d.item_no, max(d.ts) as last, count(distinct d.ts::date)::float8 as days,
                case when count(distinct d.ts::date) > 1 then
                extract(epoch from max(d.ts) - min(d.ts))::float8 / 86400 / (count(distinct d.ts::date) - 1) end as own
            from decided d where d.type = 'purchase' group by d.item_no) b
        left join lateral (select s.repurchase_days from item_scores s where s.tenant_id = {TENANT}
            and s.model = {self.bind(self.model or 0, "int4")} and s.segment = '' and s.item_no = b.item_no
            offset 0) s on true
    )"""
        ]

    def _history(self) -> list[str]:
        asked = self.asked
        found = []
        parts = []
        if asked.recent:
            ids = self.bind(list(reversed(asked.recent)), "text[]")
            found.append(
                f"""recent as materialized (
        select d.item_no, min(r.place) as place from unnest({ids}) with ordinality r(id, place)
        join item_ids d on d.tenant_id = {TENANT} and d.external_id = r.id group by d.item_no
    )"""
            )
            parts.append(
                f"select r.item_no, {_SESSION_WEIGHT} * power({_SESSION_DECAY}, r.place - 1) as w, {self.now} as ts "
                "from recent r"
            )
        if asked.shopper is not None:
            age = f"extract(epoch from greatest({self.now} - a.ts, interval '0'))::float8 / 86400"
            parts.append(
                f"select a.item_no, t.weight * power(0.5::float8, {age} / {HALF_LIFE_DAYS}) as w, a.ts "
                f"from activity a join {self.weights('t')} on t.type = a.type"
            )
        # Many events of one item count, but ever less: w / (1 + w).
        nothing = f"select null::int4 as item_no, 0::float8 as w, {self.now} as ts where false"
        rows = " union all ".join(parts) or nothing
        found.append(
            f"""history as materialized (
        select h.item_no, sum(h.w) / (1 + sum(h.w)) as w, max(h.ts) as ts from ({rows}) h
        group by h.item_no having sum(h.w) > 0 order by 2 desc, 3 desc, 1 desc limit {ITEMS}
    )"""
        )
        return found

    def _anchor(self) -> list[str]:
        asked = self.asked
        found = [
            f"""known as materialized (
        select d.external_id, d.item_no, f.group_id, f.brand, f.seller_id, f.currency, f.gtin, f.language
        from item_ids d {each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = d.item_no", alias="f")}
        where d.tenant_id = {TENANT} and d.external_id = any({self.bind(list(asked.seeds), "text[]")})
    )"""
        ]
        match asked.anchor:
            case "seeds":
                rows = "select k.item_no, 1::float8 as w from known k"
            case "cart":
                rows = f"select c.item_no, 1::float8 as w from ({_in_cart(asked.shopper, 'activity')}) c"
            case "history":
                rows = "select h.item_no, h.w from history h"
        found.append(f"anchor as materialized ({rows})")
        return found

    def _conditions(self) -> tuple[str, str]:
        """On `item_facets f`: what no item of the list may be, the fallback's included; and the whole condition."""
        asked = self.asked
        base = [self.statement.eligible()]
        barred = []
        if asked.shopper is not None:
            base.append("(f.seller_id is null or f.seller_id <> coalesce((select s.seller_id from shopper s), ''))")
            since = self.bind(self.wanted.now - timedelta(days=DISLIKED_DAYS), "timestamptz")
            base.append(
                f"f.item_no not in (select d.item_no from decided d where d.type = 'dislike' and d.ts > {since})"
            )
            if asked.seen:
                barred.append(
                    f"select e.item_no from events e where e.tenant_id = {TENANT} "
                    f"and e.shopper_no = (select s.shopper_no from shopper s) and {MEANT}"
                )
            elif asked.purchased:
                barred.append("select d.item_no from decided d where d.type = 'purchase'")
            if asked.in_cart:
                barred.append(_in_cart(asked.shopper, "decided"))
        if asked.seen and asked.recent:
            barred.append("select r.item_no from recent r")
        if barred:
            self.ctes.append(f"barred as materialized ({' union '.join(f'({rows})' for rows in barred)})")
            base.append(_none_of("barred"))
        if asked.among is not None:
            ids = self.bind(list(asked.among), "text[]")
            base.append(
                f"f.item_no in (select d.item_no from item_ids d where d.tenant_id = {TENANT} "
                f"and d.external_id = any({ids}))"
            )
        whole = list(base)
        if asked.same:
            whole.append(same_as_known(self.statement, asked.same).removeprefix(" and "))
        if asked.leave_out == "anchor":
            base.append(_none_of("anchor"))
            whole.append(_none_of("anchor"))
        elif asked.leave_out == "history":
            whole.append(self._unmet())
        return " and ".join(base), " and ".join(whole)

    def _unmet(self) -> str:
        """The condition that `f` is news: not met lately, never bought, or to be bought again about now."""
        rows = ["select h.item_no from history h"]
        if self.asked.shopper is not None:
            rows += ["select a.item_no from activity a", "select d.item_no from decided d where d.type = 'purchase'"]
        if self.asked.seeds:
            rows.append("select k.item_no from known k")
        self.ctes.append(f"met as materialized ({' union '.join(rows)})")
        if not self._buys_again:
            return _none_of("met")
        # What is bought again and again is no news, and yet what the shopper came for.
        due = f"select b.item_no from bought b where not b.unsure and b.since >= {_DUE} * b.usual"
        if self.asked.seeds:
            due += " and b.item_no not in (select k.item_no from known k)"
        self.ctes.append(f"due as materialized ({due})")
        return f"(f.item_no in (select d.item_no from due d) or ({_none_of('met')}))"


def _none_of(items: str) -> str:
    """The condition that `f` is no `item_no` of a CTE, nor another variant of one."""
    return (
        f"f.item_no not in (select x.item_no from {items} x) "
        f"and (f.group_id is null or f.group_id not in (select s.group_id from {items} x "
        f"{each('item_facets', f's.tenant_id = {TENANT} and s.item_no = x.item_no', alias='s')} "
        "where s.group_id is not null))"
    )


def _in_cart(shopper: ShopperKey | None, events: Literal["activity", "decided"]) -> str:
    """SQL of the items in the shopper's cart: put there, and since neither taken out nor bought."""
    if shopper is None:
        return "select null::int4 as item_no where false"
    return (
        f"select c.item_no from (select distinct on (a.item_no) a.item_no, a.type from {events} a "
        "where a.type in ('add_to_cart', 'remove_from_cart', 'purchase') order by a.item_no, a.ts desc, "
        "a.type <> 'add_to_cart' desc) c where c.type = 'add_to_cart'"
    )

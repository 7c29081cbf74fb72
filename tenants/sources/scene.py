"""What every source of one request reads: the shopper's history, the anchors, and which items may be shown.

Its common table expressions, in the order in which they depend on each other:

    recent    the session's items, newest first, from the request; nothing of it is stored
    shopper   the shopper's number, what it sells and its segments
    activity  (type, item_no, ts) what the shopper lately did, impressions and bots left out
    history   (item_no, w, ts) the strongest of it, of the session and of the items asked about; w in 0..1
    known     the items asked about that exist
    anchor    (item_no, w) what the list starts from: the items asked about, the history, or the cart
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from msgspec import Struct

from tenants.learned.history import EVENTS, HALF_LIFE_DAYS, ITEMS, REACH_DAYS
from tenants.lifecycle import TenantRef
from tenants.retrieval.likeness import same_as_known
from tenants.retrieval.nearest import each
from tenants.retrieval.wanted import TENANT, Statement, Wanted

_RECENT: Final = (REACH_DAYS, EVENTS)
_WIDE: Final = (365, 1000)
"""Days and events of `activity`: for a history, and where all that was seen or bought matters."""

MEANT: Final = "e.flags & 1 = 0 and e.item_no is not null and e.type <> 'impression'"
"""The condition on an event `e` that a shopper did it: no bot's, and more than being shown the item."""

_SESSION_WEIGHT: Final = 2.0
_SESSION_DECAY: Final = 0.85
"""The item looked at last counts as two views made now, the one before 0.85 of that."""


Anchor = Literal["seeds", "history", "cart"]


class ShopperKey(Struct, frozen=True, kw_only=True):
    """A shopper by the shop's own id; `kind` 0 a visitor, 1 a user."""

    kind: Literal[0, 1]
    id: str


class Chosen(Struct, frozen=True, kw_only=True):
    """One source of a list; `limit` candidates are taken from it at most."""

    name: str
    weight: float
    limit: int | None = None


class Asked(Struct, frozen=True, kw_only=True):
    """A blended list.

    `anchor` says what it starts from. `leave_out`: whether the anchors, or the whole history, are kept out of it (and
    the groups they are of). `among`: only these items, by their ids. `absolute`: the one source's z is the score.
    `live`: precomputed neighbours in content are not read.
    """

    sources: Sequence[Chosen]
    seeds: Sequence[str] = ()
    recent: Sequence[str] = ()
    shopper: ShopperKey | None = None
    anchor: Anchor = "history"
    leave_out: Literal["nothing", "anchor", "history"] = "history"
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
    `eligible` comes first, as under a filter.
    """

    def __init__(self, tenant: TenantRef, wanted: Wanted, asked: Asked, *, cut: int | None) -> None:
        self.tenant = tenant
        self.wanted = wanted
        self.asked = asked
        self.cut = cut
        self.statement = Statement(tenant, wanted)
        self.now = self.statement.now
        self.model = tenant.generation.behaviour_model
        self.build = None if asked.live else tenant.generation.neighbours_build
        self.listed: dict[str, str] = {}
        self._bound: dict[tuple[str, str], str] = {}
        self.ctes = [*self._shopper(), *self._history(), *self._anchor()]
        self.base, self.eligible = self._conditions()

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

    def may_show(self, condition: str | None = None) -> str:
        """What a source that looks at every item asks of `item_facets f`: all, unless it is asked after the cut."""
        return f"f.tenant_id = {TENANT}" if self.cut is not None else condition or self.eligible

    def events(self, alias: str, days: int) -> str:
        """The condition on `events` of the last days; months are literals, so that few partitions are even planned."""
        since = self.wanted.now - timedelta(days=days)
        first, last = months(since, self.wanted.now + timedelta(days=1))
        return (
            f"{alias}.tenant_id = {TENANT} and {alias}.ts >= '{first}' and {alias}.ts < '{last}' "
            f"and {alias}.ts > {self.bind(since, 'timestamptz')}"
        )

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
        days, rows = _WIDE if self._needs_wide() else _RECENT
        return [
            f"""shopper as materialized (
        select i.shopper_no, u.seller_id, coalesce(u.segments, '{{}}') as segments from (
            select coalesce(i.merged_into, i.shopper_no) as shopper_no from shopper_ids i
            where i.tenant_id = {TENANT} and i.kind = {self.bind(shopper.kind, "int2")}
                and i.external_id = {self.bind(shopper.id, "text")}) i
        left join users u on u.tenant_id = {TENANT} and u.shopper_no = i.shopper_no
    )""",
            # Many impressions must not hide what the shopper did, nor make a shopper's request dear: both are bounded.
            f"""activity as materialized (
        select e.type, e.item_no, e.ts from (
            select e.type, e.item_no, e.ts, e.flags from events e
            where e.shopper_no = (select s.shopper_no from shopper s) and {self.events("e", days)}
            order by e.ts desc limit {rows * 5}) e
        where {MEANT} order by e.ts desc limit {rows}
    )""",
        ]

    def _needs_wide(self) -> bool:
        asked = self.asked
        return asked.seen or asked.purchased or any(chosen.name == "buy_again" for chosen in asked.sources)

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
                rows = f"select c.item_no, 1::float8 as w from ({in_cart(asked.shopper)}) c"
            case "history":
                rows = "select h.item_no, h.w from history h"
        found.append(f"anchor as materialized ({rows})")
        return found

    def _conditions(self) -> tuple[str, str]:
        """On `item_facets f`: what no item of the list may be, the fallback's included; and the whole condition."""
        asked = self.asked
        base = [self.statement.eligible()]
        if asked.shopper is not None:
            base.append("(f.seller_id is null or f.seller_id <> coalesce((select s.seller_id from shopper s), ''))")
            base.append("f.item_no not in (select a.item_no from activity a where a.type = 'dislike')")
            if asked.seen:
                base += self._not_in("select a.item_no from activity a")
            elif asked.purchased:
                base += self._not_in("select a.item_no from activity a where a.type = 'purchase'")
            if asked.in_cart:
                base += self._not_in(in_cart(asked.shopper))
        if asked.seen and asked.recent:
            base += self._not_in("select r.item_no from recent r")
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
            apart = self._not_in("select a.item_no from anchor a")
            base += apart
            whole += apart
        elif asked.leave_out == "history":
            bought = ""
            if asked.shopper is not None and any(chosen.name == "buy_again" for chosen in asked.sources):
                # What is bought again and again is no news, and yet what the shopper came for.
                bought = " where h.item_no not in (select a.item_no from activity a where a.type = 'purchase')"
            whole += self._not_in(f"select h.item_no from history h{bought}")
            if asked.seeds:
                whole += self._not_in("select k.item_no from known k")
        return " and ".join(base), " and ".join(whole)

    def _not_in(self, items: str) -> list[str]:
        """That `f` is none of these, nor another variant of one."""
        return [
            f"f.item_no not in ({items})",
            f"(f.group_id is null or f.group_id not in (select s.group_id from item_facets s "
            f"where s.tenant_id = {TENANT} and s.item_no in ({items}) and s.group_id is not null))",
        ]


def in_cart(shopper: ShopperKey | None) -> str:
    """SQL of the items in the shopper's cart: put there, and since neither taken out nor bought."""
    if shopper is None:
        return "select null::int4 as item_no where false"
    return (
        "select c.item_no from (select distinct on (a.item_no) a.item_no, a.type from activity a "
        "where a.type in ('add_to_cart', 'remove_from_cart', 'purchase') order by a.item_no, a.ts desc, "
        "a.type <> 'add_to_cart' desc) c where c.type = 'add_to_cart'"
    )


def months(since: datetime, until: datetime) -> tuple[str, str]:
    """The first day of the month of `since`, and of the month after `until`'s, as literals of UTC."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    following = (until.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"{since:%Y-%m}-01T00:00:00Z", f"{following:%Y-%m}-01T00:00:00Z"

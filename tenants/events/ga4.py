"""Events in the form of Google Analytics 4 (`{client_id, user_id, events: [{name, params}]}`), put into ours.

Theirs are amounts in major units and a time in microseconds; ours are minor units and RFC 3339. What cannot be put
over is left as it was, so that the checks of our own events name it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tenants.catalog.currency import exponent_of

TYPES: Final[Mapping[str, str]] = {
    "view_item_list": "impression",
    "select_item": "click",
    "view_item": "view",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "favorite",
    "purchase": "purchase",
    "refund": "refund",
    "search": "search",
}
"""Their names of our types; any other name stays."""

_OURS: Final = ("event_id", "session_id", "recommendation_id", "position", "placement", "order_id")


def is_ga4(body: object) -> bool:
    """Whether a body is of that form: it says `client_id`, or its events have names instead of types."""
    if not isinstance(body, dict):
        return False
    events = body.get("events")
    first = events[0] if isinstance(events, list) and events else None
    return "client_id" in body or (isinstance(first, dict) and "name" in first and "type" not in first)


def translate(body: Mapping[str, Any], event: object, *, currency: str) -> object:
    """One event of the body as plain data of ours; `currency` is the tenant's, where the event names none."""
    if not isinstance(event, dict):
        return event
    given = event.get("params")
    params: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    code = params.pop("currency", None)
    exponent = exponent_of(code if isinstance(code, str) else currency)
    made: dict[str, Any] = {"type": TYPES.get(str(event.get("name")), event.get("name"))}
    if body.get("user_id") is not None:
        made["user_id"] = body["user_id"]
    if body.get("client_id") is not None:
        made["visitor_id"] = body["client_id"]
    if code is not None:
        made["currency"] = code
    for name in _OURS:
        if name in params:
            value = params.pop(name)
            made[name] = str(value) if name == "session_id" else value
    if "transaction_id" in params:
        made["order_id"] = params.pop("transaction_id")
    # A list's name is what placements are there.
    if (listed := params.pop("item_list_id", None)) is not None:
        made.setdefault("placement", listed)
    if "value" in params:
        made["value"] = _minor(params.pop("value"), exponent)
    items = params.pop("items", None)
    if isinstance(items, list):
        lines = [_line(item, exponent) for item in items]
        if made["type"] in ("click", "view") and len(items) == 1 and isinstance(items[0], dict) and "index" in items[0]:
            made.setdefault("position", items[0]["index"])
        made["items"] = lines
    moment = event.get("timestamp_micros", body.get("timestamp_micros"))
    if moment is not None:
        made["ts"] = _moment(moment)
    if "search_term" in params:
        params["query"] = params.pop("search_term")
    context = {name: value for name, value in params.items() if isinstance(value, str | int | float | bool)}
    if context:
        made["context"] = context
    return made


def _line(item: object, exponent: int) -> object:
    if not isinstance(item, dict):
        return item
    line: dict[str, Any] = {"id": item.get("item_id", item.get("item_name"))}
    if item.get("quantity") is not None:
        line["quantity"] = item["quantity"]
    if item.get("price") is not None:
        line["price"] = _minor(item["price"], exponent)
    return line


def _minor(amount: object, exponent: int) -> object:
    """12.5 as 1250; what is no number stays."""
    if isinstance(amount, bool) or not isinstance(amount, int | float | str):
        return amount
    try:
        scaled = Decimal(str(amount)).scaleb(exponent)
        return int(scaled.to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        return amount


def _moment(micros: object) -> object:
    try:
        return datetime.fromtimestamp(int(micros) / 1_000_000, UTC).isoformat()  # type: ignore[call-overload]
    except (ValueError, TypeError, OverflowError, OSError):
        return micros

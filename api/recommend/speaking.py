"""Whom a caller may speak for, and in which part of the catalogue: names refused, names and filters of a token set."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from msgspec import structs

from api.auth import Caller, ShopperRefused, UserIdRefused
from api.recommend.types import Query, RerankQuery
from infra.decode import InvalidFields
from infra.errors import FieldError
from tenants.catalog.filters import parse_filter
from tenants.placements import PlacementRefused

_RANDOM_ID: Final = re.compile(r"[A-Za-z0-9_\-.]{22,128}")

Q = TypeVar("Q", Query, RerankQuery)


def speak_for(caller: Caller, query: Q) -> Q:
    """The query of whom the caller may speak for: the token's shopper, where there is a token.

    A publishable key alone names visitors alone, by ids that nobody can guess. Raises UserIdRefused, ShopperRefused,
    InvalidFields.
    """
    if caller.visitor is None:
        _refuse_names(caller, query)
        return query
    user, visitor = named_by(caller, query.user_id, query.visitor_id)
    return structs.replace(query, user_id=user, visitor_id=visitor)


def named_by(caller: Caller, user_id: str | None, visitor_id: str | None) -> tuple[str | None, str | None]:
    """User and visitor as the caller's token says, whether the request names the same or nobody. Raises ShopperRefused.

    Only for a caller with a token.
    """
    assert caller.visitor is not None
    said = (caller.visitor.id, None) if caller.visitor.kind else (None, caller.visitor.id)
    if user_id not in (None, said[0]) or visitor_id not in (None, said[1]):
        raise ShopperRefused(
            "The visitor token speaks for one shopper, and the request names another. Leave the name out, "
            "or fetch a token for that shopper from the shop's server."
        )
    return said


def narrow(caller: Caller, asked: dict[str, Any] | None) -> dict[str, Any] | None:
    """The filter of a request inside that of the caller's token; what the caches know the list by, too.

    Raises InvalidFilter for the request's own.
    """
    inside: Mapping[str, Any] | None = None if caller.visitor is None else caller.visitor.filter
    if inside is None:
        return asked
    if asked is None:
        return dict(inside)
    parse_filter(asked)  # a fault is told by its place in what was sent
    return {"and": [inside, asked]}


def expect_any_placement(caller: Caller, what: str) -> None:
    """Refuse what names no placement to who is narrowed to some. Raises PlacementRefused."""
    if caller.placements is not None:
        raise PlacementRefused(
            f"This key, or its visitor token, is for the placements {', '.join(sorted(caller.placements)) or 'none'}; "
            f"{what} names none. Use one that is not narrowed to placements."
        )


def _refuse_names(caller: Caller, query: Query | RerankQuery) -> None:
    if caller.kind != "publishable":
        return
    if query.user_id is not None:
        raise UserIdRefused(
            "A publishable key can be read by everybody, so nobody is believed to be a user by it. "
            "Send the random `visitor_id` of this browser, or a visitor token from your server."
        )
    if query.visitor_id is not None and not _RANDOM_ID.fullmatch(query.visitor_id):
        message = "With a publishable key a visitor's id has 128 random bits, as a random UUID has."
        raise InvalidFields(message, errors=[FieldError(pointer="/visitor_id", code="guessable", message=message)])

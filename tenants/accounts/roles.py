"""What each role of an organisation's members may do: a table."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from tenants.keys import SCOPES, Scope

Role = Literal["owner", "admin", "developer", "analyst", "billing"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""The one that may do most first."""

_BUILD: Final[frozenset[Scope]] = frozenset(
    ("catalog:read", "catalog:write", "events:write", "recommend", "search", "rules:write", "experiments:write")
)
_LOOK: Final[frozenset[Scope]] = frozenset(("catalog:read", "recommend", "search", "analytics:read"))

ROLE_SCOPES: Final[Mapping[Role, frozenset[Scope]]] = {
    "owner": frozenset(SCOPES),
    "admin": frozenset(SCOPES),
    "developer": _BUILD | _LOOK,
    "analyst": _LOOK,
    "billing": frozenset(("billing:read",)),
}
"""Scopes at the API, in every shop of the organisation."""

ROLE_SAYS: Final[Mapping[Role, str]] = {
    "owner": "Everything, and may make others owners.",
    "admin": "Everything, but not what concerns owners.",
    "developer": "The catalogue, events, lists, rules and experiments.",
    "analyst": "Looks at the catalogue, lists and figures; changes nothing.",
    "billing": "Bills and usage alone.",
}

MANAGES_MEMBERS: Final[frozenset[Role]] = frozenset(("owner", "admin"))
MANAGES_SHOPS: Final[frozenset[Role]] = frozenset(("owner", "admin"))
MANAGES_KEYS: Final[frozenset[Role]] = frozenset(("owner", "admin"))


def lesser(one: Role, other: Role) -> Role:
    """The smaller of two roles."""
    return max(one, other, key=ROLES.index)

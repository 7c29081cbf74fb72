"""What an organisation has of what its plan counts: members and shops. Plans themselves are not known here."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver

CheckRoom = Callable[[Sequence[str], Literal["members", "shops"], int], None]
"""Whether the plans of an organisation's shops have room for one more of these beside so many; raises where not."""


class Holdings(Struct, frozen=True, kw_only=True):
    """What an organisation has. `plans`: one of each of its shops. `invitations`: those that are open."""

    plans: Sequence[str]
    members: int
    invitations: int

    @property
    def shops(self) -> int:
        """Those that are not deleted."""
        return len(self.plans)

    @property
    def invited(self) -> int:
        """Members and who was invited to become one: an invitation keeps a place."""
        return self.members + self.invitations


async def lock_organisation(conn: AsyncConnection, org_id: UUID) -> bool:
    """Let nobody else add to an organisation until the transaction ends; False where there is none.

    What is counted afterwards stays so: of two who take the last place at once, one waits and finds none.
    `conn` is a session in that organisation.
    """
    found = await (await driver(conn)).fetchval("select 1 from organisations where org_id = $1 for update", org_id)
    return found is not None


_HELD: Final = """
select array(select plan from plans_of_organisation()) as plans,
    (select count(*) from members m where m.org_id = $1) as members,
    (select count(*) from invitations i where i.org_id = $1 and i.expires_at > $2) as invitations
"""


async def load_holdings(conn: AsyncConnection, org_id: UUID, *, now: datetime) -> Holdings:
    """What it has; `conn` is a session in that organisation."""
    row: Any = await (await driver(conn)).fetchrow(_HELD, org_id, now)
    return Holdings(**dict(row))

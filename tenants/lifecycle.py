"""What a tenant is: its name and plan, its shard, and the generation of vectors that serves it; made and found."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import Database, TenantId, driver, fetch
from infra.errors import Conflict, FieldError, Invalid, NotFound
from infra.ids import uuid7
from tenants.audit.log import SYSTEM, Actor, note
from tenants.events.event import DEFAULT_WEIGHTS, weights_of


class TenantNotFound(NotFound):
    """No tenant has that name or id, or it was deleted."""

    code = "tenant_not_found"
    title = "There is no such tenant"


class TenantNameTaken(Conflict):
    """Two tenants cannot have one name."""

    code = "tenant_name_taken"
    title = "The tenant's name is taken"


class AmbiguousTenant(Conflict):
    """Several tenants have that name, each of another organisation."""

    code = "ambiguous_tenant"
    title = "Several tenants have this name"


class InvalidTenant(Invalid):
    """The name or the currency of a new tenant cannot be used."""

    code = "invalid_tenant"
    title = "The tenant cannot be made"


class SpaceRef(Struct, frozen=True, kw_only=True):
    """A vector space as one tenant sees it: `mean` and `dev` are of the cosine of random pairs of its items."""

    space_id: int
    name: str
    dim: int
    mean: float
    dev: float


class Generation(Struct, frozen=True, kw_only=True):
    """The immutable set of spaces and models that answers come from.

    The text half of a fused row is of `text`, or of `ngrams` (the same size)
    where the text encoder does not cover the item's language.

    `behaviour_model` is the model that the rows learned from behaviour carry (None: nothing is learned yet),
    `neighbours_build` the build of the precomputed neighbours in content (None: every list is found live).
    `blend`: weight 0..1 of each source, as fitted on the shop's own shoppers; empty where nothing was fitted.
    """

    gen: int
    layout_id: int
    text: SpaceRef
    ngrams: SpaceRef
    image: SpaceRef
    text_weight: float
    image_weight: float
    behaviour_model: int | None = None
    neighbours_build: int | None = None
    blend: Mapping[str, float] = {}


class TenantRef(Struct, frozen=True, kw_only=True):
    """What the paths of one tenant need to know of it; dropped from caches by the change feed."""

    tenant_id: TenantId
    name: str
    shard: int
    currency: str
    generation: Generation
    plan: str = "free"
    event_weights: Mapping[str, float] = DEFAULT_WEIGHTS
    models: Mapping[int, Mapping[str, float]] = {}
    """The models of behaviour that can serve, each with the blend that was fitted with it."""


class TenantInfo(Struct, frozen=True, kw_only=True):
    """A tenant in a list."""

    tenant_id: TenantId
    name: str
    plan: str
    currency: str
    items: int
    created_at: datetime
    deleted_at: datetime | None


# Between letters of Persian or Hindi, and within emoji: names are written with them.
_JOINERS: Final = re.compile(r"(?<=[^\s\u200c\u200d])[\u200c\u200d](?=[^\s\u200c\u200d])")


def tidy_name(typed: str) -> str:
    """A name as it is kept: NFC, one plain space for whatever spaces were typed, none around it."""
    return " ".join(unicodedata.normalize("NFC", typed).split())


def check_name(name: str, currency: str, *, field: str = "name") -> None:
    """Whether a tenant may be called so, with prices in that currency. Raises InvalidTenant naming what may not be.

    `field`: what the name is called where it was given.
    """
    faults = []
    if not 1 <= len(name) <= 200 or not _JOINERS.sub("", name).isprintable() or name != name.strip():
        faults.append(
            FieldError(pointer=f"/{field}", code="invalid_value", message="A name has 1 to 200 printable characters.")
        )
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha() or not currency.isupper():
        faults.append(
            FieldError(pointer="/currency", code="invalid_value", message="A currency is an ISO 4217 code, as EUR.")
        )
    if faults:
        raise InvalidTenant(" ".join(fault.message for fault in faults), errors=faults)


async def create_tenant(
    database: Database, name: str, *, plan: str = "free", currency: str = "USD", actor: Actor = SYSTEM
) -> TenantId:
    """Make a tenant of no organisation, with an empty catalogue. Raises InvalidTenant, TenantNameTaken.

    It can store items and answer by words at once; a worker gives it its first generation within a second.
    """
    tenant_id = TenantId(uuid7())
    async with database.system_session(reason="create a tenant") as conn:
        await add_tenant(conn, tenant_id, name, plan=plan, currency=currency, actor=actor)
    return tenant_id


async def add_tenant(
    conn: AsyncConnection,
    tenant_id: TenantId,
    name: str,
    *,
    plan: str = "free",
    currency: str = "USD",
    org_id: UUID | None = None,
    actor: Actor = SYSTEM,
    network: bytes | None = None,
    request_id: str | None = None,
    now: datetime | None = None,
) -> None:
    """Make a tenant in the transaction of `conn`, a session of that tenant or of the system.

    `actor` is who, for the audit log, `network` (its keyed hash) and `request_id` from where. A name is of one tenant
    within its organisation. Raises InvalidTenant, TenantNameTaken.
    """
    check_name(name, currency)
    try:
        await conn.exec_driver_sql(
            "insert into tenants (tenant_id, name, plan, currency, org_id) values ($1, $2, $3, $4, $5)",
            (tenant_id, name, plan, currency, org_id),
        )
    except IntegrityError as error:
        raise TenantNameTaken(f"There is a tenant named {name!r} already; choose another name.") from error
    made_at: datetime = await (await driver(conn)).fetchval(
        "insert into tenant_counters (tenant_id) values ($1) returning clock_timestamp()", tenant_id
    )
    await note(
        conn,
        tenant_id,
        actor,
        "tenant.create",
        subject=name,
        details={"plan": plan, "currency": currency},
        network=network,
        request_id=request_id,
        now=now or made_at,
    )


_LIST: Final = """
select t.tenant_id, t.name, t.plan, t.currency, t.created_at, t.deleted_at,
    (select count(*) from items i where i.tenant_id = t.tenant_id) as items
from tenants t where {which} order by t.created_at, t.tenant_id
"""


async def list_tenants(database: Database) -> list[TenantInfo]:
    """All tenants that are not deleted, the oldest first."""
    async with database.system_session(reason="list tenants") as conn:
        records = await fetch(conn, _LIST.format(which="t.deleted_at is null"))
        return [TenantInfo(**dict(record)) for record in records]


async def find_tenant(database: Database, name_or_id: str) -> TenantInfo:
    """The tenant with that name or id. Raises TenantNotFound, AmbiguousTenant."""
    async with database.system_session(reason="find a tenant by name") as conn:
        which = "t.deleted_at is null and (t.name = $1 or t.tenant_id::text = $1)"
        records = await fetch(conn, _LIST.format(which=which), name_or_id)
        if not records:
            raise TenantNotFound(f"There is no tenant {name_or_id!r}; `kindred tenants list` shows them.")
        if len(records) > 1:
            ids = ", ".join(str(record["tenant_id"]) for record in records)
            raise AmbiguousTenant(f"{len(records)} tenants are named {name_or_id!r}; say the id of one: {ids}.")
        return TenantInfo(**dict(records[0]))


async def set_plan(database: Database, tenant_id: TenantId, plan: str, *, actor: Actor = SYSTEM) -> None:
    """Let another plan hold, in every API process within a second. Raises TenantNotFound.

    What a plan is, and which there are, is not known here (billing/plans.py).
    """
    async with database.system_session(reason="change a tenant's plan") as conn:
        now: datetime | None = await (await driver(conn)).fetchval(
            "update tenants set plan = $2 where tenant_id = $1 and deleted_at is null returning clock_timestamp()",
            tenant_id,
            plan,
        )
        if now is None:
            raise TenantNotFound("There is no such tenant, or it was deleted before.")
        await note(conn, tenant_id, actor, "tenant.plan", details={"plan": plan}, now=now)
        await record_change(conn, tenant_id, "tenant")


NGRAMS_PREFIX: Final = "char-ngrams-"
"""How the spaces are named that stand in where a text encoder does not cover a language."""

LOAD_TENANT: Final = f"""
select t.name, t.plan, t.shard, t.currency,
    g.gen, g.layout_id, g.calibration::text as calibration, g.weights::text as weights,
    (select jsonb_object_agg(m.model, coalesce(m.settings -> 'blend', '{{}}')) from behaviour_models m
        where m.tenant_id = $2::uuid and m.status = 'ready')::text as models,
    g.behaviour_model, g.neighbours_build, (t.settings -> 'event_weights')::text as event_weights,
    a.space_id as text_id, a.name as text_name, a.dim as text_dim,
    n.space_id as ngrams_id, n.name as ngrams_name, n.dim as ngrams_dim,
    b.space_id as image_id, b.name as image_name, b.dim as image_dim
from tenants t
left join generations g on g.tenant_id = $2::uuid and g.gen = t.active_gen
left join layouts l on l.layout_id = g.layout_id
left join spaces a on a.space_id = l.text_space
left join spaces b on b.space_id = l.image_space
left join lateral (
    select s.* from spaces s where s.kind = 'text' and s.dim = a.dim and s.name like '{NGRAMS_PREFIX}%'
        and g.calibration ? s.space_id::text order by s.space_id desc limit 1) n on true
where t.tenant_id = $2::uuid and t.deleted_at is null
"""
"""One row, in the form of `Database.fetch_scoped`."""

_NOTHING: Final = SpaceRef(space_id=0, name="none", dim=0, mean=0.0, dev=1.0)
NO_GENERATION: Final = Generation(
    gen=0,
    layout_id=0,
    text=msgspec.structs.replace(_NOTHING, dim=384),
    ngrams=msgspec.structs.replace(_NOTHING, dim=384),
    image=msgspec.structs.replace(_NOTHING, dim=256),
    text_weight=0.5,
    image_weight=0.5,
)
"""Of a tenant that no worker has seen yet: no vector is of it, so answers come from words and age alone."""


async def load_tenant(source: Database | AsyncConnection, tenant_id: TenantId) -> TenantRef:
    """The tenant and its active generation, by the hot pool or inside a session. Raises TenantNotFound."""
    if isinstance(source, Database):
        records: Any = await source.fetch_scoped(tenant_id, LOAD_TENANT)
    else:
        records = await fetch(source, LOAD_TENANT.replace("$2::uuid", "$1::uuid"), tenant_id)
    if not records:
        raise TenantNotFound("The tenant does not exist, or was deleted.")
    (record,) = records
    return TenantRef(
        tenant_id=tenant_id,
        name=record["name"],
        plan=record["plan"],
        shard=record["shard"],
        currency=record["currency"],
        generation=NO_GENERATION if record["layout_id"] is None else _generation(record),
        event_weights=weights_of(msgspec.json.decode(record["event_weights"] or b"{}")),
        models=msgspec.json.decode(record["models"] or b"{}", type=dict[int, dict[str, float]]),
    )


def _generation(record: Any) -> Generation:
    calibration: dict[str, Any] = msgspec.json.decode(record["calibration"])
    weights: dict[str, Any] = msgspec.json.decode(record["weights"])

    def space(half: str) -> SpaceRef:
        space_id = record[f"{half}_id"]
        mean, dev = calibration.get(str(space_id), (0.0, 1.0))
        return SpaceRef(space_id=space_id, name=record[f"{half}_name"], dim=record[f"{half}_dim"], mean=mean, dev=dev)

    text = space("text")
    return Generation(
        gen=record["gen"],
        layout_id=record["layout_id"],
        text=text,
        ngrams=text if record["ngrams_id"] is None else space("ngrams"),
        image=space("image"),
        text_weight=weights.get("text", 0.5),
        image_weight=weights.get("image", 0.5),
        behaviour_model=record["behaviour_model"],
        neighbours_build=record["neighbours_build"],
        blend=weights.get("blend", {}),
    )

"""Signing up: somebody asks for an account, proves the address, and has an account with a first shop.

Asking does the same whether there is an account or not: it hashes the password and stores what was asked for. The mail
says the rest, to whom the address belongs. An account that is never verified is forgotten with all it has, which is
that one row.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.ids import uuid7
from tenants.accounts.attempts import Knock
from tenants.accounts.email import hash_email
from tenants.accounts.organisations import add_organisation
from tenants.accounts.outbox import LIFE, About, queue_mail
from tenants.accounts.people import add_person
from tenants.accounts.sessions import SignedIn
from tenants.accounts.tokens import Token, spend_token
from tenants.audit.log import Actor, network_hash, note
from tenants.keys import SCOPES, KeyRequest, Kind, NewKey, Scope, create_key
from tenants.lifecycle import add_tenant

DEFAULT_SHOP: Final = "My shop"

ShopName = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)", examples=["Lumen Lamps"])
]


Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)", description="ISO 4217.")]


class Signup(Struct, frozen=True, kw_only=True):
    """What was asked for."""

    email: str
    password_hash: str
    shop_name: str
    currency: str
    browser_hash: bytes | None


class FirstKeys(Struct, frozen=True, kw_only=True):
    """A shop that was just made, with the only copies of its first two keys."""

    tenant_id: TenantId
    name: str
    secret: NewKey
    publishable: NewKey


class Welcome(Struct, frozen=True, kw_only=True):
    """An account that was just made."""

    signed_in: SignedIn
    shop: FirstKeys


def hash_browser(nonce: str) -> bytes:
    """What is stored of the browser that asked."""
    return hashlib.sha256(nonce.encode()).digest()


async def ask_for_account(
    conn: AsyncConnection,
    email: str,
    email_hash: bytes,
    password_hash: str,
    shop_name: str,
    *,
    currency: str,
    browser: str | None,
    now: datetime,
) -> None:
    """Note what somebody asks for, and the mail about it. `conn` may be anybody's."""
    signup_id = uuid7()
    await (await driver(conn)).execute(
        "insert into signups (signup_id, email, email_hash, password_hash, shop_name, currency, browser_hash, "
        "created_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        signup_id,
        email,
        email_hash,
        password_hash,
        shop_name,
        currency,
        None if browser is None else hash_browser(browser),
        now,
        now + LIFE["verify"],
    )
    await queue_mail(conn, "verify", email, now=now, about=About(signup_id=signup_id))


async def get_signup(conn: AsyncConnection, token: Token) -> Signup:
    """What the token's account was asked for; `conn` may be anybody's."""
    record = await (await driver(conn)).fetchrow("select * from find_signup($1)", token.token_hash)
    assert record is not None  # a token goes with its signup
    return Signup(**{name: record[name] for name in Signup.__struct_fields__})


async def shop_of_signup(conn: AsyncConnection, signup_id: UUID) -> str | None:
    """The name of the shop that was asked for; `conn` is a system session."""
    name: str | None = await (await driver(conn)).fetchval(
        "select shop_name from signups where signup_id = $1", signup_id
    )
    return name


def is_same_browser(signup: Signup, nonce: str) -> bool:
    """Whether the request comes from the browser that asked for the account.

    Else whoever opens the link chooses the password: the one that was sent along may be a stranger's, who signed up
    with an address that is not theirs and waits for its owner to confirm it.
    """
    return signup.browser_hash is not None and hmac.compare_digest(signup.browser_hash, hash_browser(nonce))


async def make_account(
    conn: AsyncConnection,
    token: Token,
    signup: Signup,
    password_hash: str,
    *,
    person_id: UUID,
    org_id: UUID,
    tenant_id: TenantId,
    secret: bytes,
    cell: str,
    now: datetime,
    knock: Knock,
) -> Welcome:
    """Spend the token and make the person, an organisation of theirs, and its first shop with keys.

    `conn` is a session of that person, in that organisation and tenant: three new ids. Raises LinkUsed, EmailTaken.
    """
    await spend_token(conn, token, now=now)
    # The hash of when they signed up may be of a secret that is forgotten by now.
    await add_person(conn, person_id, signup.email, hash_email(secret, signup.email), password_hash, now=now)
    await add_organisation(conn, org_id, signup.shop_name, person_id, now=now)
    shop = await make_shop(
        conn,
        org_id,
        tenant_id,
        signup.shop_name,
        currency=signup.currency,
        secret=secret,
        cell=cell,
        now=now,
        actor=Actor(kind="person", id=str(person_id)),
        knock=knock,
    )
    return Welcome(signed_in=SignedIn(person_id=person_id, method="signup", credentials=0), shop=shop)


async def make_shop(
    conn: AsyncConnection,
    org_id: UUID,
    tenant_id: TenantId,
    name: str,
    *,
    currency: str,
    secret: bytes,
    cell: str,
    now: datetime,
    actor: Actor,
    knock: Knock | None = None,
) -> FirstKeys:
    """Make a shop of an organisation, with a secret and a publishable key.

    `actor` is who, for the audit log, `knock` from where; None where nobody called. `conn` is a session in that
    organisation and tenant. Raises InvalidTenant, TenantNameTaken.
    """
    network = None if knock is None else network_hash(secret, knock.network)
    request_id = None if knock is None else knock.request_id
    await add_tenant(
        conn,
        tenant_id,
        name,
        currency=currency,
        org_id=org_id,
        actor=actor,
        network=network,
        request_id=request_id,
        now=now,
    )

    async def key(kind: Kind, scopes: Sequence[Scope] | None) -> NewKey:
        wanted = KeyRequest(kind=kind, name="first")
        made = await create_key(conn, tenant_id, wanted, secret=secret, cell=cell, now=now, scopes=scopes)
        await note(
            conn,
            tenant_id,
            actor,
            "key.create",
            subject=made.info.key_id,
            details={"kind": kind, "name": wanted.name, "scopes": made.info.scopes},
            network=network,
            request_id=request_id,
            now=now,
        )
        return made

    # As those of `kindred tenants create`: the first secret key may do everything.
    return FirstKeys(
        tenant_id=tenant_id, name=name, secret=await key("secret", SCOPES), publishable=await key("publishable", None)
    )

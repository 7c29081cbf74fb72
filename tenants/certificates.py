"""Certificates of erasure: what went when a tenant was erased, signed, and naming nobody.

The document says it in numbers: rows by table, files, bytes, times. Its signature is an HMAC-SHA256 (RFC 2104) under
the installation's secret, so only the installation that erased can say whether a certificate is its own and unchanged.
Those that are kept here follow when the secret is changed; a copy that was given out is known by the secret of its day.
"""

import hmac
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import Database, TenantId, driver
from infra.errors import Invalid, NotFound
from infra.secret import Secret, mark_of

FORMAT: Final = 1
_PURPOSE: Final = b"kindred erasure certificate\0"


class CertificateNotFound(NotFound):
    """No tenant of that id was erased here."""

    code = "certificate_not_found"
    title = "There is no such certificate"


class CertificateInvalid(Invalid):
    """The file is no certificate, was changed, or is of another installation."""

    code = "certificate_invalid"
    title = "The certificate does not hold"


class Erasure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a certificate says. `rows` by table; `files` and `bytes` of the object store."""

    format: int = FORMAT
    tenant_id: TenantId
    deleted_at: datetime
    began_at: datetime
    ended_at: datetime
    rows: dict[str, int]
    files: int
    bytes: int


_Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Certificate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`document`: an `Erasure` as JSON, byte for byte what was signed."""

    document: str
    sha256: _Hex
    signature: _Hex


def sign(erasure: Erasure, *, secret: bytes) -> Certificate:
    """The certificate of an erasure."""
    document = msgspec.json.encode(erasure, order="deterministic")
    return Certificate(
        document=document.decode(), sha256=sha256(document).hexdigest(), signature=_signature(document, secret)
    )


def verify(file: bytes, *, secrets: Sequence[bytes]) -> Erasure:
    """What a certificate says, if one of this installation's secrets has signed it. Raises CertificateInvalid."""
    try:
        certificate = msgspec.json.decode(file, type=Certificate)
        document = certificate.document.encode()
        if not any(hmac.compare_digest(certificate.signature, _signature(document, each)) for each in secrets):
            raise CertificateInvalid("The signature is not of this installation's secret, or the text was changed.")
        if not hmac.compare_digest(certificate.sha256, sha256(document).hexdigest()):
            raise CertificateInvalid("The sha256 is not that of the document.")
        return msgspec.json.decode(document, type=Erasure)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CertificateInvalid("The file is not a certificate of erasure.") from error


def _signature(document: bytes, secret: bytes) -> str:
    return hmac.digest(secret, _PURPOSE + document, "sha256").hex()


async def open_certificate(raw: Any, tenant_id: TenantId, *, now: datetime) -> None:
    """Begin to count; one that was begun goes on. `raw` is of the system role, as everywhere below."""
    await raw.execute(
        "insert into erasure_certificates (tenant_id, deleted_at, began_at) select tenant_id, deleted_at, $2 "
        "from tenants where tenant_id = $1 on conflict do nothing",
        tenant_id,
        now,
    )


async def count_rows(raw: Any, tenant_id: TenantId, table: str, rows: int) -> None:
    """Note rows that went, in the transaction in which they go."""
    await raw.execute(
        "update erasure_certificates set counts = counts || jsonb_build_object($2::text, "
        "coalesce((counts ->> $2)::int8, 0) + $3::int8) where tenant_id = $1",
        tenant_id,
        table,
        rows,
    )


async def count_files(raw: Any, tenant_id: TenantId, files: int, size: int) -> None:
    """Note files that have gone."""
    await raw.execute(
        "update erasure_certificates set files = files + $2, bytes = bytes + $3 where tenant_id = $1",
        tenant_id,
        files,
        size,
    )


async def close_certificate(raw: Any, tenant_id: TenantId, *, now: datetime, secret: bytes) -> None:
    """Sign what was counted; nothing where no certificate was begun."""
    record = await raw.fetchrow(
        "select deleted_at, began_at, counts::text as counts, files, bytes from erasure_certificates "
        "where tenant_id = $1 and document is null for update",
        tenant_id,
    )
    if record is None:
        return
    erasure = Erasure(
        tenant_id=tenant_id,
        deleted_at=record["deleted_at"],
        began_at=record["began_at"],
        ended_at=now,
        rows=msgspec.json.decode(record["counts"], type=dict[str, int]),
        files=record["files"],
        bytes=record["bytes"],
    )
    certificate = sign(erasure, secret=secret)
    await raw.execute(
        "update erasure_certificates set document = $2, signature = $3 where tenant_id = $1",
        tenant_id,
        certificate.document,
        bytes.fromhex(certificate.signature),
    )


async def count_certificates(system: AsyncConnection, secret: Secret) -> Counter[str]:
    """Certificates by the mark of the secret that they are signed under; "unknown" for none that is believed."""
    return Counter("unknown" if under is None else mark_of(under) for _, _, under in await _signed(system, secret))


async def resign_certificates(system: AsyncConnection, secret: Secret) -> int:
    """Have every certificate signed under the current secret; how many were not. One that was changed stays so."""
    anew = [
        (tenant_id, bytes.fromhex(_signature(document, secret.current)))
        for tenant_id, document, under in await _signed(system, secret)
        if under is not None and under != secret.current
    ]
    await (await driver(system)).executemany(
        "update erasure_certificates set signature = $2 where tenant_id = $1", anew
    )
    return len(anew)


async def _signed(system: AsyncConnection, secret: Secret) -> list[tuple[UUID, bytes, bytes | None]]:
    """Tenant and document of every certificate, and the secret that it is signed under."""
    found = []
    for record in await (await driver(system)).fetch(
        "select tenant_id, document, signature from erasure_certificates where document is not null order by tenant_id"
    ):
        document, signature = record["document"].encode(), record["signature"].hex()
        under = (each for each in secret.every if hmac.compare_digest(signature, _signature(document, each)))
        found.append((record["tenant_id"], document, next(under, None)))
    return found


async def get_certificate(database: Database, tenant_id: TenantId) -> Certificate:
    """The certificate of a tenant that was erased. Raises CertificateNotFound."""
    async with database.system_session(reason="read a certificate of erasure") as conn:
        return await _read(conn, tenant_id)


async def _read(conn: AsyncConnection, tenant_id: TenantId) -> Certificate:
    record = await (await driver(conn)).fetchrow(
        "select document, signature from erasure_certificates where tenant_id = $1 and document is not null", tenant_id
    )
    if record is None:
        raise CertificateNotFound(f"No tenant {tenant_id} was erased here, or its erasure has not ended.")
    document: str = record["document"]
    return Certificate(
        document=document, sha256=sha256(document.encode()).hexdigest(), signature=record["signature"].hex()
    )

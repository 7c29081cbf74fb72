"""Requests that are sent again: an Idempotency-Key, and the answer that the first request with it was given.

The row is written in the transaction of the request's effect (DECISIONS 19). It says nothing in clear: the key is a
keyed hash, so is the body, and the answer is encrypted with a key that the Idempotency-Key itself is part of. Whoever
reads the database finds no shopper and no secret in it, and an erasure need not look here.
"""

import asyncio
import hmac
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.crypt import BadSeal, seal, unseal
from infra.db import Database, TenantId, driver
from infra.errors import Conflict, Invalid

KEPT: Final = timedelta(hours=24)

MAX_ANSWER: Final = 65_536
"""Bytes of an answer as it is kept: compressed, and encrypted."""

_AT_ONCE: Final = 5000


class RequestRunning(Conflict):
    """A request with this Idempotency-Key is being carried out at this moment; its answer will be kept."""

    code = "request_running"
    title = "The first request is still running"
    retry_s = 1


class KeyReused(Invalid):
    """The Idempotency-Key was used within 24 hours for another request: another address, or another body."""

    code = "idempotency_key_reused"
    title = "The Idempotency-Key is of another request"


class KeptAnswer(Struct, frozen=True, kw_only=True):
    """What a request was answered. `shortened`: the `results` of a long bulk answer were not kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    shortened: bool = False


class Attempt(Struct, frozen=True, kw_only=True):
    """One request that may have been sent before: keyed hashes of whose it is and of what it says, and the key that its
    answer is encrypted with."""

    request: bytes
    fingerprint: bytes
    answer_key: bytes


def make_attempt(secret: bytes, tenant_id: TenantId, *, key_id: str, key: str, content: bytes) -> Attempt:
    """The attempt of a request with the API key `key_id`, the Idempotency-Key `key` and this digest of its content.

    HMAC-SHA256 under the installation's secret; one API key's requests are never another's.
    """
    whose = _whose(tenant_id, key_id, key)
    return Attempt(
        request=hmac.digest(secret, b"idempotency request " + whose, "sha256"),
        fingerprint=hmac.digest(secret, b"idempotency content " + tenant_id.bytes + content, "sha256"),
        answer_key=hmac.digest(secret, b"idempotency answer " + whose, "sha256"),
    )


def make_mark(secret: bytes, tenant_id: TenantId, *, key_id: str, key: str, content: bytes) -> str:
    """The same for every repeat of a request of which nothing is kept, and for no other request; hexadecimal."""
    whose = _whose(tenant_id, key_id, key)
    return hmac.digest(secret, b"idempotency mark " + whose + b"\0" + content, "sha256")[:16].hex()


def _whose(tenant_id: TenantId, key_id: str, key: str) -> bytes:
    return tenant_id.bytes + key_id.encode() + b"\0" + key.encode()


# Not one statement: its snapshot would be older than the lock, and miss what was committed in between.
_LOCK: Final = "select pg_try_advisory_xact_lock($1)"
_FIND: Final = "select fingerprint, answer, created_at from idempotency where tenant_id = $1 and request = $2"


async def begin(
    conn: AsyncConnection, tenant_id: TenantId, attempt: Attempt, *, now: datetime, others: Sequence[Attempt] = ()
) -> KeptAnswer | None:
    """What the first request was answered; None where this is the first. Raises RequestRunning, KeyReused.

    Until the transaction ends every other attempt is refused. The first thing to be done in it. `others`: the same
    attempt under other secrets that are believed, by which the first may be known.
    """
    raw = await driver(conn)
    if not await raw.fetchval(_LOCK, int.from_bytes(attempt.request[:8], signed=True)):
        raise RequestRunning("A request with this Idempotency-Key is being carried out. Send it again in a second.")
    for each in (attempt, *others):
        record = await raw.fetchrow(_FIND, tenant_id, each.request)
        if record is None:
            continue
        if record["created_at"] <= now - KEPT:
            await raw.execute("delete from idempotency where tenant_id = $1 and request = $2", tenant_id, each.request)
            continue
        if not hmac.compare_digest(record["fingerprint"], each.fingerprint):
            raise KeyReused(
                "This Idempotency-Key was used for another request, or the same one with another body. Nothing was "
                "done. Make a new key for each new request, and send a repeat exactly as the first was sent."
            )
        return _open(each, record["answer"])
    return None


async def keep(
    conn: AsyncConnection, tenant_id: TenantId, attempt: Attempt, answer: KeptAnswer, *, now: datetime
) -> None:
    """Keep the answer, committed with the effect. One that is too long is kept without its `results`.

    The primary key refuses a second row, whatever became of the lock: then nothing of this transaction is committed.
    """
    # What a bulk call answers may take longer to compress than others should wait.
    sealed = (
        await asyncio.to_thread(_close, attempt, answer) if len(answer.body) > MAX_ANSWER else _close(attempt, answer)
    )
    if len(sealed) > MAX_ANSWER:
        sealed = _close(attempt, _shortened(answer))
    await (await driver(conn)).execute(
        "insert into idempotency (tenant_id, request, fingerprint, answer, created_at) values ($1, $2, $3, $4, $5)",
        tenant_id,
        attempt.request,
        attempt.fingerprint,
        sealed,
        now,
    )


def _shortened(answer: KeptAnswer) -> KeptAnswer:
    """The answer without its rows. All that are so long are of the bulk form: the sums stay."""
    plain: Any = msgspec.json.decode(answer.body)
    body = msgspec.json.encode({**plain, "results": []} if isinstance(plain, dict) else None)
    return msgspec.structs.replace(answer, body=body, shortened=True)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(KeptAnswer).decode


def _close(attempt: Attempt, answer: KeptAnswer) -> bytes:
    return seal(attempt.answer_key, zlib.compress(_encode(answer), 6), about=attempt.request + attempt.fingerprint)


def _open(attempt: Attempt, sealed: bytes) -> KeptAnswer:
    try:
        plain = unseal(attempt.answer_key, sealed, about=attempt.request + attempt.fingerprint)
    except BadSeal as error:
        # Somebody has changed the row: what it answered is not known, and must not be done again.
        raise RuntimeError("the kept answer of a request was changed in the database") from error
    return _decode(zlib.decompress(plain))


async def forget_old(database: Database, now: datetime) -> int:
    """Delete the rows that are older than `KEPT`, in steps; how many."""
    forgotten = 0
    while True:
        async with database.system_session(reason="requests whose time is over") as conn:
            done: str = await (await driver(conn)).execute(
                # Of any tenant: here alone no statement names one.
                "delete from idempotency where ctid = any(array("
                "select i.ctid from idempotency i where i.created_at <= $1 limit $2))",
                now - KEPT,
                _AT_ONCE,
            )
        count = int(done.rpartition(" ")[2])
        forgotten += count
        if count < _AT_ONCE:
            return forgotten

"""Identifiers that we create: UUIDv7 (RFC 9562), made here because PostgreSQL 16 has no `uuidv7()`."""

import os
import re
import time
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

_SANE: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._\-]{7,63}")


def uuid7() -> UUID:
    """A UUID that sorts by its millisecond; 74 bits of it are random."""
    return UUID(int=_value7())


def _value7() -> int:
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random >> 68) << 64
    return value | 0b10 << 62 | random & (1 << 62) - 1


def moment_of(made: UUID) -> datetime | None:
    """When an id was made: the milliseconds in front of a UUIDv7 (RFC 9562); None for any other UUID."""
    if made.version != 7:
        return None
    return datetime.fromtimestamp((made.int >> 80) / 1000, tz=UTC)


def request_id(given: bytes) -> str:
    """The name of an exchange: the one that the client gave it, if that is a sane one, else a new one."""
    if given and _SANE.fullmatch(given):
        return given.decode()
    # A third of what an object of UUID and its text cost: every request needs one.
    digits = f"{_value7():032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

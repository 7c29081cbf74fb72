"""Passwords: which are taken, how they are hashed, and how much of the process that may cost.

Argon2id with the parameters of the OWASP Password Storage Cheat Sheet (19 MiB, two passes, one lane): some 30 ms of one
core. Two are computed at a time, in threads, and few wait: a crowd at the door must not starve those inside.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Meta

from infra.errors import FieldError, Invalid, Overloaded

MIN_LENGTH: Final = 10
MAX_LENGTH: Final = 256

Password = Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH)]
"""As it was typed; any characters."""

_AT_ONCE: Final = 2
_WAITING: Final = 32
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_T = TypeVar("_T")


class WeakPassword(Invalid):
    """The password is too short or among those that everybody tries first."""

    code = "weak_password"
    title = "Choose another password"


class PasswordsBusy(Overloaded):
    """More people sign in at this moment than can be checked."""

    code = "passwords_busy"
    title = "Too many people sign in just now"


@cache
def _common() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text().split())


def check_password(password: str, *, email: str = "") -> None:
    """Raises WeakPassword, which says what would be better."""
    plain = password.casefold()
    if len(password) < MIN_LENGTH:
        said = f"A password has at least {MIN_LENGTH} characters; a few words in a row are easy to remember."
    elif len(password) > MAX_LENGTH:
        said = f"A password has at most {MAX_LENGTH} characters."
    elif plain in _common() or len(set(plain)) < 4:
        said = "This is one of the passwords that everybody tries first; a few words in a row are better."
    elif email and plain in (email.casefold(), email.casefold().partition("@")[0]):
        said = "The password must not be the e-mail address."
    else:
        return
    raise WeakPassword(said, errors=[FieldError(pointer="/password", code="weak_password", message=said)])


class Passwords:
    """Hashes and checks passwords, a few at a time. One per process."""

    def __init__(self, hasher: PasswordHasher = _HASHER) -> None:
        self._hasher = hasher
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        # What is checked where there is no account: so long that nobody guesses it, and as slow as any other.
        self._nobody = hasher.hash("nobody has this password: " + hasher.hash("x"))

    async def hash(self, password: str) -> str:
        """What is stored of a password. Raises PasswordsBusy."""
        return await self._run(lambda: self._hasher.hash(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether this is the password; without a stored one, no, after the same work. Raises PasswordsBusy."""

        def check() -> bool:
            try:
                return self._hasher.verify(stored or self._nobody, password) and stored is not None
            except (VerificationError, InvalidHashError):
                return False

        return await self._run(check)

    def is_stale(self, stored: str) -> bool:
        """Whether it was hashed with other parameters than today's, and should be hashed anew."""
        return self._hasher.check_needs_rehash(stored)

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= _WAITING:
            raise PasswordsBusy("Try again in a few seconds.")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1

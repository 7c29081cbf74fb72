"""Passwords: which are taken, what is stored, and that a crowd at the door starves nobody."""

import asyncio
import threading

import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from hypothesis import given
from hypothesis import strategies as st

from tenants.accounts import passwords
from tenants.accounts.passwords import MAX_LENGTH, MIN_LENGTH, Passwords, PasswordsBusy, WeakPassword, check_password

pytestmark = pytest.mark.anyio

CHEAP = PasswordHasher.from_parameters(CHEAPEST)


@pytest.mark.parametrize(
    "password",
    ["", "short", "x" * (MIN_LENGTH - 1), "x" * (MAX_LENGTH + 1), "aaaaaaaaaaaa", "abababababab", "Password123",
     "QWERTYUIOP", "1234567890", "ada.lovelace", "Ada.Lovelace@shop.example", "kindredkindred"],
)  # fmt: skip
def test_what_everybody_tries_first_is_refused(password: str) -> None:
    """Too short, too long, of few letters, on the list, or the address itself."""
    with pytest.raises(WeakPassword):
        check_password(password, email="ada.lovelace@shop.example")


@pytest.mark.parametrize(
    "password", ["three words and more", "пароль из трёх слов", "🐎🔋📎✅🐎🔋📎✅🐎🔋", " " * 5 + "spaces"]
)
def test_everything_else_is_taken(password: str) -> None:
    """Letters of any script, spaces, signs."""
    check_password(password, email="ada@shop.example")


def test_every_common_password_could_be_chosen() -> None:
    """One that is too short anyhow has no place on the list, and case makes no difference."""
    for each in passwords._common():
        assert len(each) >= MIN_LENGTH, each
        assert each == each.casefold(), each


def test_the_parameters_are_owasps() -> None:
    """Argon2id, 19 MiB, two passes, one lane; a random salt."""
    stored = passwords._HASHER.hash("three words and more")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert stored != passwords._HASHER.hash("three words and more")


async def test_a_password_matches_itself_alone() -> None:
    """And nothing matches where nothing is stored."""
    checker = Passwords(CHEAP)
    stored = await checker.hash("three words and more")
    assert await checker.matches(stored, "three words and more")
    assert not await checker.matches(stored, "three words and mor")
    assert not await checker.matches(None, "three words and more")
    assert not await checker.matches("no hash at all", "three words and more")
    assert checker.is_stale(passwords._HASHER.hash("x"))
    assert not checker.is_stale(stored)


@given(st.text(min_size=1, max_size=MAX_LENGTH))
def test_any_text_is_a_password(password: str) -> None:
    """As bytes of UTF-8; what cannot be encoded never comes from JSON or a form."""
    try:
        password.encode()
    except UnicodeEncodeError:
        return
    assert CHEAP.verify(CHEAP.hash(password), password)


async def test_a_crowd_waits_in_a_short_queue() -> None:
    """Two are computed at a time; beyond those that wait, one is told to come again."""
    gate, lock = threading.Event(), threading.Lock()
    running: list[int] = []
    most = 0

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            nonlocal most
            with lock:
                running.append(1)
                most = max(most, len(running))
            gate.wait(30)
            with lock:
                running.pop()
            return super().hash(password, salt=salt)

    gate.set()
    checker = Passwords(Slow.from_parameters(CHEAPEST))
    gate.clear()
    tasks = [asyncio.create_task(checker.hash("x")) for _ in range(40)]
    refused = 0
    while refused < 8:
        await asyncio.sleep(0)
        refused = sum(task.done() for task in tasks)
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, PasswordsBusy) for each in results) == 8
    assert sum(isinstance(each, str) for each in results) == 32
    assert most == 2
    assert await checker.hash("x")

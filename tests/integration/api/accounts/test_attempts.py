"""How often one may knock, what it costs beyond that, and when it is refused."""

import asyncio
from contextlib import suppress

import asyncpg
import httpx
import pytest

from infra.db import Database
from infra.secret import Secret
from tenants.accounts.attempts import LIMITS, Attempts, Deed, ProofNeeded, TooManyAttempts
from tenants.accounts.proof import BadProof, Challenge, make_challenge, solve
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, new_address

pytestmark = pytest.mark.anyio

SECRET = Secret(current=b"s" * 32)


def _away() -> None:
    raise asyncpg.CannotConnectNowError("away")


async def _sign_up(browser: Browser, **more: str) -> httpx.Response:
    body = {"email": new_address(), "password": PASSWORD, **more}
    return await browser.http.post("/v1/signup", json=body)


def _challenge(answer: httpx.Response) -> Challenge:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "proof_needed")
    bits = int(problem["detail"].partition(" begins with ")[2].partition(" zero bits")[0])
    (fault,) = problem["errors"]
    assert fault["pointer"] == "/proof"
    return Challenge(challenge=fault["message"], bits=bits)


def _shown_challenge(page: httpx.Response) -> Challenge:
    found = page.text.partition('data-challenge="')[2]
    return Challenge(challenge=found.partition('"')[0], bits=int(found.partition('data-bits="')[2].partition('"')[0]))


async def test_a_busy_network_pays_and_others_do_not(office: Office) -> None:
    """What people do is free; then an attempt costs a proof, which works once; another network is not affected."""
    browser = office.browser("203.0.113.7")
    for _ in range(LIMITS["signup"]["network"].free):
        assert (await _sign_up(browser)).status_code == 202
    neighbour = office.browser("203.0.113.200")
    proof = solve(_challenge(await _sign_up(neighbour)))
    assert (await _sign_up(neighbour, proof=proof)).status_code == 202
    again = await _sign_up(neighbour, proof=proof)
    assert (again.status_code, again.json()["code"]) == (422, "bad_proof")
    assert (await _sign_up(office.browser("203.0.114.7"))).status_code == 202
    office.clock.advance(3600)
    assert (await _sign_up(browser)).status_code == 202


async def test_the_page_hands_out_the_challenge(office: Office) -> None:
    """With a script that solves it; the address that was typed stays."""
    browser = office.browser()
    for _ in range(LIMITS["signup"]["network"].free):
        await _sign_up(browser)
    email = new_address()
    shown = await browser.send("/signup", email=email, password=PASSWORD)
    assert shown.status_code == 429
    assert email in shown.text
    assert "/console/assets/proof.js" in shown.text
    proof = solve(_shown_challenge(shown))
    sent = await browser.send("/signup", email=email, password=PASSWORD, proof=proof)
    assert sent.status_code == 200


async def test_the_hint_names_the_password_where_the_form_has_one(office: Office) -> None:
    """To sign in it is typed again; the form for a forgotten one has none, and is sent once more as it is."""
    email = new_address()
    for path, fields, deed, asks in (
        ("/signin", {"password": "not the password"}, LIMITS["sign_in"], True),
        ("/forgot", {}, LIMITS["mail"], False),
    ):
        for _ in range(deed["address"].free + 1):
            shown = await office.browser().send(path, email=email, **fields)
        assert shown.status_code == 429
        assert ("type your password again" in shown.text, "send the form once more" in shown.text) == (asks, not asks)


async def test_a_change_of_address_can_be_paid_for(office: Office) -> None:
    """The form asks for the password and for a mail; one proof pays for both."""
    _, browser = await office.account()
    fields = {"email": new_address(), "email_password": PASSWORD}
    for _ in range(LIMITS["change_email"]["address"].free):
        assert (await browser.send("/console/account", "/console/account/email", **fields)).status_code == 200
    shown = await browser.send("/console/account", "/console/account/email", **fields)
    assert shown.status_code == 429
    proof = solve(_shown_challenge(shown))
    paid = await browser.send("/console/account", "/console/account/email", proof=proof, **fields)
    assert paid.status_code == 200
    own = await browser.send("/console/account", "/console/account/email", **{**fields, "email_password": "not mine"})
    assert own.status_code == 429


async def test_guessing_at_one_account_gets_dear_from_anywhere(office: Office) -> None:
    """Its owner, who guesses not, can always have a link mailed."""
    email, _ = await office.account()
    for _ in range(LIMITS["sign_in"]["address"].free):
        shown = await office.browser().send("/signin", email=email, password="not the password")
        assert shown.status_code == 401
    for password in ("not the password", PASSWORD):
        shown = await office.browser().send("/signin", email=email, password=password)
        assert (shown.status_code, "data-challenge" in shown.text) == (429, True)
    sent = await office.browser().send("/signin", "/signin/mail", email=email)
    assert sent.status_code == 200


async def test_a_mailbox_is_not_flooded(office: Office) -> None:
    """Whoever asks, and whether there is an account or not."""
    for email in ((await office.account())[0], new_address()):
        statuses = [
            (await office.browser().send("/forgot", email=email)).status_code
            for _ in range(LIMITS["mail"]["address"].free + 1)
        ]
        assert statuses == [200, 200, 200, 200, 429]


async def test_far_beyond_it_is_refused(database: Database, clock: FrozenClock) -> None:
    """Even with proofs; a second's difficulty doubles with the excess."""
    attempts = Attempts(database, secret=SECRET)
    limit = LIMITS["link"]["network"]
    bits = []
    for count in range(1, limit.most + 1):
        try:
            await attempts.admit("link", network="far beyond", now=clock())
        except ProofNeeded as error:
            bits.append(error.challenge.bits)
        assert (count > limit.free) == bool(bits)
    assert bits == sorted(bits)
    assert (bits[0], bits[-1]) == (16, 18)
    challenge = make_challenge(SECRET.current, "link", 4, now=clock())
    with pytest.raises(TooManyAttempts):
        await attempts.admit("link", network="far beyond", now=clock(), proof=solve(challenge))


async def _knocks(attempts: Attempts, deed: Deed, address: bytes, network: str, clock: FrozenClock, times: int) -> None:
    for _ in range(times):
        with suppress(ProofNeeded, TooManyAttempts):
            await attempts.admit(deed, address, network=network, now=clock())


async def _pay(attempts: Attempts, deed: Deed, address: bytes, network: str, clock: FrozenClock) -> None:
    """As a browser does: without a proof, then with the one that is asked for."""
    with pytest.raises(ProofNeeded) as needed:
        await attempts.admit(deed, address, network=network, now=clock())
    proof = solve(needed.value.challenge)
    await attempts.admit(deed, address, network=network, now=clock(), proof=proof)


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("deed", ["sign_in", "mail"])
async def test_nobody_is_shut_out_by_attempts_that_cost_nothing(
    database: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, deed: Deed, away: bool
) -> None:
    """However many a stranger makes at an address, its owner comes in elsewhere, for a proof of the next attempt."""
    if away:
        monkeypatch.setattr(database, "anonymous_session", _away)
    attempts = Attempts(database, secret=SECRET)
    address = f"{deed} {away}".encode()
    times = LIMITS[deed]["address"].most + LIMITS[deed]["network"].free + 1
    await _knocks(attempts, deed, address, f"thief {deed}", clock, times)
    with pytest.raises(ProofNeeded) as needed:
        await attempts.admit(deed, address, network=f"owner {deed}", now=clock())
    limit = LIMITS[deed]["address"].divided(4 if away else 1)
    assert needed.value.challenge.bits == limit.price(limit.free + 1)
    await _pay(attempts, deed, address, f"owner {deed}", clock)


async def test_a_refused_network_makes_nothing_dearer_for_others(database: Database, clock: FrozenClock) -> None:
    """What one network is refused counts for no address, and not for everybody."""
    attempts = Attempts(database, secret=Secret(current=b"of this one" * 3))
    limit = LIMITS["signup"]["everybody"]
    for number in range(limit.free + 1):
        await _knocks(attempts, "signup", b"%d" % number, "crowd", clock, 1)
    await attempts.admit("signup", b"somebody", network="another", now=clock())


async def test_no_two_attempts_take_one_place(database: Database, clock: FrozenClock) -> None:
    """However many come at once, those that are let in for nothing are as many as are free."""
    attempts = Attempts(database, secret=SECRET)

    async def one(number: int) -> bool:
        try:
            await attempts.admit("mail", b"at once", network=f"at once {number}", now=clock())
        except ProofNeeded:
            return False
        return True

    let_in = await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(let_in) == LIMITS["mail"]["address"].free


async def test_everybody_together_makes_it_dearer_for_all(
    database: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the whole installation signs up unusually often, from however many networks."""
    monkeypatch.setitem(LIMITS, "signup", {"everybody": LIMITS["link"]["network"]})  # type: ignore[arg-type]
    attempts = Attempts(database, secret=Secret(current=b"of this test" * 3))
    for number in range(LIMITS["link"]["network"].free):
        await attempts.admit("signup", network=f"network {number}", now=clock())
    with pytest.raises(ProofNeeded):
        await attempts.admit("signup", network="a new one", now=clock())


@pytest.mark.parametrize("mend", ["deed", "late", "unsolved", "forged"])
async def test_a_proof_of_something_else_is_refused(database: Database, clock: FrozenClock, mend: str) -> None:
    """For another door, too late, not solved, or of no challenge of ours."""
    attempts = Attempts(database, secret=SECRET)
    deed = "link" if mend == "deed" else "sign_in"
    challenge = make_challenge(SECRET.current if mend != "forged" else b"other" * 8, deed, 12, now=clock())
    proof = solve(challenge)
    if mend == "unsolved":
        proof = next(f"{challenge.challenge}:{n}" for n in range(9) if f"{challenge.challenge}:{n}" != proof)
    if mend == "late":
        clock.advance(600)
    with pytest.raises(BadProof):
        await attempts.admit("sign_in", network=mend, now=clock(), proof=proof)


async def test_without_the_database_each_process_counts_and_takes_less(
    database: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails closed: a quarter for nothing, a quarter of the most; and remembers a bounded number of networks."""

    monkeypatch.setattr(database, "anonymous_session", _away)
    attempts = Attempts(database, secret=SECRET)
    limit = LIMITS["sign_in"]["network"]
    outcomes = []
    for _ in range(limit.most // 4 + 1):
        try:
            await attempts.admit("sign_in", network="local", now=clock())
            outcomes.append("admitted")
        except ProofNeeded:
            outcomes.append("proof")
        except TooManyAttempts:
            outcomes.append("refused")
    assert outcomes == ["admitted"] * 7 + ["proof"] * 118 + ["refused"]
    for number in range(10_100):
        await attempts.admit("link", network=str(number), now=clock())
    assert len(attempts._local) <= 10_002

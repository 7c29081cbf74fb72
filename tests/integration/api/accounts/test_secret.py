"""People sign in while the installation's secret is changed, and are found under the new one at its end."""

import pytest

from api.sessions import Sessions
from infra.db import driver
from infra.secret import Secret, mark_of
from tenants.accounts.attempts import Knock
from tenants.accounts.doors import Doors
from tenants.accounts.people import SignInFailed, count_emails, rehash_emails
from tenants.accounts.proof import check_proof, make_challenge, solve
from tests.integration.api.accounts.conftest import PASSWORD, Office, new_address, token_of

pytestmark = pytest.mark.anyio

NEW = Secret(current=b"n" * 32)


def _doors(office: Office, secret: Secret) -> Doors:
    return Doors(office.database, secret=secret, cell="00", signup="open", clock=office.clock)


async def test_people_are_found_under_both_and_then_under_the_new_one(office: Office) -> None:
    """Who signed up under the old secret signs in under both, and, once the worker was there, under the new alone."""
    email, _ = await office.account()
    old = office.app.services.secret
    changing = Secret(current=NEW.current, others=old.every)
    knock = Knock(network="198.51.100.0/24")
    person = await _doors(office, changing).sign_in(email, PASSWORD, knock)
    with pytest.raises(SignInFailed):
        await _doors(office, NEW).sign_in(email, PASSWORD, knock)
    async with office.database.system_session(reason="test") as system:
        assert (await count_emails(system, changing))[mark_of(old.current)] >= 1
        assert await rehash_emails(system, NEW.current) >= 1
        assert await rehash_emails(system, NEW.current) == 0
        assert (await count_emails(system, changing)).keys() == {mark_of(NEW.current)}
    try:
        assert await _doors(office, NEW).sign_in(email, PASSWORD, knock) == person
        # The one that still signs with the old secret believes the new one by now.
        waiting = Secret(current=old.current, others=NEW.every)
        assert await _doors(office, waiting).sign_in(email, PASSWORD, knock) == person
    finally:
        async with office.database.system_session(reason="as the other tests know it") as system:
            await rehash_emails(system, old.current)


async def test_an_address_in_other_letters_is_found_in_the_form_of_now(office: Office) -> None:
    """A domain was kept as it was typed before: changing the secret mends the address too."""
    name = new_address().partition("@")[0]
    email, _ = await office.account(f"{name}@xn--strae-oqa.example")
    old, knock = office.app.services.secret, Knock(network="198.51.100.0/24")
    async with office.database.system_session(reason="as an earlier version kept it") as system:
        await (await driver(system)).execute(
            "update people set email = $2, email_hash = $3 where email = $1", email, f"{name}@straße.example", b"old"
        )
    with pytest.raises(SignInFailed):
        await _doors(office, old).sign_in(f"{name}@straße.example", PASSWORD, knock)
    async with office.database.system_session(reason="test") as system:
        assert await rehash_emails(system, old.current) >= 1
        assert (await count_emails(system, old)).keys() == {mark_of(old.current)}
    await _doors(office, old).sign_in(f"{name}@Straße.example", PASSWORD, knock)


async def test_who_signed_up_under_a_forgotten_secret_is_found(office: Office) -> None:
    """The link is good for a day, and what it makes is of the secret of now."""
    email, browser = new_address(), office.browser()
    await browser.send("/signup", email=email, password=PASSWORD)
    link = await office.link(email)
    old, knock = office.app.services.secret, Knock(network="198.51.100.0/24")
    try:
        welcome = await _doors(office, NEW).verify(token_of(link), knock, password=PASSWORD, browser=None)
        assert (await _doors(office, NEW).sign_in(email, PASSWORD, knock)).person_id == welcome.signed_in.person_id
    finally:
        async with office.database.system_session(reason="as the other tests know it") as system:
            await rehash_emails(system, old.current)


async def test_forms_and_proofs_of_before_are_taken(office: Office) -> None:
    """A page that was open, and a challenge that was being worked on, when the secret was changed."""
    sessions = office.app.services.sessions
    old = office.app.services.secret
    assert sessions.is_form_token("session:1", sessions.form_token("session:1"))
    assert not sessions.is_form_token("session:2", sessions.form_token("session:1"))
    assert not sessions.is_form_token("session:1", "")
    changing = Secret(current=NEW.current, others=old.every)
    later = Sessions(office.database, secret=changing, origin="http://kindred", clock=office.clock)
    assert later.is_form_token("session:1", sessions.form_token("session:1"))
    assert later.form_token("session:1") != sessions.form_token("session:1")
    proof = solve(make_challenge(old.current, "sign_in", 1, now=office.clock()))
    assert check_proof(changing, proof, "sign_in", now=office.clock()).bits == 1
    with pytest.raises(Exception, match="as it was given"):
        check_proof(NEW, proof, "sign_in", now=office.clock())

"""Signing in with an OpenID Connect provider: a real one on loopback, honest and not."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from joserfc.jwk import RSAKey

from infra.db import driver
from infra.settings import Settings
from tenants.accounts.email import hash_email, normalise
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, heading, running
from tests.integration.api.accounts.provider import CLIENT_ID, CLIENT_SECRET, Claims, Provider, serving
from tests.integration.api.conftest import SECRET

pytestmark = pytest.mark.anyio


@pytest.fixture
def provider(clock: FrozenClock) -> Iterator[Provider]:
    """A provider that vouches for Ada, of a domain of this test."""
    with serving(Provider(clock, f"{token_hex(6)}.example")) as made:
        yield made


@pytest.fixture
def settings(provider: Provider, database_url: str, tmp_path: Path) -> Settings:
    """An installation whose people of that domain sign in with the provider."""
    return Settings(
        data_dir=tmp_path,
        secret_key=SECRET,
        database_url=database_url,
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="Corp",
        oidc_domains=frozenset({provider.domain}),
    )


@pytest.fixture
async def corp(settings: Settings, clock: FrozenClock, anyio_backend: str) -> AsyncIterator[Office]:
    """That installation, running."""
    async with running(settings, clock, settings.data_dir / "mail") as made:
        yield made


async def leave(browser: Browser, path: str = "/signin/sso") -> str:
    """Press the button; the address of the provider that it leads to."""
    answer = await browser.http.get(path, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def visit(address: str) -> str:
    """Be at the provider, which signs one in at once; the address it sends the browser back to."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as outside:
        answer = await outside.get(address)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"].removeprefix("http://127.0.0.1:8000")


async def sign_in(browser: Browser, path: str = "/signin/sso") -> httpx.Response:
    """There and back."""
    return await browser.get(await visit(await leave(browser, path)))


async def roles_of(office: Office, email: str) -> list[tuple[UUID, str]]:
    """Organisation and role of who has the address."""
    async with office.database.system_session(reason="test look") as conn:
        records = await (await driver(conn)).fetch(
            "select m.org_id, m.role from members m join people p on p.person_id = m.person_id where p.email = $1",
            email,
        )
    return [(UUID(int=record["org_id"].int), record["role"]) for record in records]


async def test_the_first_person_makes_the_organisation_and_others_join_it(corp: Office, provider: Provider) -> None:
    """By the button, to the provider and back, to the page that was asked for; the first is the owner."""
    browser = corp.browser()
    page = await browser.get("/console/account")
    assert "Sign in with Corp" in page.text
    button = re.search(r'href="(/signin/sso[^"]*)"', page.text)
    assert button is not None
    shown = await sign_in(browser, button[1])
    assert (str(shown.url), heading(shown)) == ("http://kindred/console/account", "Account")
    assert f"ada@{provider.domain}" in shown.text
    assert "You sign in with Corp" in shown.text
    assert 'name="new_password"' not in shown.text
    ((org_id, role),) = await roles_of(corp, f"ada@{provider.domain}")
    assert role == "owner"
    provider.person = {"sub": "another", "email": f"bob@{provider.domain}", "email_verified": True}
    assert heading(await sign_in(corp.browser())) == "Your shops"
    assert await roles_of(corp, f"bob@{provider.domain}") == [(org_id, "developer")]


async def test_who_comes_by_the_provider_needs_a_place_too(
    settings: Settings, provider: Provider, clock: FrozenClock
) -> None:
    """Past the members that the plan includes nobody joins, nor is an account made."""
    async with running(replace(settings, entitlements="plans"), clock, settings.data_dir / "mail") as office:
        for name in ("ada", "bob", "eve"):
            email = f"{name}@{provider.domain}"
            provider.person = {"sub": name, "email": email, "email_verified": True}
            shown = await sign_in(office.browser())
            joined = name != "eve"
            assert heading(shown) == ("Your shops" if joined else "The plan includes no more of these")
            assert len(await roles_of(office, email)) == joined
        async with office.database.system_session(reason="test look") as conn:
            assert not await (await driver(conn)).fetchval("select 1 from people where email = $1", email)


async def test_a_domain_that_looks_alike_is_another(settings: Settings, provider: Provider, clock: FrozenClock) -> None:
    """Who owns `straße.example` makes an account; whom the provider of `strasse.example` vouches for gets their own."""
    ours, theirs = f"boss@strasse-{provider.domain}", f"boss@straße-{provider.domain}"
    provider.person = {"sub": "boss", "email": ours, "email_verified": True}
    domains = frozenset({ours.partition("@")[2]})
    async with running(replace(settings, oidc_domains=domains), clock, settings.data_dir / "mail") as office:
        await office.account(normalise(theirs))
        boss = office.browser()
        shown = await sign_in(boss, "/signin/sso?next=/console/account")
        assert (ours in shown.text, normalise(theirs) in shown.text) == (True, False)
        again = await office.browser().send("/signin", email=theirs, password=PASSWORD)
        assert heading(again) == "Your shops"


async def test_an_account_found_under_an_address_of_another_domain_is_not_linked(
    corp: Office, provider: Provider
) -> None:
    """Whatever it was found by: the provider vouches for its domains alone."""
    email, _ = await corp.account()
    async with corp.database.system_session(reason="test set-up") as conn:
        wrong = hash_email(corp.app.services.secret.current, f"ada@{provider.domain}")
        await (await driver(conn)).execute("update people set email_hash = $2 where email = $1", email, wrong)
    shown = await sign_in(corp.browser())
    assert (shown.status_code, heading(shown)) == (409, "The address belongs to another account")


async def test_what_the_provider_is_asked(corp: Office, provider: Provider) -> None:
    """Code flow, PKCE with S256, the registered address, and a state and nonce that nobody guesses."""
    asked = []
    for _ in range(2):
        address = urlsplit(await leave(corp.browser()))
        asked.append({name: values[0] for name, values in parse_qs(address.query).items()})
    first, second = asked
    assert (
        first.items()
        >= {
            "tenant": "corp",
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": "http://127.0.0.1:8000/signin/sso/callback",
            "scope": "openid email profile",
            "code_challenge_method": "S256",
        }.items()
    )
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 43
        assert first[name] != second[name]


async def test_a_person_is_known_by_the_subject(corp: Office, provider: Provider) -> None:
    """Whatever becomes of the address: no second account, and none of somebody else."""
    await sign_in(corp.browser())
    before = await roles_of(corp, f"ada@{provider.domain}")
    provider.person["email"] = f"ada.married@{provider.domain}"
    shown = await sign_in(corp.browser(), "/signin/sso?next=/console/account")
    assert f"ada@{provider.domain}" in shown.text
    assert await roles_of(corp, f"ada@{provider.domain}") == before
    assert await roles_of(corp, f"ada.married@{provider.domain}") == []


async def test_an_address_that_moved_on_brings_no_account_along(corp: Office, provider: Provider) -> None:
    """The account is of the subject that came first."""
    await sign_in(corp.browser())
    provider.person["sub"] = "who was hired later"
    shown = await sign_in(corp.browser())
    assert (shown.status_code, heading(shown)) == (409, "The address belongs to another account")


async def test_an_account_of_before_is_linked_by_its_address(
    corp: Office, provider: Provider, settings: Settings, clock: FrozenClock
) -> None:
    """Its shops are there; its password, its links and its sessions of before open nothing any more."""
    email = f"ada@{provider.domain}"
    async with running(
        Settings(data_dir=settings.data_dir, secret_key=SECRET, database_url=settings.database_url),
        clock,
        settings.data_dir / "mail",
    ) as before:
        _, old = await before.account(email)
    cookie = old.http.cookies["kindred"]
    browser = corp.browser()
    browser.http.cookies.set("kindred", cookie)
    assert heading(await browser.get("/console")) == "Sign in"
    shown = await sign_in(corp.browser())
    assert "Lumen" in shown.text
    assert [role for _, role in await roles_of(corp, email)] == ["owner"]


@pytest.mark.parametrize(
    ("page", "path", "fields"),
    [
        ("/signin", "/signin", {"password": PASSWORD}),
        ("/signin", "/signin/mail", {}),
        ("/forgot", "/forgot", {}),
        ("/signup", "/signup", {"password": PASSWORD}),
    ],
)
async def test_people_of_the_domain_have_no_other_door(
    corp: Office, provider: Provider, page: str, path: str, fields: dict[str, str]
) -> None:
    """The same for who has an account and who has none; no mail is sent."""
    await sign_in(corp.browser())
    told = []
    for email in (f"Ada@{provider.domain.upper()}", f"nobody@{provider.domain}"):
        shown = await corp.browser().send(page, path, email=email, **fields)
        told.append((shown.status_code, "Sign in with your organisation" in shown.text))
    assert told == [(403, True), (403, True)]
    assert await corp.mails(f"ada@{provider.domain}") == []


async def test_the_api_refuses_them_too(corp: Office, provider: Provider) -> None:
    """`POST /v1/signup` says `sso_required`."""
    body = {"email": f"ada@{provider.domain}", "password": PASSWORD}
    answer = await corp.browser().http.post("/v1/signup", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "sso_required")


async def test_everybody_else_has_the_doors_they_had(corp: Office) -> None:
    """Another domain signs up and signs in by password; it cannot move to an address of the domain."""
    email, browser = await corp.account()
    assert heading(await corp.browser().send("/signin", email=email, password=PASSWORD)) == "Your shops"
    moved = await browser.send(
        "/console/account",
        "/console/account/email",
        email=f"eve@{next(iter(corp.app.services.doors.sso.domains))}",  # type: ignore[union-attr]
        email_password=PASSWORD,
    )
    assert moved.status_code == 403


async def test_the_answer_of_another_sign_in_is_refused(corp: Office, provider: Provider) -> None:
    """Of another browser, another time, or nobody; and the cookie is gone after the first try."""
    mine, other = corp.browser(), corp.browser()
    back = await visit(await leave(other))
    await leave(mine)
    for browser in (mine, corp.browser()):
        shown = await browser.get(back)
        assert (shown.status_code, heading(shown)) == (401, "The sign-in was not finished")
    assert "/token" not in provider.asked
    again = await visit(await leave(mine))
    for state in ("", "x" * 43, "\u00e9"):
        wrong = await mine.http.get(again, params={"code": "x", "state": state})
        assert (wrong.status_code, heading(wrong)) == (401, "The sign-in was not finished")
    assert heading(await mine.get(again)) == "The sign-in was not finished"
    assert heading(await mine.get("/console")) == "Sign in"


async def test_a_code_works_once(corp: Office, provider: Provider) -> None:
    """Replayed with its own cookie and state, the provider refuses it, and so do we."""
    browser = corp.browser()
    address = await leave(browser)
    cookie = browser.http.cookies["kindred-sso"]
    back = await visit(address)
    assert heading(await browser.get(back)) == "Your shops"
    thief = corp.browser()
    thief.http.cookies.set("kindred-sso", cookie)
    shown = await thief.get(back)
    assert (shown.status_code, heading(shown)) == (401, "The sign-in was not finished")


async def test_a_sign_in_ends_after_ten_minutes(corp: Office, clock: FrozenClock) -> None:
    """The cookie names its end."""
    browser = corp.browser()
    back = await visit(await leave(browser))
    clock.advance(600)
    assert heading(await browser.get(back)) == "The sign-in was not finished"


def _other_key(provider: Provider) -> Callable[[Claims], str]:
    return lambda claims: provider.sign_by(RSAKey.generate_key(2048), claims, "RS256")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"iss": "https://accounts.evil.example"},
        {"iss": None},
        {"aud": "another client"},
        {"aud": ["another client"]},
        {"aud": None},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"azp": "another client"},
        {"exp": 1},
        {"exp": None},
        {"exp": "never"},
        {"iat": 4_000_000_000},
        {"iat": None},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"at_hash": "of another access token"},
    ],
    ids=str,
)
async def test_a_token_that_says_anything_wrong_is_refused(
    corp: Office, provider: Provider, spoilt: dict[str, Any]
) -> None:
    """One page for all of it, and nobody is signed in, made or linked."""
    provider.spoil(**spoilt)
    browser = corp.browser()
    shown = await sign_in(browser)
    assert (shown.status_code, heading(shown)) == (401, "The sign-in was not finished")
    assert heading(await browser.get("/console")) == "Sign in"
    assert await roles_of(corp, f"ada@{provider.domain}") == []


@pytest.mark.parametrize("how", ["nothing", "public key", "other key", "garbage", "nested garbage"])
async def test_a_token_that_is_not_signed_by_the_provider_is_refused(
    corp: Office, provider: Provider, how: str
) -> None:
    """`alg: none`, HS256 by the public key, another key under the same name, and what is no token at all."""
    provider.sign = {
        "nothing": provider.sign_by_nothing,
        "public key": provider.sign_by_public_key,
        "other key": _other_key(provider),
        "garbage": lambda _: "garbage",
        "nested garbage": lambda _: "e30.W10.e30",
    }[how]
    shown = await sign_in(corp.browser())
    assert (shown.status_code, heading(shown)) == (401, "The sign-in was not finished")


async def test_a_new_key_of_the_provider_is_taken_at_once(corp: Office, provider: Provider) -> None:
    """Its keys are read once, and again when a token is signed by one that is not among them."""
    await sign_in(corp.browser())
    await sign_in(corp.browser())
    assert provider.asked.count("/jwks") == 1
    provider.rotate()
    assert heading(await sign_in(corp.browser())) == "Your shops"
    assert provider.asked.count("/jwks") == 2


async def test_an_audience_of_several_names_us_as_the_party(corp: Office, provider: Provider) -> None:
    """Then `azp` is ours."""
    provider.spoil(aud=["another", CLIENT_ID], azp=CLIENT_ID)
    assert heading(await sign_in(corp.browser())) == "Your shops"


@pytest.mark.parametrize(
    "person",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": None},
        {"email": "ada@elsewhere.example"},
        {"email": "no address"},
    ],
    ids=str,
)
async def test_only_proved_addresses_of_the_domain_come_in(
    corp: Office, provider: Provider, person: dict[str, Any]
) -> None:
    """The page says which of it is missing."""
    provider.person |= person
    shown = await sign_in(corp.browser())
    assert (shown.status_code, heading(shown)) == (403, "You may not sign in here")
    assert await roles_of(corp, f"ada@{provider.domain}") == []


async def test_an_address_may_be_told_beside_the_token(corp: Office, provider: Provider) -> None:
    """By the user info, of the same subject alone."""
    provider.told_in_token = False
    assert heading(await sign_in(corp.browser())) == "Your shops"
    provider.spoil(sub="somebody else")
    assert heading(await sign_in(corp.browser())) == "The sign-in was not finished"


@pytest.mark.parametrize("callback", [{"error": "access_denied"}, {"iss": "https://accounts.evil.example"}])
async def test_a_refusal_and_another_providers_answer_are_told_apart_from_nothing(
    corp: Office, provider: Provider, callback: dict[str, str]
) -> None:
    """RFC 6749 4.1.2.1, RFC 9207; the code is not redeemed."""
    provider.callback = callback
    shown = await sign_in(corp.browser())
    assert (shown.status_code, heading(shown)) == (401, "The sign-in was not finished")
    assert "/token" not in provider.asked


async def test_a_provider_that_promises_its_name_must_keep_it(corp: Office, provider: Provider) -> None:
    """`authorization_response_iss_parameter_supported` makes `iss` of the answer a must."""
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    assert heading(await sign_in(corp.browser())) == "The sign-in was not finished"
    provider.callback = {"iss": provider.issuer}
    assert heading(await sign_in(corp.browser())) == "Your shops"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://accounts.evil.example"},
        {"token_endpoint": "http://127.0.0.2:1/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"userinfo_endpoint": "http://169.254.169.254/"},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_a_provider_that_points_elsewhere_is_not_followed(
    corp: Office, provider: Provider, metadata: dict[str, Any]
) -> None:
    """Another issuer, an address without TLS, something that is no address of the web."""
    provider.metadata = metadata
    shown = await corp.browser().get("/signin/sso")
    assert (shown.status_code, heading(shown)) == (503, "The sign-in of your organisation does not answer")


async def test_a_provider_that_is_away_is_a_page(
    settings: Settings, provider: Provider, clock: FrozenClock, tmp_path: Path
) -> None:
    """Before and behind the door; other people sign in as ever."""
    async with running(settings, clock, tmp_path / "mail") as corp:
        browser = corp.browser()
        back = await visit(await leave(browser))
        provider.answer = lambda *_: (500, {}, {})  # type: ignore[method-assign]
        shown = await browser.get(back)
        assert (shown.status_code, heading(shown)) == (503, "The sign-in of your organisation does not answer")
    away = replace(settings, oidc_issuer="http://127.0.0.1:1")
    async with running(away, clock, tmp_path / "mail") as corp:
        shown = await corp.browser().get("/signin/sso")
        assert (shown.status_code, heading(shown)) == (503, "The sign-in of your organisation does not answer")
        assert "Try again in a minute" in shown.text
        await corp.account()


async def test_a_wrong_client_secret_is_said(settings: Settings, clock: FrozenClock, tmp_path: Path) -> None:
    """The page names the settings to compare."""
    wrong = replace(settings, oidc_client_secret="wrong")
    async with running(wrong, clock, tmp_path / "mail") as corp:
        shown = await sign_in(corp.browser())
        assert shown.status_code == 503
        assert "KINDRED_OIDC_CLIENT_SECRET" in shown.text


async def test_newcomers_join_the_organisation_that_is_named(
    settings: Settings, provider: Provider, clock: FrozenClock, tmp_path: Path
) -> None:
    """With the role that is named, which the audit log of its shop notes; one that there is not is said."""
    async with running(settings, clock, tmp_path / "mail") as corp:
        email, _ = await corp.account()
        ((org_id, _),) = await roles_of(corp, email)
    named = replace(settings, oidc_organisation=org_id, oidc_role="analyst")
    async with running(named, clock, tmp_path / "mail") as corp:
        assert "Lumen" in (await sign_in(corp.browser())).text
        assert await roles_of(corp, f"ada@{provider.domain}") == [(org_id, "analyst")]
        async with corp.database.system_session(reason="test look") as conn:
            noted = await (await driver(conn)).fetch(
                "select a.actor = a.subject as own, a.details ->> 'role' as role from audit a "
                "join tenants t on t.tenant_id = a.tenant_id where t.org_id = $1 and a.action = 'member.join'",
                org_id,
            )
        assert [dict(each) for each in noted] == [{"own": True, "role": "analyst"}]
    async with running(replace(named, oidc_organisation=uuid4()), clock, tmp_path / "mail") as corp:
        provider.person = {"sub": "b", "email": f"bob@{provider.domain}", "email_verified": True}
        shown = await sign_in(corp.browser())
        assert (shown.status_code, heading(shown)) == (409, "The organisation to join does not exist")


@pytest.mark.parametrize("path", ["https://evil.example", "//evil.example", "/console/../../x"])
async def test_nobody_is_led_away(corp: Office, path: str) -> None:
    """`next` is a page of the console or refused."""
    answer = await corp.browser().http.get("/signin/sso", params={"next": path}, follow_redirects=False)
    assert answer.status_code == 422


async def test_where_there_is_no_provider_there_is_no_button(office: Office) -> None:
    """And its addresses say so."""
    browser = office.browser()
    assert "/signin/sso" not in (await browser.get("/signin")).text
    for path in ("/signin/sso", "/signin/sso/callback?code=x&state=y"):
        assert (await browser.get(path)).status_code == 404

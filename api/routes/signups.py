"""/v1/signup: an account by API, for who likes curl better than a form."""

from typing import Annotated, Final, Literal

from litestar import Response, post
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import services_of
from api.network import client_network
from api.wire import AnyRequest, answer, read_json
from infra.db import TenantId
from tenants.accounts.attempts import Knock
from tenants.accounts.email import EmailText
from tenants.accounts.passwords import Password
from tenants.accounts.proof import Proof
from tenants.accounts.signup import Currency, ShopName

_TAG: Final = "Account"
TokenText = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]


class SignupRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/signup`. `proof`: where the call before was answered `proof_needed`."""

    email: EmailText
    password: Password
    shop_name: ShopName | None = None
    currency: Currency = "USD"
    proof: Proof | None = None


class SignupAnswer(Struct, frozen=True, kw_only=True):
    """The mail says the rest: to confirm the address, or that there is an account already."""

    status: Literal["check_mail"] = "check_mail"


class VerifyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/signup/verify`: the token of the mail's link, and the account's password from now on."""

    token: TokenText
    password: Password


class NewShop(Struct, frozen=True, kw_only=True):
    """The first shop of the account; its keys are shown this once."""

    tenant_id: TenantId
    name: str
    secret_key: str
    publishable_key: str


@post(
    "/v1/signup",
    status_code=202,
    opt=contract(
        scope="public",
        tag=_TAG,
        summary="Sign up",
        body=SignupRequest,
        body_example={"email": "ada@shop.example", "password": "three words and more", "shop_name": "Lumen Lamps"},
        answer=SignupAnswer,
        status=202,
        refusals=(403, 429),
        max_body=10_000,
    ),
)
async def sign_up(request: AnyRequest) -> Response[bytes]:
    """Asks for an account; the mail to the address has a link that makes it, within 24 hours.

    The answer is the same whether there is an account with this address or not. Where much more is going on than
    usual it is `proof_needed`, and says what to solve.
    """
    wanted = await read_json(request, SignupRequest)
    await services_of(request).doors.sign_up(
        wanted.email,
        wanted.password,
        wanted.shop_name,
        _knock(request, wanted.proof),
        currency=wanted.currency,
        browser=None,
    )
    return answer(SignupAnswer(), status=202)


@post(
    "/v1/signup/verify",
    status_code=201,
    opt=contract(
        scope="public",
        tag=_TAG,
        summary="Confirm the address",
        body=VerifyRequest,
        body_example={"token": "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "password": "three words and more"},
        answer=NewShop,
        status=201,
        refusals=(403, 429),
        max_body=10_000,
    ),
)
async def verify_signup(request: AnyRequest) -> Response[bytes]:
    """Makes the account and its first shop by the `token` of the mail's link, which works once.

    The password given here is the account's: the one of the sign-up may have been typed by somebody else.
    """
    wanted = await read_json(request, VerifyRequest)
    welcome = await services_of(request).doors.verify(
        wanted.token, _knock(request, None), password=wanted.password, browser=None
    )
    shop = welcome.shop
    made = NewShop(
        tenant_id=shop.tenant_id, name=shop.name, secret_key=shop.secret.key, publishable_key=shop.publishable.key
    )
    return answer(made, status=201, headers={"cache-control": "no-store"})


def _knock(request: AnyRequest, proof: str | None) -> Knock:
    trusted = services_of(request).settings.trusted_proxies
    state = request.scope["state"]
    return Knock(network=client_network(request.scope, trusted), proof=proof, request_id=state.get("request_id"))


ROUTES: Final = (sign_up, verify_signup)

"""/console/organisations/{id}: who belongs to it; and /invitation, what the mail to a new one opens."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

from litestar import Response
from litestar.params import FromPath
from msgspec import Struct

from api.console.page import (
    find_session,
    go,
    knock,
    needs_session,
    page_get,
    page_post,
    read_form,
    show,
    show_again,
    sign_in,
)
from api.console.pages.signup import TokenText, show_sent
from api.deps import services_of
from api.wire import AnyRequest
from billing.organisations import organisation_plan
from billing.overview import meter_usage
from infra.errors import KindredError
from tenants.accounts.email import EmailText
from tenants.accounts.holdings import load_holdings
from tenants.accounts.invitations import list_invitations
from tenants.accounts.members import get_role, list_members, may_grant
from tenants.accounts.membership import Memberships
from tenants.accounts.organisations import name_of_organisation
from tenants.accounts.passwords import Password
from tenants.accounts.proof import Proof
from tenants.accounts.roles import ROLE_SAYS, ROLES, Role

Form = TypeVar("Form", bound=Struct)


class InviteForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody to be invited."""

    email: EmailText
    role: Role
    proof: Proof | None = None


class InvitationForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An open invitation, to be sent again or withdrawn."""

    invitation_id: UUID
    proof: Proof | None = None


class RoleForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A member's new role."""

    person_id: UUID
    role: Role


class RemoveForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A member to be removed: oneself, to leave."""

    person_id: UUID


class JoinForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An invitation to be accepted; `password` where it makes an account."""

    token: TokenText
    password: Password | None = None


def _memberships(request: AnyRequest) -> Memberships:
    return services_of(request).memberships


def _back(request: AnyRequest, org_id: UUID, done: str = "") -> Response[Any]:
    return go(request, f"/console/organisations/{org_id}{done}")


async def _values(request: AnyRequest, person_id: UUID, org_id: UUID) -> dict[str, Any]:
    """What the page shows. Raises MemberNotFound to who does not belong to the organisation."""
    async with services_of(request).database.person_session(person_id, org_id=org_id) as conn:
        own = await get_role(conn, org_id, person_id)
        members = await list_members(conn)
        invitations = await list_invitations(conn, org_id, now=services_of(request).clock())
        name = await name_of_organisation(conn, org_id)
        held = await load_holdings(conn, org_id, now=services_of(request).clock())
    plan = organisation_plan(services_of(request).settings.entitlements, held.plans)
    return {
        "org_id": org_id,
        "name": name,
        "members": members,
        "invitations": invitations,
        "withdrawable": {each.invitation_id for each in invitations if may_grant(own, each.role)},
        "changeable": {each.person_id for each in members if may_grant(own, each.role)},
        "grantable": [role for role in ROLES if may_grant(own, role)],
        "places": meter_usage(plan, "members", held.invited),
        "plan": plan.name,
        "says": ROLE_SAYS,
        "done": request.query_params.get("done", ""),
    }


@page_get("/console/organisations/{org_id:uuid}")
async def members_page(request: AnyRequest, org_id: FromPath[UUID]) -> Response[Any]:
    """The members."""
    person_id = needs_session(request).person_id
    return show(request, "members.html", **await _values(request, person_id, org_id))


async def _changed(
    request: AnyRequest,
    org_id: UUID,
    kind: type[Form],
    change: Callable[[UUID, Form], Awaitable[None]],
    then: Callable[[UUID, Form], Response[Any]],
) -> Response[Any]:
    """What `then` makes of the person who asked and their form, once changed; or the page again, with what is wrong."""
    person_id = needs_session(request).person_id
    try:
        form = await read_form(request, kind)
        await change(person_id, form)
    except KindredError as error:
        return show_again(request, "members.html", error, **await _values(request, person_id, org_id))
    return then(person_id, form)


@page_post("/console/organisations/{org_id:uuid}/invite")
async def invite(request: AnyRequest, org_id: FromPath[UUID]) -> Response[Any]:
    """Mail an invitation; the page is the same whether the address has an account or not."""

    async def change(by: UUID, form: InviteForm) -> None:
        await _memberships(request).invite(by, org_id, form.email, form.role, knock(request, form.proof))

    return await _changed(
        request, org_id, InviteForm, change, lambda _, form: show_sent(request, form.email, "invitation")
    )


@page_post("/console/organisations/{org_id:uuid}/invite/again")
async def send_again(request: AnyRequest, org_id: FromPath[UUID]) -> Response[Any]:
    """Mail an open invitation once more; its seven days begin anew."""

    async def change(by: UUID, form: InvitationForm) -> None:
        await _memberships(request).send_again(by, org_id, form.invitation_id, knock(request, form.proof))

    return await _changed(request, org_id, InvitationForm, change, lambda *_: _back(request, org_id, "?done=again"))


@page_post("/console/organisations/{org_id:uuid}/invite/withdraw")
async def withdraw(request: AnyRequest, org_id: FromPath[UUID]) -> Response[Any]:
    """Take an open invitation back; its link says so from now on."""

    async def change(by: UUID, form: InvitationForm) -> None:
        await _memberships(request).withdraw(by, org_id, form.invitation_id, knock(request))

    return await _changed(request, org_id, InvitationForm, change, lambda *_: _back(request, org_id, "?done=withdrawn"))


@page_post("/console/organisations/{org_id:uuid}/role")
async def change_role(request: AnyRequest, org_id: FromPath[UUID]) -> Response[Any]:
    """Change a role; it holds with the member's next request."""

    async def change(by: UUID, form: RoleForm) -> None:
        await _memberships(request).change_role(by, org_id, form.person_id, form.role, knock(request))

    return await _changed(request, org_id, RoleForm, change, lambda *_: _back(request, org_id))


@page_post("/console/organisations/{org_id:uuid}/remove")
async def remove(request: AnyRequest, org_id: FromPath[UUID]) -> Response[Any]:
    """Remove a member, or leave."""

    async def change(by: UUID, form: RemoveForm) -> None:
        await _memberships(request).remove(by, org_id, form.person_id, knock(request))

    def then(by: UUID, form: RemoveForm) -> Response[Any]:
        return go(request, "/console") if form.person_id == by else _back(request, org_id)

    return await _changed(request, org_id, RemoveForm, change, then)


@page_get("/invitation")
async def invitation_page(request: AnyRequest) -> Response[Any]:
    """What the mail opens: one click for who is signed in, a password for who has no account."""
    token = request.query_params.get("token", "")
    invited = await _memberships(request).look_at(token)
    return show(request, "invitation.html", token=token, invited=invited)


@page_post("/invitation")
async def accept(request: AnyRequest) -> Response[Any]:
    """Join, as who is signed in or with a new account."""
    memberships = _memberships(request)
    form = await read_form(request, JoinForm)
    session = find_session(request)
    if session is not None:
        await memberships.accept(form.token, session.person_id, knock(request))
        return go(request, "/console")
    try:
        signed_in = await memberships.join(form.token, form.password or "", knock(request))
    except KindredError as error:
        if not error.errors:
            raise
        invited = await memberships.look_at(form.token)
        return show_again(request, "invitation.html", error, token=form.token, invited=invited)
    await sign_in(request, signed_in)
    return go(request, "/console")


ROUTES: Final = (members_page, invite, send_again, withdraw, change_role, remove, invitation_page, accept)

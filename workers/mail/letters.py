"""What each mail says, as text and as HTML of the same words."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from msgspec import Struct

from tenants.accounts.outbox import DisabledWebhook, QuotaReached


class Letter(Struct, frozen=True, kw_only=True):
    """The words of a mail: paragraphs before and after one link, where there is one."""

    subject: str
    before: Sequence[str]
    button: str = ""
    link: str = ""
    after: Sequence[str] = ()

    @property
    def text(self) -> str:
        """Plain text."""
        parts = [*self.before, *([self.link] if self.link else []), *self.after, _FOOT]
        return "\n\n".join(parts) + "\n"

    @property
    def html(self) -> str:
        """The same, with a button; nothing is loaded from anywhere."""
        before = "".join(f"<p>{escape(each)}</p>" for each in self.before)
        after = "".join(f"<p>{escape(each)}</p>" for each in self.after)
        link = ""
        if self.link:
            address = escape(self.link, quote=True)
            link = (
                f'<p style="margin:28px 0"><a href="{address}" style="background:#4338ca;color:#fff;padding:12px 22px;'
                f'border-radius:22px;text-decoration:none;font-weight:600">{escape(self.button)}</a></p>'
                f'<p style="color:#66636d;font-size:14px">Or open this address:<br>'
                f'<a href="{address}" style="color:#4338ca;word-break:break-all">{address}</a></p>'
            )
        return (
            '<!doctype html><html lang="en"><body style="margin:0;padding:32px 16px;background:#faf9f6;color:#1c1b1f;'
            'font:16px/1.5 system-ui,sans-serif"><div style="max-width:520px;margin:0 auto;padding:28px;'
            'background:#fff;border:1px solid #e4e1da;border-radius:14px">'
            '<p style="font-weight:700;font-size:18px">Kindred</p>'
            f'{before}{link}{after}<p style="color:#66636d;font-size:14px">{escape(_FOOT)}</p></div></body></html>'
        )


_FOOT: Final = "Sent by Kindred, product recommendations for shops."

NOTICES: Final[Mapping[str, tuple[str, str]]] = {
    "password_changed": (
        "Your Kindred password was changed",
        "The password of your account was changed, and every other session was ended.",
    ),
    "email_asked": (
        "Another address for your Kindred account?",
        "Somebody, probably you, asked to change the e-mail address of your account to another one. It is changed once "
        "a link is opened that was mailed there; a new password ends that.",
    ),
    "email_changed": (
        "Your Kindred address was changed back",
        "The account that had this address has the one of before again: its owner has taken the change back. Every "
        "session was ended, and the password is good no more.",
    ),
    "second_step_on": (
        "The second step of your Kindred account is on",
        "From now on your account asks for a code of your authenticator app. Every other session was ended.",
    ),
    "second_step_off": (
        "The second step of your Kindred account is off",
        "Your account asks for no code of an authenticator app any more.",
    ),
    "recovery_code_used": (
        "A recovery code of your Kindred account was used",
        "Somebody, probably you, used a recovery code in place of the authenticator app. It works no second time.",
    ),
}
"""Subject and first sentence of a notice, by its note."""


def verify(link: str, shop: str) -> Letter:
    """To who signed up."""
    return Letter(
        subject="Confirm your e-mail address for Kindred",
        before=(f"Welcome. Confirm that this address is yours, and your shop “{shop}” is ready.",),
        button="Confirm the address",
        link=link,
        after=(
            "The link works once, within 24 hours.",
            "You did not sign up? Then ignore this mail; nothing is made without the link.",
        ),
    )


def exists(sign_in: str, forgot: str) -> Letter:
    """To who has an account, when somebody signs up with the address."""
    return Letter(
        subject="You have a Kindred account already",
        before=("Somebody, probably you, signed up with this address. It has an account already: just sign in.",),
        button="Sign in",
        link=sign_in,
        after=(
            f"The password is forgotten? Choose a new one: {forgot}",
            "It was not you? Then ignore this mail; nothing has changed.",
        ),
    )


def magic_link(link: str) -> Letter:
    """To sign in without a password."""
    return Letter(
        subject="Your link to sign in to Kindred",
        before=("Open this link to sign in.",),
        button="Sign in",
        link=link,
        after=(
            "The link works once, within 30 minutes.",
            "You did not ask for it? Then ignore this mail; nobody can sign in without it.",
        ),
    )


def reset(link: str) -> Letter:
    """To choose a new password."""
    return Letter(
        subject="Choose a new Kindred password",
        before=("Open this link to choose a new password. Every session that is open now will end.",),
        button="Choose a new password",
        link=link,
        after=(
            "The link works once, within 30 minutes.",
            "You did not ask for it? Then ignore this mail; your password stays as it is.",
        ),
    )


def email_change(link: str) -> Letter:
    """To the new address of an account."""
    return Letter(
        subject="Confirm your new address for Kindred",
        before=("Open this link to make this the address of your Kindred account.",),
        button="Use this address",
        link=link,
        after=("The link works once, within 30 minutes.", "You did not ask for it? Then ignore this mail."),
    )


def take_back(link: str) -> Letter:
    """To the old address of an account, which is that of nobody now."""
    return Letter(
        subject="Your Kindred address was changed",
        before=(
            "The e-mail address of your account was changed to another one. It was you? Then there is nothing to do.",
            "It was not? Take it back: the account has this address again, every session and the password end, and you "
            "choose a new one.",
        ),
        button="Take it back",
        link=link,
        after=("The link works once, within seven days.",),
    )


def invitation(link: str, organisation: str) -> Letter:
    """To who is invited to an organisation."""
    return Letter(
        subject=f"You are invited to {organisation} on Kindred",
        before=(f"You are invited to work on the shops of “{organisation}” with Kindred.",),
        button="Accept the invitation",
        link=link,
        after=("The link works once, within seven days.", "You do not know them? Then ignore this mail."),
    )


def notice(note: str, forgot: str) -> Letter:
    """To tell the owner of an account what was done."""
    subject, said = NOTICES[note]
    if note == "email_changed":  # no password can be chosen by an address that has no account
        return Letter(
            subject=subject, before=(said,), after=("It was not right? Tell whoever runs this installation.",)
        )
    return Letter(
        subject=subject,
        before=(said,),
        button="Choose a new password",
        link=forgot,
        after=("It was you? Then there is nothing to do. It was not? Choose a new password now.",),
    )


def farewell() -> Letter:
    """To who has deleted the account; the last mail to the address."""
    return Letter(
        subject="Your Kindred account is deleted",
        before=("Your account is deleted, with all that was kept of you, and every session has ended.",),
        after=(
            "This is the last mail. The address is forgotten now; you may sign up with it again.",
            "It was not you? Tell whoever runs this installation.",
        ),
    )


def quota(reached: QuotaReached, link: str) -> Letter:
    """To who looks after a shop, when it nears what its plan includes, or has used it up."""
    shop, meter = reached.shop, reached.meter
    used_up = reached.percent >= 100
    return Letter(
        subject=f"{shop} has used {'all' if used_up else f'{reached.percent} %'} of its {meter} on Kindred",
        before=(
            f"The shop “{shop}” has used {reached.used:,} of the {reached.quota:,} {meter} that its plan includes.",
            "What goes beyond is refused or billed, as the plan says." if used_up else "Nothing is refused yet.",
        ),
        button="Look at the shop",
        link=link,
        after=("A larger plan includes more. You are told once at 80 % and once at 100 %.",),
    )


def webhook_disabled(disabled: DisabledWebhook, link: str) -> Letter:
    """To who can mend it, when a webhook of a shop was disabled."""
    shop, host = disabled.shop, disabled.host
    why = "answered that it is gone (410)" if disabled.reason == "gone" else "took no message for five days"
    return Letter(
        subject=f"A webhook of {shop} on Kindred was disabled",
        before=(
            f"The webhook of “{shop}” at {host} {why}. Nothing more is sent to it, and what waited has failed.",
            f'When it is mended: PATCH /v1/webhooks/{disabled.webhook_id} with {{"enabled": true}}, then send what it '
            "missed again with POST …/replay.",
        ),
        button="How webhooks work",
        link=link,
        after=("You do not need it any more? Delete the webhook.",),
    )

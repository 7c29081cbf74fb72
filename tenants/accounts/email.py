"""E-mail addresses: their form, what makes two of them the same, and the keyed hash they are found by."""

import hmac
import re
import unicodedata
from typing import Annotated, Final

from msgspec import Meta

from infra.domains import ascii_domain
from infra.errors import FieldError, Invalid

MAX_LENGTH: Final = 254
"""Characters (RFC 5321, 4.5.3.1.3)."""

EmailText = Annotated[
    str, Meta(min_length=3, max_length=320, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)", examples=["ada@shop.example"])
]
"""An address as somebody typed it."""

# What servers really take, not all that RFC 5322 allows: no quotes, no comments, no domain literals.
_LOCAL: Final = re.compile(r"[^\s@\"(),:;<>\[\\\]\x00-\x20\x7f]{1,64}")
_LABEL: Final = re.compile(r"(?!-)[\w-]{1,63}(?<!-)", re.ASCII)


class InvalidEmail(Invalid):
    """The text is no e-mail address that mail could be sent to."""

    code = "invalid_email"
    title = "This is no e-mail address"


def normalise(typed: str) -> str:
    """The address as it is kept: NFC, without spaces around it, the domain as the DNS has it. Raises InvalidEmail."""
    address = unicodedata.normalize("NFC", typed).strip()
    local, at, typed_domain = address.rpartition("@")
    try:
        domain = ascii_domain(typed_domain)
    except ValueError:
        domain = ""
    labels = domain.split(".")
    good = (
        at
        and len(local) + len(at) + len(domain) <= MAX_LENGTH
        and _LOCAL.fullmatch(local)
        and not local.startswith(".")
        and not local.endswith(".")
        and ".." not in local
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )
    if not good:
        fault = FieldError(pointer="/email", code="invalid_email", message="Not an address as name@shop.example.")
        raise InvalidEmail("Type the whole e-mail address, as name@shop.example.", errors=[fault])
    return f"{local}@{domain}"


def is_same_address(one: str, other: str) -> bool:
    """Whether two addresses, as they are kept, differ in case alone.

    Servers may tell `Ada@` from `ada@` and none does; people do not either. Mail goes to the address as it was given.
    No more is folded: of `strauß@` and `strauss@` each is somebody else's.
    """
    return one.lower() == other.lower()


def hash_email(secret: bytes, address: str) -> bytes:
    """What an address, as it is kept, is found by: HMAC-SHA256 of its form without case."""
    return hmac.digest(secret, b"email\0" + address.lower().encode(), "sha256")

"""Codes of an authenticator app (RFC 6238), and the recovery codes for who has lost it."""

import hmac
import re
import secrets
from datetime import datetime
from typing import Annotated, Final

import pyotp
from msgspec import Meta

STEP_S: Final = 30
"""Every app has this period, six digits and SHA-1; not all of them heed anything else."""

WINDOW: Final = 1
"""Steps that a phone's clock may be off, either way."""

RECOVERY_CODES: Final = 10

CodeText = Annotated[str, Meta(min_length=6, max_length=40, pattern=r"^[0-9A-Za-z -]+$(?!\n)")]
"""A code as it was typed: six digits, or a recovery code; with spaces and hyphens or without."""

_ISSUER: Final = "Kindred"
_DIGITS: Final = re.compile(r"\d{6}", re.ASCII)
# 32 characters of which none is taken for another; 50 bits in ten of them.
_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz0"
_RECOVERY_CHARS: Final = 10


def new_totp_secret() -> str:
    """160 random bits in base32, as RFC 4226 wants them."""
    return pyotp.random_base32()


def enrolment_uri(totp_secret: str, email: str) -> str:
    """What the QR code says (`otpauth://`)."""
    return pyotp.TOTP(totp_secret).provisioning_uri(name=email, issuer_name=_ISSUER)


def matched_step(totp_secret: str, code: str, *, now: datetime) -> int | None:
    """The time step whose code this is, of those around `now`, or None; in the same time for every code."""
    app = pyotp.TOTP(totp_secret)
    present = int(now.timestamp()) // STEP_S
    found = None
    for step in range(present - WINDOW, present + WINDOW + 1):
        if hmac.compare_digest(app.generate_otp(step), code):
            found = step
    return found


def plain_code(typed: str) -> str:
    """The code without what people put in between."""
    return re.sub(r"[ -]", "", typed).lower().replace("o", "0")


def is_totp_code(plain: str) -> bool:
    """Whether it is of an app; else it can only be a recovery code."""
    return _DIGITS.fullmatch(plain) is not None


def new_recovery_codes() -> list[str]:
    """Ten codes as they are shown."""
    made = ("".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_CHARS)) for _ in range(RECOVERY_CODES))
    return [f"{code[:5]}-{code[5:]}" for code in made]


def hash_recovery_code(totp_secret: str, plain: str) -> bytes:
    """What is stored: keyed, for 50 bits could be tried by who has a copy of the database.

    By the app's secret, which lies there encrypted and moves with the installation's secret, as a hash could not.
    """
    return hmac.digest(totp_secret.encode(), b"recovery code\0" + plain.encode(), "sha256")

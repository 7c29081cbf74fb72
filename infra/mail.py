"""Mails to people: one interface, two implementations.

`SmtpMailer` hands a mail to a server; `FileMailer` writes it as a file of the data folder, for a machine without one
and for tests. Both raise `UpstreamFailed` when trying again later may help, and `Invalid` when it will not.
"""

import asyncio
import os
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
from msgspec import Struct

from infra.errors import Invalid, UpstreamFailed
from infra.settings import Settings

_TIMEOUT_S: Final = 20.0


class MailRefused(Invalid):
    """The mail server will never take this mail: its address, its sender or our name and password are wrong."""

    code = "mail_refused"
    title = "The mail server refused the mail"


class MailServerAway(UpstreamFailed):
    """The mail server cannot be reached or is busy; the mail stays in the outbox."""

    code = "mail_server_away"
    title = "The mail server does not take the mail now"


class BadSmtpUrl(Invalid):
    """The setting KINDRED_SMTP_URL names no mail server."""

    code = "bad_smtp_url"
    title = "The mail server's address is not valid"


class Mail(Struct, frozen=True, kw_only=True):
    """One mail to one person. `mail_id` names it for ever: a mail that is sent twice has one Message-ID."""

    mail_id: str
    to: str
    subject: str
    text: str
    html: str


class Mailer(Protocol):
    """Hands a mail over, durably, before it returns."""

    async def send(self, mail: Mail) -> None:
        """Raises MailRefused, or MailServerAway when trying again later may help."""
        ...


def compose(mail: Mail, sender: str, *, cte: str | None = None) -> EmailMessage:
    """The mail as RFC 5322 has it: text, and the same as HTML. Raises MailRefused for an address it cannot write.

    `cte`: the transfer encoding of both; by default one that passes through every server.
    """
    message = EmailMessage(policy=SMTP.clone(utf8=not (mail.to + sender).isascii()))
    name, address = parseaddr(sender)
    try:
        message["From"] = Address(display_name=name, addr_spec=address)
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{mail.mail_id}@{address.rpartition('@')[2] or 'localhost'}>"
        # Holiday notes and lists keep quiet (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
    except (ValueError, IndexError) as error:
        raise MailRefused("The mail cannot be addressed so; check the address and KINDRED_MAIL_FROM.") from error
    message.set_content(mail.text, cte=cte)
    message.add_alternative(mail.html, subtype="html", cte=cte)
    return message


class FileMailer:
    """A folder with one `.eml` file per mail, named by when it was written; only its owner reads it."""

    def __init__(self, folder: Path, *, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, mail: Mail) -> None:
        """Write the mail whole, or not at all. Raises MailRefused, MailServerAway."""
        # As it is, so that a person can read the file.
        content = compose(mail, self._sender, cte="8bit").as_bytes()
        try:
            await asyncio.to_thread(self._write, mail, content)
        except OSError as error:
            raise MailServerAway(f"The mail cannot be written to {self._folder}: {error.strerror}.") from error

    def _write(self, mail: Mail, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{mail.mail_id}.eml"
        aside = path.with_suffix(".part")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


class SmtpMailer:
    """A mail server, asked anew for each mail: there are few, and a connection that idles is cut.

    `smtps://` is TLS from the first byte. `smtp://` becomes TLS by STARTTLS: always (`required`), where the server
    offers it (`offered`), or never (`off`). Unsaid, it is required where a password would be sent beyond this
    machine.
    """

    def __init__(self, url: str, *, sender: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Raises BadSmtpUrl."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise BadSmtpUrl("The port of KINDRED_SMTP_URL is 1 to 65535.") from error
        options = parse_qs(parts.query)
        tls = options.pop("tls", [""])[-1]
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or options:
            raise BadSmtpUrl(
                "KINDRED_SMTP_URL reads smtp://user:password@host:587, or smtps://…, with `?tls=` or nothing."
            )
        if tls not in ("", "off", "offered", "required"):
            raise BadSmtpUrl("`tls` of KINDRED_SMTP_URL is off, offered or required.")
        self._host = parts.hostname
        self._port = port or (465 if parts.scheme == "smtps" else 587)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._implicit = parts.scheme == "smtps"
        if not tls:
            tls = "required" if self._user and not _is_here(self._host) else "offered"
        self._start: bool | None = {"off": False, "offered": None, "required": True}[tls]
        self._sender = sender
        self._timeout_s = timeout_s

    async def send(self, mail: Mail) -> None:
        """Returns when the server has taken the mail. Raises MailRefused, MailServerAway."""
        message = compose(mail, self._sender)
        try:
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._implicit,
                start_tls=False if self._implicit else self._start,
                timeout=self._timeout_s,
            )
        except (aiosmtplib.SMTPAuthenticationError, aiosmtplib.SMTPNotSupported) as error:
            # Whoever runs the installation mends it: the mail waits.
            raise MailServerAway("The mail server refuses our name and password; check KINDRED_SMTP_URL.") from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            if all(each.code >= 500 for each in error.recipients):
                raise MailRefused("The mail server knows no such recipient.") from error
            raise MailServerAway("The mail server does not take mail for this recipient now.") from error
        except aiosmtplib.SMTPResponseException as error:
            if error.code >= 500:
                raise MailRefused(f"The mail server refused the mail for good ({error.code}).") from error
            raise MailServerAway(f"The mail server does not take the mail now ({error.code}).") from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailServerAway(f"The mail server cannot be reached ({type(error).__name__}).") from error


def open_mailer(settings: Settings) -> Mailer:
    """What the settings say. Raises BadSmtpUrl."""
    if settings.smtp_url is None:
        return FileMailer(settings.data_dir / "mail", sender=settings.mail_from)
    return SmtpMailer(settings.smtp_url, sender=settings.mail_from)


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

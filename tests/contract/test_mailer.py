"""One suite for every mailer: the folder, and SMTP against a real server on loopback."""

import asyncio
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import uuid4

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from infra.mail import (
    BadSmtpUrl,
    FileMailer,
    Mail,
    Mailer,
    MailRefused,
    MailServerAway,
    SmtpMailer,
    open_mailer,
)
from infra.settings import Settings
from tests.installation import free_port

pytestmark = pytest.mark.anyio

SENDER = "Kindred <no-reply@kindred.example>"


class Server:
    """A mail server that keeps what it takes; `answer` is what it says to a whole mail."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.recipients: list[str] = []
        self.answer = "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, _: list[str]
    ) -> str:
        """Takes everybody but two."""
        if address.startswith("nobody@"):
            return "550 no such user"
        if address.startswith("busy@"):
            return "450 try later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keeps the mail."""
        if self.answer.startswith("250"):
            self.mails.append(cast(bytes, envelope.content))
            self.recipients += envelope.rcpt_tos
        return self.answer


class Post(Protocol):
    """A mailer and what has arrived."""

    mailer: Mailer

    def arrived(self) -> list[EmailMessage]:
        """The mails, in the order of arrival."""
        ...


class FilePost:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "mail"
        self.mailer: Mailer = FileMailer(self._folder, sender=SENDER)

    def arrived(self) -> list[EmailMessage]:
        """Files, by name; nothing half written lies beside them."""
        paths = sorted(self._folder.iterdir()) if self._folder.exists() else []
        assert [path.suffix for path in paths] == [".eml"] * len(paths)
        return [_read(path.read_bytes()) for path in paths]


class SmtpPost:
    """The server."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self.mailer: Mailer = SmtpMailer(f"smtp://127.0.0.1:{port}", sender=SENDER)

    def arrived(self) -> list[EmailMessage]:
        """What the server has taken."""
        return [_read(mail) for mail in self._server.mails]


def _read(content: bytes) -> EmailMessage:
    return cast(EmailMessage, message_from_bytes(content, policy=policy.default))


@pytest.fixture
def server() -> Server:
    """What the mail server does."""
    return Server()


@pytest.fixture
def port(server: Server) -> Iterator[int]:
    """Where it listens."""
    controller = Controller(server, hostname="127.0.0.1", port=free_port(), decode_data=False, enable_SMTPUTF8=True)
    controller.start()
    yield controller.port
    controller.stop()


@pytest.fixture(params=["file", "smtp"])
def post(request: pytest.FixtureRequest, tmp_path: Path) -> Post:
    """Each implementation."""
    if request.param == "file":
        return FilePost(tmp_path)
    return SmtpPost(request.getfixturevalue("server"), request.getfixturevalue("port"))


def mail(to: str = "ada@shop.example", **other: Any) -> Mail:
    """A mail with all that could go wrong in its words."""
    told = {
        "mail_id": str(uuid4()),
        "to": to,
        "subject": "Confirm “Lümen” ✓",
        "text": "Grüße, “Lümen”\n\nhttps://kindred.example/verify?token=" + "a" * 60 + "\n.\nFrom here on\n",
        "html": '<p>Grüße</p><a href="https://kindred.example/verify?token=' + "a" * 60 + '">go</a>',
    }
    return Mail(**{**told, **other})


async def test_a_mail_arrives_as_it_was_written(post: Post) -> None:
    """Text and HTML, whole, whatever letters and lines they have."""
    sent = mail()
    await post.mailer.send(sent)
    (arrived,) = post.arrived()
    assert (arrived["To"], arrived["From"], arrived["Subject"]) == (sent.to, SENDER, sent.subject)
    assert arrived["Message-ID"] == f"<{sent.mail_id}@kindred.example>"
    assert arrived["Auto-Submitted"] == "auto-generated"
    text, html = arrived.get_body(("plain",)), arrived.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == sent.text
    assert html.get_content().strip() == sent.html


async def test_a_mail_sent_twice_is_one_message(post: Post) -> None:
    """By its Message-ID: a worker that died after sending sends it again."""
    sent = mail()
    await post.mailer.send(sent)
    await post.mailer.send(sent)
    assert len({arrived["Message-ID"] for arrived in post.arrived()}) == 1


@pytest.mark.parametrize("to", ["", "ada", "ada@shop.example, eve@evil.example", "a@b.example\r\nBcc: e@evil.example"])
async def test_nobody_else_gets_a_mail(post: Post, to: str) -> None:
    """What is no one address is refused for good."""
    with pytest.raises(MailRefused):
        await post.mailer.send(mail(to))
    assert post.arrived() == []


async def test_a_subject_is_one_line(post: Post) -> None:
    """No header can be smuggled in by the name of a shop."""
    with pytest.raises(MailRefused):
        await post.mailer.send(mail(subject="Hello\r\nBcc: eve@evil.example"))
    assert post.arrived() == []


async def test_many_mails_at_once_all_arrive(post: Post) -> None:
    """Each to its own address."""
    wanted = {f"person{number}@shop.example" for number in range(12)}
    await asyncio.gather(*(post.mailer.send(mail(to)) for to in wanted))
    assert {arrived["To"] for arrived in post.arrived()} == wanted


# What only a server does


@pytest.mark.parametrize(
    ("to", "answer", "error"),
    [
        ("nobody@shop.example", "250 OK", MailRefused),
        ("busy@shop.example", "250 OK", MailServerAway),
        ("ada@shop.example", "451 full", MailServerAway),
        ("ada@shop.example", "554 spam", MailRefused),
    ],
)
async def test_a_server_says_no(server: Server, port: int, to: str, answer: str, error: type[Exception]) -> None:
    """For good (5xx), or for now (4xx)."""
    server.answer = answer
    with pytest.raises(error):
        await SmtpMailer(f"smtp://127.0.0.1:{port}", sender=SENDER).send(mail(to))


async def test_a_server_that_is_away_or_silent_is_tried_again(server: Server, port: int) -> None:
    """Refused, or no answer in time."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        hanging = mute.sockets[0].getsockname()[1]
        with pytest.raises(MailServerAway):
            await SmtpMailer(f"smtp://127.0.0.1:{hanging}", sender=SENDER, timeout_s=0.2).send(mail())
    finally:
        mute.close()
        await mute.wait_closed()
    with pytest.raises(MailServerAway):
        await SmtpMailer("smtp://127.0.0.1:1", sender=SENDER).send(mail())


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_name_and_password_are_sent(server: Server) -> None:
    """Percent-encoded in the address; wrong ones leave the mail waiting, for whoever runs this to mend."""
    given: list[tuple[bytes, bytes]] = []

    def check(_: SMTP, __: Session, ___: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss/w", handled=False)

    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=check,
        auth_required=True,
        auth_require_tls=False,
    )
    controller.start()
    try:
        port = controller.port
        await SmtpMailer(f"smtp://us%40er:p%40ss%2Fw@127.0.0.1:{port}", sender=SENDER).send(mail())
        with pytest.raises(MailServerAway, match="KINDRED_SMTP_URL"):
            await SmtpMailer(f"smtp://us%40er:wrong@127.0.0.1:{port}", sender=SENDER).send(mail())
    finally:
        controller.stop()
    assert (b"us@er", b"p@ss/w") in given
    assert len(server.mails) == 1


async def test_tls_that_is_required_and_not_offered_sends_nothing(server: Server, port: int) -> None:
    """Nobody on the way can talk us out of it."""
    with pytest.raises(MailServerAway):
        await SmtpMailer(f"smtp://127.0.0.1:{port}?tls=required", sender=SENDER).send(mail())
    assert server.mails == []


@pytest.mark.parametrize(
    "url",
    ["smtp://", "http://x", "smtp://x:99999", "smtp://x?tls=maybe", "smtp://x?timeout=3", "smtps:///path", "x"],
)
def test_a_bad_address_is_told_at_start(url: str) -> None:
    """Rather than with the first mail."""
    with pytest.raises(BadSmtpUrl):
        SmtpMailer(url, sender=SENDER)


def test_settings_choose_the_mailer(tmp_path: Path) -> None:
    """Files where no server is named."""
    assert isinstance(open_mailer(Settings(data_dir=tmp_path)), FileMailer)
    assert isinstance(open_mailer(Settings(smtp_url="smtps://mail.example")), SmtpMailer)


async def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    """They hold links that open accounts. A folder that cannot be written to is tried again later."""
    folder = tmp_path / "mail"
    await FileMailer(folder, sender=SENDER).send(mail())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MailServerAway):
        await FileMailer(tmp_path / "file", sender=SENDER).send(mail())

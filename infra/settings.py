"""Settings: read once from the environment, checked at start, documented in docs/settings.md.

Every `KINDRED_` name that is not listed here, and every malformed value, is
named at start rather than ignored.
"""

import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from infra.allowance import Allowance, parse_allowances
from infra.domains import ascii_domain
from infra.errors import FieldError, Invalid

FILE = "_FILE"
_CHOSEN = Path("models") / "chosen.json"
_DOMAIN = re.compile(r"(?:(?!-)[\w-]{1,63}(?<!-)\.)+(?!\d+$)[\w-]{2,63}")
_SOCKET_PATH_MAX = 100  # bytes; sockaddr_un holds 108 on Linux and 104 on macOS


class BadSettings(Invalid):
    """Raised at start; names every bad setting, not only the first."""

    code = "bad_settings"
    title = "The settings cannot be used"


@dataclass(frozen=True, kw_only=True)
class _Spec:
    name: str
    parse: Callable[[str], Any]
    doc: str
    secret: bool = False


def _setting(name: str, parse: Callable[[str], Any], default: Any, doc: str, *, secret: bool = False) -> Any:
    """`secret`: the value may stand in a file that `<name>_FILE` names, and no message repeats it."""
    return field(default=default, metadata={"spec": _Spec(name=name, parse=parse, doc=doc, secret=secret)})


def _port(raw: str) -> int:
    port = int(raw)
    if not 0 <= port <= 65535:
        raise ValueError("not a port: 0 to 65535")
    return port


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        number = int(raw)
        if not low <= number <= high:
            raise ValueError(f"must be {low} to {high}")
        return number

    return parse


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in allowed:
            raise ValueError("must be one of " + ", ".join(allowed))
        return raw

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if urlsplit(raw).scheme not in schemes:
            raise ValueError("must begin with " + " or ".join(f"{s}://" for s in schemes))
        return raw

    return parse


def _origin(raw: str) -> str:
    parts = urlsplit(raw.rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query or parts.fragment:
        raise ValueError("must be http:// or https:// and a host, without a path")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _networks(raw: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(entry.strip(), strict=False) for entry in raw.split(",") if entry.strip())


def _mailbox(raw: str) -> str:
    if not 3 <= len(raw) <= 320 or "@" not in raw or not raw.isprintable():
        raise ValueError("must be an address, as `Kindred <no-reply@shop.example>`")
    return raw


def _issuer(raw: str) -> str:
    parts = urlsplit(raw)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not (parts.scheme == "https" or local) or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must begin with https:// and be the issuer as the provider itself writes it")
    return raw


def _domains(raw: str) -> frozenset[str]:
    found = frozenset(ascii_domain(entry.strip().removeprefix("@")) for entry in raw.split(",") if entry.strip())
    if not found or any(not _DOMAIN.fullmatch(each) for each in found):
        raise ValueError("must be domains of e-mail addresses, as shop.example,shop.test")
    return found


def _mark(raw: str) -> str:
    if len(raw) > 1000 or not raw.isprintable():
        raise ValueError("must be a text without line breaks")
    return raw


def _uuid(raw: str) -> UUID:
    return UUID(raw)


def _button(raw: str) -> str:
    if len(raw) > 60 or not raw.isprintable():
        raise ValueError("must be at most 60 characters")
    return raw


def _secret(raw: str) -> str:
    if len(raw) < 32:
        raise ValueError("needs at least 32 characters")
    return raw


def _secrets(raw: str) -> tuple[str, ...]:
    return tuple(_secret(each.strip()) for each in raw.split(",") if each.strip())


def _cell(raw: str) -> str:
    if len(raw) != 2 or not raw.isascii() or not raw.isalnum():
        raise ValueError("must be two letters or digits")
    return raw


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process. `from_env` is the only way it is made outside tests."""

    data_dir: Path = _setting(
        "KINDRED_DATA_DIR", Path, Path(".kindred"), "Folder of the embedded database, blobs, packs, secrets."
    )
    host: str = _setting("KINDRED_HOST", str, "127.0.0.1", "Address that the API listens on.")
    port: int = _setting("KINDRED_PORT", _port, 8000, "Port of the API.")
    body_timeout_s: int = _setting(
        "KINDRED_BODY_TIMEOUT_S",
        _count(1, 3600),
        30,
        "Seconds without a byte after which a request's body is given up (408); below 2,000 bytes a second it is, too.",
    )
    connections_per_address: int = _setting(
        "KINDRED_CONNECTIONS_PER_ADDRESS",
        _count(0, 100_000),
        200,
        "Open connections that an API process takes from one address (IPv6: /64) but a trusted proxy's; 0: any number.",
    )
    metrics_port: int = _setting(
        "KINDRED_METRICS_PORT", _port, 0, "Port of `/metrics`; the worker takes the next one. 0: off."
    )
    database_url: str | None = _setting(
        "DATABASE_URL",
        _url("postgresql", "postgres"),
        None,
        "PostgreSQL 16 or newer with pgvector 0.8; may go through a pooler. Unset: embedded.",
        secret=True,
    )
    direct_database_url: str | None = _setting(
        "KINDRED_DIRECT_DATABASE_URL",
        _url("postgresql", "postgres"),
        None,
        "The same database without a pooler: migrations, queue. Unset: `DATABASE_URL`.",
        secret=True,
    )
    blob: str | None = _setting(
        "KINDRED_BLOB",
        _url("file", "s3"),
        None,
        "Uploads and photos: `file:///folder` or `s3://bucket/prefix`. Unset: below the data folder.",
    )
    s3_endpoint: str | None = _setting(
        "AWS_ENDPOINT_URL_S3", _url("http", "https"), None, "Address of an S3-compatible store."
    )
    models_text: str = _setting(
        "KINDRED_MODELS_TEXT", str, "all-minilm-l6-v2", "Text model pack: a name, a folder or `s3://…`."
    )
    models_image: str = _setting(
        "KINDRED_MODELS_IMAGE", str, "kindred-image-v1", "Image model pack: a name, a folder or `s3://…`."
    )
    encoder_url: str | None = _setting(
        "KINDRED_ENCODER_URL",
        _url("unix", "tcp"),
        None,
        "Where queries are encoded: `unix:///path` or `tcp://127.0.0.1:port`. Unset: a socket of the data folder.",
    )
    encoder_threads: int = _setting(
        "KINDRED_ENCODER_THREADS", _count(1, 64), 2, "Threads of the encoders when they encode the catalogue."
    )
    secret_key: str | None = _setting(
        "KINDRED_SECRET_KEY",
        _secret,
        None,
        "Secret that API keys are hashed with; at least 32 characters. Unset: made once in the data folder.",
        secret=True,
    )
    secret_key_old: tuple[str, ...] = _setting(
        "KINDRED_SECRET_KEY_OLD",
        _secrets,
        (),
        "Secrets that are believed beside the current one while it is changed, comma-separated (docs/secrets.md).",
        secret=True,
    )
    cell: str = _setting("KINDRED_CELL", _cell, "00", "Two-character code of this database in every API key.")
    events_retention_days: int = _setting(
        "KINDRED_EVENTS_RETENTION_DAYS",
        _count(0, 36_500),
        800,
        "Days that events are kept; dropped by whole months. 0: for ever.",
    )
    tenant_grace_days: int = _setting(
        "KINDRED_TENANT_GRACE_DAYS",
        _count(0, 365),
        7,
        "Days that a deleted tenant can be had back; then its rows and files are erased. 0: within minutes.",
    )
    log: Literal["json", "console"] = _setting(
        "KINDRED_LOG", _one_of("json", "console"), "console", "Form of the log lines."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "KINDRED_LOG_LEVEL",
        _one_of("debug", "info", "warning", "error"),
        "info",
        "Least level that is logged.",
    )
    cache_mb: int = _setting(
        "KINDRED_CACHE_MB", _count(1, 100_000), 48, "Megabytes of answers and items that an API process keeps at most."
    )
    fetch_allow: tuple[Allowance, ...] = _setting(
        "KINDRED_FETCH_ALLOW",
        parse_allowances,
        (),
        "What photos and feeds may be fetched from, and webhooks sent to (these also without TLS), beside the public "
        "internet on ports 80 and 443: hosts or networks, each with a port or without, comma-separated: "
        "`photos.lan:9000,10.0.0.0/8,[fd00::/8]:8080`.",
    )

    entitlements: Literal["licence", "plans"] = _setting(
        "KINDRED_ENTITLEMENTS",
        _one_of("licence", "plans"),
        "licence",
        "What a shop may do: `licence` (an installation of one's own: no limits but those of keys) or `plans` (by the "
        "plan of each shop).",
    )
    public_url: str | None = _setting(
        "KINDRED_PUBLIC_URL",
        _origin,
        None,
        "Where people reach this server, as `https://kindred.example`: links in mails begin with it. "
        "Unset: `KINDRED_HOST` and `KINDRED_PORT`.",
    )
    signup: Literal["open", "invite", "closed"] = _setting(
        "KINDRED_SIGNUP",
        _one_of("open", "invite", "closed"),
        "open",
        "Who may make an account: anybody, who is invited, or nobody.",
    )
    smtp_url: str | None = _setting(
        "KINDRED_SMTP_URL",
        _url("smtp", "smtps"),
        None,
        "Mail server: `smtp://user:password@host:587` (STARTTLS) or `smtps://…:465`; `?tls=` off, offered or required. "
        "Unset: mails are written to `mail` in the data folder.",
        secret=True,
    )
    mail_from: str = _setting(
        "KINDRED_MAIL_FROM", _mailbox, "Kindred <kindred@localhost>", "Sender of the mails to people with an account."
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "KINDRED_TRUSTED_PROXIES",
        _networks,
        (),
        "Networks of the proxies before this server, comma-separated: only theirs is `X-Forwarded-For` believed.",
    )

    oidc_issuer: str | None = _setting(
        "KINDRED_OIDC_ISSUER",
        _issuer,
        None,
        "OpenID Connect provider that people sign in with ([sso.md](sso.md)): its issuer, exactly as it writes it.",
    )
    oidc_client_id: str | None = _setting(
        "KINDRED_OIDC_CLIENT_ID", _mark, None, "What the provider calls this installation."
    )
    oidc_client_secret: str | None = _setting(
        "KINDRED_OIDC_CLIENT_SECRET", _mark, None, "The secret that goes with it. Unset: a public client.", secret=True
    )
    oidc_name: str = _setting(
        "KINDRED_OIDC_NAME", _button, "your organisation", "What people call the provider: “Sign in with …”."
    )
    oidc_domains: frozenset[str] = _setting(
        "KINDRED_OIDC_DOMAINS",
        _domains,
        frozenset(),
        "Domains of e-mail addresses, comma-separated: their people, and nobody else, sign in with the provider, "
        "and in no other way.",
    )
    oidc_role: Literal["admin", "developer", "analyst", "billing"] = _setting(
        "KINDRED_OIDC_ROLE",
        _one_of("admin", "developer", "analyst", "billing"),
        "developer",
        "Role of who signs in with the provider for the first time.",
    )
    oidc_organisation: UUID | None = _setting(
        "KINDRED_OIDC_ORGANISATION",
        _uuid,
        None,
        "Id of the organisation that they join. Unset: one that is made when the first of them signs in, who owns it.",
    )

    @property
    def public_origin(self) -> str:
        """Where people reach this server, the default included; without a slash at its end."""
        if self.public_url is not None:
            return self.public_url
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - a listener's name
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    @property
    def blob_url(self) -> str:
        """The blob store's URL, the default included."""
        return self.blob or (self.data_dir.absolute() / "blobs").as_uri()

    @property
    def models_dir(self) -> Path:
        """Folder that model packs are fetched into and built in."""
        return self.data_dir / "models"

    @property
    def encoder_address(self) -> str:
        """Where the encode worker listens for queries, the default included."""
        if self.encoder_url is not None:
            return self.encoder_url
        path = self.data_dir.absolute() / "encoder.sock"
        if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
            digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"kindred-{digest}.sock"
        return f"unix://{path}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment. Raises BadSettings naming every unknown or malformed setting."""
        env = os.environ if environ is None else environ
        faults = [
            FieldError(pointer=name, code="unknown_setting", message=f"{name} is not a setting of Kindred.")
            for name in env
            if name.startswith("KINDRED_") and name not in SETTINGS and name.removesuffix(FILE) not in SECRETS
        ]
        values: dict[str, Any] = {}
        for attribute, spec in _specs():
            try:
                raw = _from_file(spec.name, env) if spec.secret and env.get(spec.name + FILE) else env.get(spec.name)
                if raw:
                    values[attribute] = spec.parse(raw)
            except ValueError as error:
                faults.append(FieldError(pointer=spec.name, code="malformed_setting", message=f"{spec.name}: {error}."))
        faults.extend(_oidc_faults(values))
        for kind, pack in read_chosen(values.get("data_dir", Path(".kindred"))).items():
            values.setdefault(f"models_{kind}", pack)
        if faults:
            lines = "; ".join(fault.message for fault in faults)
            raise BadSettings(f"{lines} See docs/settings.md.", errors=faults)
        return cls(**values)


def _oidc_faults(values: Mapping[str, Any]) -> Iterator[FieldError]:
    """What a provider needs beside its issuer: without domains, whoever has an account there would be let in."""
    given = {spec.name for attribute, spec in _specs() if attribute.startswith("oidc_") and attribute in values}
    given.discard("KINDRED_OIDC_CLIENT_SECRET")  # alone it lets nobody in
    needed = ("KINDRED_OIDC_ISSUER", "KINDRED_OIDC_CLIENT_ID", "KINDRED_OIDC_DOMAINS")
    if given:
        for name in needed:
            if name not in given:
                message = f"{name} is needed too, to sign in with an OpenID Connect provider."
                yield FieldError(pointer=name, code="missing_setting", message=message)


def read_chosen(data_dir: Path) -> dict[str, str]:
    """The packs that `kindred models use` chose for this data folder, by kind; the environment wins over them."""
    try:
        return msgspec.json.decode((data_dir / _CHOSEN).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError) as error:
        raise BadSettings(f"{data_dir / _CHOSEN} cannot be read ({error}); remove it.") from error


def write_chosen(data_dir: Path, chosen: Mapping[str, str]) -> None:
    """Remember the packs of this data folder, whole or not at all."""
    path = data_dir / _CHOSEN
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(".chosen.json")
    aside.write_bytes(msgspec.json.encode(chosen))
    aside.replace(path)


def _from_file(name: str, env: Mapping[str, str]) -> str:
    """A secret as a mounted file holds it, which may end in a newline. Raises ValueError."""
    if env.get(name):
        raise ValueError(f"set it or {name}{FILE}, not both")
    path = env[name + FILE]
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{path} cannot be read ({reason})") from error
    if not found:
        raise ValueError(f"{path} is empty")
    return found


def _specs() -> list[tuple[str, _Spec]]:
    return [(f.name, f.metadata["spec"]) for f in fields(Settings)]


def _default(f: Field[Any]) -> str:
    return "" if f.default in (None, MISSING, (), frozenset()) else str(f.default)


SETTINGS: Mapping[str, tuple[str, str]] = {
    f.metadata["spec"].name: (_default(f), f.metadata["spec"].doc) for f in fields(Settings)
}
"""Name of the environment variable -> (default as text, what it does)."""

SECRETS: frozenset[str] = frozenset(spec.name for _, spec in _specs() if spec.secret)
"""The settings that may be given by a file, named by the setting's name and `_FILE`."""


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True

"""Logs and metrics of a process.

Logs are structlog events on stderr (stdout belongs to commands that print results): one event per thing
that happened, named noun.verb, ids bound by `structlog.contextvars`. Neither shoppers' and shops' texts nor
secrets reach the log, whoever logs: fields that hold texts are dropped by name; keys, passwords, e-mail and
internet addresses are cut out of every string; errors are told by places and types (infra/traces.py); the standard
library's loggers included.

Metrics belong to the one `REGISTRY`, named `<noun>_<unit>_total|seconds`, and are served on a port of their
own, one per process: a scraper adds the processes up, no files are shared between them.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from threading import Thread
from typing import Any, Final, Generic, Literal, TextIO, TypeVar
from wsgiref.simple_server import WSGIServer

import msgspec
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.metrics import MetricWrapperBase
from structlog.typing import EventDict, Processor, WrappedLogger

from infra.traces import format_trace

Level = Literal["debug", "info", "warning", "error"]

# What shops and shoppers wrote, and what identifies a person. A field of such a name is dropped from every
# event: a log is read by more people, and kept longer, than the catalogue it speaks of.
_TEXTS: Final = frozenset(
    {
        "attributes",
        "body",
        "brand",
        "categories",
        "client_ip",
        # Uvicorn's second copy of its message, with colours.
        "color_message",
        "description",
        "document",
        "email",
        "ip",
        "item",
        "items",
        "password",
        "payload",
        "query",
        "query_string",
        "remote_addr",
        "tags",
        "text",
        "texts",
        "title",
    }
)
_SECRET_NAMES: Final = re.compile(r"(?i)authorization|cookie|secret|token|api_?key|(?:^|_)key$")


def _address(found: re.Match[str]) -> str:
    """What stands for an internet address; a time, a version or this machine itself is none."""
    try:
        address = ip_address(found[0])
    except ValueError:
        return found[0]
    if address.is_loopback or address.is_unspecified or not any(each.isdigit() for each in found[0]):
        return found[0]
    return "[ip]"


_SECRETS: Final[Sequence[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]]] = (
    # Our keys (`sk_…`, `pk_…`) and Stripe's (`sk_live_…`, `whsec_…`): the kind stays, the rest goes.
    (re.compile(r"\b(sk|pk|rk|whsec)_[A-Za-z0-9_\-]{6,}"), r"\1_[redacted]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]{6,}"), r"\1 [redacted]"),
    # Passwords inside addresses: postgresql://user:password@host.
    (re.compile(r"(\w://[^\s:/@]*):[^\s/@]+@"), r"\1:[redacted]@"),
    # What follows "?" in an address may hold a publishable key or a signature: a query string is never
    # logged.
    (re.compile(r"(?i)([?&](?:key|token|signature|x-amz-[a-z-]+)=)[^&\s\"']+"), r"\1[redacted]"),
    # What asyncio says of a task that nobody waited for.
    (re.compile(r"(?m)\b(exception=\w+)\(.*$"), r"\1(…)"),
    # PostgreSQL tells the row that it refuses.
    (re.compile(r"(?m)(DETAIL|CONTEXT|parameters): .*$"), r"\1: [redacted]"),
    # People: e-mail addresses, escaped ones too, and addresses of the internet but for this machine's own.
    (
        re.compile(
            r"(?<![^\s@<>\"()\[\],:;\\/=?&])[^\s@<>\"()\[\],:;\\/=?&]+(?:@|%40)(?:[\w\-]|%[0-9A-Fa-f]{2}){1,63}\.[\w.\-]{0,190}\w"
        ),
        "[email]",
    ),
    (re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"), _address),
    (re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{3,39}(?![\w:])"), _address),
)
# What none of the patterns above can match: most values of a request's line. Possessive, as it is asked of any text.
_HARMLESS: Final = re.compile(r"(?:[A-Za-z0-9/\-]++|\{[a-z_]++\}|\.(?=[A-Za-z]))*+")
_MAX_CHARS: Final = 4000
_LOOKED_AT: Final = 5 * _MAX_CHARS
"""Of a longer text only the ends are kept; what is cut here lies far from them."""
_MAX_DEPTH: Final = 4
_PLAIN: Final = (bool, int, float)
_NAME: Final = re.compile(r"[a-z]+(_[a-z0-9]+)+")
_COUNTER_NAME: Final = re.compile(r"[a-z]+(_[a-z0-9]+)*_total")
# Answers are promised in 80 ms and counted from a millisecond; jobs take up to minutes.
LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 60.0)

REGISTRY: Final = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

Metric = TypeVar("Metric", bound=MetricWrapperBase)


def configure_logging(
    format: Literal["json", "console"] = "json",
    level: Level = "info",
    *,
    stream: TextIO | None = None,
) -> None:
    """Send structlog's and the standard library's events to `stream` (stderr) in one form; repeatable.

    "json" is one object a line with `timestamp` (UTC), `level`, `event`, `logger`; "console" is for eyes.
    Uvicorn's access log is silenced, for it prints query strings; the API logs its own event per request.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.ExceptionRenderer(lambda told: format_trace(told[1])),
        redact,
    ]
    render: Processor = (
        structlog.processors.JSONRenderer(serializer=_json)
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries at debug and info tell of every request and statement, texts included.
    root.setLevel(max(number, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "kindred"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(number)
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    access.disabled = True
    logging.captureWarnings(True)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: drop the fields that hold texts, cut secrets out of every other."""
    return {name: _clean(name, value, 0) for name, value in event.items() if name not in _TEXTS}


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


def _clean(name: str, value: Any, depth: int) -> Any:
    if name == "timestamp":  # made here
        return value
    if value is None or isinstance(value, _PLAIN):
        return value
    if _is_secret(name):
        return "[redacted]"
    if type(value) is str and len(value) <= _MAX_CHARS and _HARMLESS.fullmatch(value):
        return value
    if depth >= _MAX_DEPTH:
        return "[…]"
    if isinstance(value, Mapping):
        return {str(inner): _clean(str(inner), each, depth + 1) for inner, each in value.items() if inner not in _TEXTS}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes | bytearray):
        return [_clean(name, each, depth + 1) for each in value]
    if isinstance(value, bytes | bytearray):
        return f"[{len(value)} bytes]"
    text = value if isinstance(value, str) else str(value)
    if len(text) > _LOOKED_AT:
        text = text[: _LOOKED_AT // 4] + text[-_LOOKED_AT * 3 // 4 :]
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    # The end of a traceback says more than its middle.
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS // 4]} […] {text[-_MAX_CHARS * 3 // 4 :]}"


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event).decode()


def counter(name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
    """A counter `<noun>_<unit>_total` of `REGISTRY`. Raises `ValueError` for another form of name."""
    if not _COUNTER_NAME.fullmatch(name):
        raise ValueError(f"{name}: a counter is called <noun>_<unit>_total")
    return Counter(name, doc, labels, registry=REGISTRY)


def histogram(
    name: str, doc: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = LATENCY_BUCKETS_S
) -> Histogram:
    """A histogram `<noun>_seconds` (or `_bytes`, `_rows`) of `REGISTRY`. Raises `ValueError` for a bad name."""
    if not _NAME.fullmatch(name) or name.endswith("_total"):
        raise ValueError(f"{name}: a histogram is called <noun>_<unit>")
    return Histogram(name, doc, labels, registry=REGISTRY, buckets=buckets)


def gauge(name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge `<noun>_<unit>` of `REGISTRY`. Raises `ValueError` for a bad name."""
    if not _NAME.fullmatch(name) or name.endswith("_total"):
        raise ValueError(f"{name}: a gauge is called <noun>_<unit>")
    return Gauge(name, doc, labels, registry=REGISTRY)


class Children(Generic[Metric]):
    """The children of a labelled metric by their label values, kept: `requests("similar", "200").inc()`.

    `labels()` takes a lock and checks every value, twice the price of the increment itself. Beyond `limit`
    combinations all values read "other", so that a label a stranger can choose never fills the memory.
    """

    def __init__(self, metric: Metric, *, limit: int = 500) -> None:
        self._metric = metric
        self._limit = limit
        self._known: dict[tuple[str, ...], Metric] = {}

    def __call__(self, *values: str) -> Metric:
        """The child for these label values, in the order that the metric was made with."""
        child = self._known.get(values)
        if child is None:
            if len(self._known) >= self._limit:
                return self._metric.labels(*("other" for _ in values))
            child = self._known[values] = self._metric.labels(*values)
        return child


class MetricsServer:
    """A running `/metrics`; `port` is the one really listened on."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(port: int, host: str = "127.0.0.1", *, registry: CollectorRegistry = REGISTRY) -> MetricsServer:
    """Serve the registry on its own port in a thread of its own; port 0 takes a free one.

    Raises `OSError` when the port is taken.
    """
    return MetricsServer(*start_http_server(port, host, registry))

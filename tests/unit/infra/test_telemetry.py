"""infra.telemetry: what may be read in a log, and what a scraper finds."""

import io
import json
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from infra.telemetry import (
    REGISTRY,
    Children,
    configure_logging,
    counter,
    gauge,
    histogram,
    redact,
    serve_metrics,
)

KEY = "sk_00ab3f_Zx81kLmNoPqRsTuVwXyZ0123456"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Logging at debug as JSON into memory, and everything as it was afterwards."""
    names = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "kindred")
    before = [
        (logger, list(logger.handlers), logger.level, logger.propagate, logger.disabled)
        for logger in map(logging.getLogger, names)
    ]
    stream = io.StringIO()
    configure_logging("json", "debug", stream=stream)
    yield stream
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for logger, handlers, level, propagate, disabled in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
        logger.disabled = disabled


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line(log: io.StringIO) -> None:
    """One event is one JSON object with its name, level, time and fields, bound ones included."""
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger().info("items.encoded", count=3, tenant_id="t1")
    (line,) = lines(log)
    assert line["event"] == "items.encoded"
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")
    assert (line["request_id"], line["tenant_id"], line["count"]) == ("r1", "t1", 3)


def test_the_level(log: io.StringIO) -> None:
    """Below the level nothing is written."""
    configure_logging("json", "warning", stream=log)
    structlog.get_logger().info("items.encoded")
    logging.getLogger("uvicorn.error").info("started")
    structlog.get_logger().warning("items.slow")
    assert [line["event"] for line in lines(log)] == ["items.slow"]


def test_the_console_form(log: io.StringIO) -> None:
    """The form for eyes has no colours where there is no terminal, and redacts alike."""
    configure_logging("console", "info", stream=log)
    structlog.get_logger().info("keys.made", note=f"made {KEY}")
    assert "keys.made" in log.getvalue()
    assert "\x1b[" not in log.getvalue()
    assert KEY not in log.getvalue()


def test_texts_are_dropped(log: io.StringIO) -> None:
    """What a shop wrote never reaches the log, at any depth."""
    structlog.get_logger().info(
        "items.failed", title="Red shoe", query="red", item={"id": "1"}, row={"line": 4, "description": "Very red"}
    )
    (line,) = lines(log)
    assert line["row"] == {"line": 4}
    assert "red" not in log.getvalue().lower().replace("redacted", "")


@pytest.mark.parametrize(
    "text",
    [
        f"key {KEY} refused",
        "pk_00zz9A_abcdefghijklmnopqrstuvwxyz",
        "sk_live_51AbCdEfGhIjKlMn",
        "whsec_abcdefghijkl123456",
        "Authorization: Bearer abcdef.ghijkl",
        "postgresql://app:hunter22hunter@db.example/kindred",
        "GET /v1/events?key=hunter22hunter&x=1",
        "https://bucket/x?X-Amz-Signature=hunter22hunter",
    ],
)
def test_secrets_are_cut_out(text: str) -> None:
    """Keys, tokens and passwords are cut out of any string, whatever the field."""
    cleaned = redact(None, "info", {"event": text, "fields": [{"deep": text}]})
    for secret in (KEY[3:], "abcdefghijkl", "51AbCd", "abcdef.ghijkl", "hunter22hunter"):
        assert secret not in str(cleaned)
    assert "[redacted]" in cleaned["event"]


@pytest.mark.parametrize(
    "text",
    [
        "mail to maria@shop.example failed",
        "maria.o'neil+x@a-b.co.uk",
        "/v1/users/maria%40shop.example",
        "мария@магазин.рф",
        "'maria@shop.example'",
        "user=maria@shop.example;",
        "<maria@shop.example>",
    ],
)
def test_email_addresses_are_cut_out(text: str) -> None:
    """Whatever stands around them, and escaped ones too."""
    cleaned = str(redact(None, "info", {"event": text, "deep": [{"x": text}]}))
    assert "[email]" in cleaned
    for word in ("maria", "shop.example", "мария", "a-b.co"):
        assert word not in cleaned


@pytest.mark.parametrize(
    "address",
    ["203.0.113.7", "10.1.2.3", "2001:db8::7", "2001:db8:0:1:2:3:4:5", "fe80::1", "::ffff:203.0.113.7", "2001:db8::"],
)
@pytest.mark.parametrize("around", ["{}", "from {} to x", "[{}]:443", "({}),", "http://[{}]/x", "peer={}"])
def test_internet_addresses_are_cut_out(address: str, around: str) -> None:
    """Of either version."""
    cleaned = redact(None, "info", {"event": around.format(address)})["event"]
    assert "[ip]" in cleaned
    assert address.removeprefix("::ffff:") not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:8000",
        "::1",
        "PostgreSQL 18.4",
        "1.2.3",
        "12:30:59",
        "2026-11-29T09:44:20.123456Z",
        "std::vector",
        "infra.telemetry:redact",
        "@media",
        "a@b",
        "items.encoded",
    ],
)
def test_what_is_nobodys_address_stays(text: str) -> None:
    """Versions, times, names, and this machine itself."""
    assert redact(None, "info", {"event": text, "timestamp": text}) == {"event": text, "timestamp": text}


@pytest.mark.parametrize("unit", ["a", "a.", "1:", "1.", "@", "a@", "%40", "'", ":", "sk_", "/"])
def test_long_texts_take_no_time(unit: str) -> None:
    """No pattern looks at a text more often than a few times over."""
    assert len(redact(None, "info", {"exception": unit * 400_000})["exception"]) <= 4010


def test_a_traceback_does_not_quote(log: io.StringIO) -> None:
    """Where it happened and what kind of thing, but not what it said, nor the row that PostgreSQL refused."""
    try:
        try:
            int("secretword")
        except ValueError as error:
            raise KeyError("secretword") from error
    except KeyError:
        structlog.get_logger().exception("http.failed")
    structlog.get_logger().error("x", reason="duplicate key\nDETAIL:  Key (id)=(secretword) exists.\nHINT:  None.")
    first, second = lines(log)
    assert "KeyError" in first["exception"]
    assert "ValueError\nIt led to:\n" in first["exception"]
    assert "test_telemetry.py" in first["exception"]
    assert "secretword" not in first["exception"].replace('int("secretword")', "").replace('KeyError("secretword")', "")
    assert second["reason"] == "duplicate key\nDETAIL: [redacted]\nHINT:  None."


def test_what_asyncio_says_of_a_lost_task() -> None:
    """It shows the error as Python would write it."""
    told = "Task exception was never retrieved\nfuture: <Task finished exception=ValueError('no user maria')>"
    assert redact(None, "error", {"event": told})["event"].endswith("exception=ValueError(…)")


@pytest.mark.parametrize("name", ["api_key", "apikey", "Authorization", "secret_key", "token", "key", "cookie"])
def test_fields_named_like_secrets(name: str) -> None:
    """A field that is called a secret is one, whatever its value looks like."""
    assert redact(None, "info", {name: "plain-looking"}) == {name: "[redacted]"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=30), st.integers(20, 60))
def test_a_key_anywhere_in_a_text(around: str, length: int) -> None:
    """A key is cut out wherever it stands as a word."""
    key = "sk_" + "Ab3" * (length // 3)
    cleaned = redact(None, "info", {"event": f"{around} {key} {around}"})
    assert key not in cleaned["event"]


def test_numbers_and_ids_stay() -> None:
    """Ids, numbers, flags and nothing pass unchanged."""
    event = {"tenant_id": "0190-ab", "count": 5, "share": 0.5, "ok": True, "none": None, "sku_key_count": 2}
    assert redact(None, "info", dict(event)) == event


def test_long_values_are_shortened() -> None:
    """A value keeps its beginning and, for tracebacks, its end."""
    cleaned = redact(None, "info", {"exception": "begin" + "x" * 100_000 + "end"})["exception"]
    assert len(cleaned) < 5000
    assert cleaned.startswith("begin")
    assert cleaned.endswith("end")


def test_bytes_and_cycles() -> None:
    """Bytes are told by their number, and what contains itself ends."""
    loop: list[Any] = []
    loop.append(loop)
    assert redact(None, "info", {"data": b"abc", "loop": loop})["data"] == "[3 bytes]"


def test_an_exception_without_its_variables(log: io.StringIO) -> None:
    """A traceback shows lines and not the values of variables, and its message is redacted too."""
    private = "blue velvet dress"
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        structlog.get_logger().exception("items.failed")
    (line,) = lines(log)
    assert "ValueError" in line["exception"]
    assert KEY not in line["exception"]
    assert private not in line["exception"]


def test_the_standard_librarys_loggers(log: io.StringIO) -> None:
    """Libraries log into the same stream, in the same form, redacted; their chatter below warning is left out."""
    logging.getLogger("some.library").warning("refused %s", KEY)
    logging.getLogger("some.library").info("statement with a text")
    (line,) = lines(log)
    assert line["logger"] == "some.library"
    assert line["level"] == "warning"
    assert line["event"] == "refused sk_[redacted]"


def test_uvicorn(log: io.StringIO) -> None:
    """Uvicorn's own events are logged once, its access log, which prints query strings, never."""
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("uvicorn.access").info('"POST /v1/events?key=%s"', KEY)
    assert [line["event"] for line in lines(log)] == ["started"]


def test_warnings_are_logged(log: io.StringIO) -> None:
    """A Python warning becomes an event instead of a loose line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("something is old", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert any("something is old" in line["event"] for line in lines(log))


def test_configuring_twice(log: io.StringIO) -> None:
    """Configuring again replaces; no event is written twice."""
    configure_logging("json", "info", stream=log)
    logging.getLogger("some.library").warning("once")
    structlog.get_logger().info("items.encoded")
    assert len(lines(log)) == 2


def test_metrics_on_their_own_port() -> None:
    """A scraper finds the registry on the port told, and nobody after it is closed."""
    registry = CollectorRegistry()
    Counter("things_seen_total", "Things.", registry=registry).inc(3)
    server = serve_metrics(0, registry=registry)
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert b"things_seen_total 3.0" in answer.read()
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=20)


def test_a_taken_port() -> None:
    """A port that is taken is an OSError at start, not a silent nothing."""
    server = serve_metrics(0, registry=CollectorRegistry())
    try:
        with pytest.raises(OSError, match="in use"):
            serve_metrics(server.port, registry=CollectorRegistry())
    finally:
        server.close()


def test_children_are_kept() -> None:
    """The same label values give the same child, which counts into the metric."""
    registry = CollectorRegistry()
    children = Children(Counter("answers_sent_total", "Answers.", ["status"], registry=registry))
    assert children("200") is children("200")
    children("200").inc()
    children("404").inc(2)
    assert registry.get_sample_value("answers_sent_total", {"status": "404"}) == 2


def test_children_are_bounded() -> None:
    """Beyond the limit every new label value is "other"."""
    registry = CollectorRegistry()
    children = Children(Counter("paths_seen_total", "Paths.", ["path"], registry=registry), limit=3)
    for n in range(100):
        children(str(n)).inc()
    assert registry.get_sample_value("paths_seen_total", {"path": "other"}) == 97


@pytest.mark.parametrize("name", ["things", "ThingsTotal", "things_", "things_total_", "_total", "things-seen-total"])
def test_names_of_counters(name: str) -> None:
    """A counter that is not called <noun>_<unit>_total is refused before it is registered."""
    with pytest.raises(ValueError, match="_total"):
        counter(name, "Things.")


@pytest.mark.parametrize("name", ["latency", "Things_seconds", "things_total", "things seconds"])
def test_names_of_the_others(name: str) -> None:
    """Histograms and gauges carry a unit and never end in _total."""
    with pytest.raises(ValueError, match="<unit>"):
        histogram(name, "Things.")
    with pytest.raises(ValueError, match="<unit>"):
        gauge(name, "Things.")


def test_the_process_is_measured() -> None:
    """The registry tells the process's own memory and time."""
    names = {family.name for family in REGISTRY.collect()}
    assert "process_resident_memory_bytes" in names

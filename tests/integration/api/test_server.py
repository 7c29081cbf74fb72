"""The process itself: `python -m api` over real HTTP."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.api.server import Server, free_port, running


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with running(database_url, tmp_path) as started:
        yield started


def test_sigterm_ends_it_in_order(server: Server) -> None:
    """Exit status 0, and the port is free again."""
    assert server.end() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health/live")


def test_what_is_in_hand_is_finished_after_sigterm(server: Server) -> None:
    """A request whose body is still on its way is answered."""
    host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
    assert host
    with socket.create_connection((host, port or 80)) as client:
        client.sendall(
            b"POST /v1/recommend HTTP/1.1\r\nHost: kindred\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        client.settimeout(30)
        first = client.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        client.sendall(b"{}")
        answered = first + client.recv(4000)
    assert b" 401 " in answered
    assert server.process.wait(30) == 0


def test_logs_are_one_line_of_json_per_request(server: Server) -> None:
    """With the request id, and without the query string."""
    httpx.get(f"{server.url}/v1/items?key=pk_0000", headers={"x-request-id": "a-sane-request-id"})
    server.end()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "a-sane-request-id"]
    assert (line["event"], line["status"], line["route"]) == ("http.request", 401, "/v1/items")
    assert "pk_0000" not in server.log.read_text()


def test_metrics_have_a_port_of_their_own(database_url: str, tmp_path: Path) -> None:
    """Requests are counted by the route's template; the API's own port shows none."""
    port = free_port()
    with running(database_url, tmp_path, KINDRED_METRICS_PORT=str(port)) as server:
        httpx.get(f"{server.url}/v1/items/secret-lamp")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'http_requests_total{method="GET",route="/v1/items/{item_id}",status="401"} 1.0' in metrics
        assert "secret-lamp" not in metrics
        assert httpx.get(f"{server.url}/metrics").status_code == 404


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"KINDRED_PROT": "8000"}, "KINDRED_PROT"),
        ({"KINDRED_PORT": "many"}, "KINDRED_PORT"),
        ({}, "DATABASE_URL"),
    ],
)
def test_a_bad_setting_is_told_at_start(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    """By name, on standard error, with exit status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        env={"PATH": "/usr/bin:/bin", "KINDRED_DATA_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_client_that_stops_half_way_harms_nobody(server: Server) -> None:
    """Others are answered meanwhile, although there are three connections to the database."""

    async def half(url: str) -> asyncio.StreamWriter:
        parts = urlsplit(url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"POST /v1/imports HTTP/1.1\r\nHost: kindred\r\nContent-Length: 1000000\r\n\r\nhalf")
        await writer.drain()
        return writer

    async def main() -> int:
        writers = [await half(server.url) for _ in range(50)]
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.get(f"{server.url}/health/live")
        for writer in writers:
            writer.close()
        return answer.status_code

    assert asyncio.run(main()) == 200


def test_connections_that_say_nothing_lock_nobody_out(database_url: str, tmp_path: Path) -> None:
    """A thousand of them, half with a head that never ends; from one address only so many are taken."""
    with running(database_url, tmp_path, KINDRED_CONNECTIONS_PER_ADDRESS="0") as server:
        parts = urlsplit(server.url)
        held = [socket.create_connection((parts.hostname, parts.port)) for _ in range(1001)]
        for each in held[::2]:
            each.sendall(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        for each in held:
            each.close()
        server.end()
    with running(database_url, tmp_path, KINDRED_CONNECTIONS_PER_ADDRESS="2") as server:
        parts = urlsplit(server.url)
        address = (parts.hostname, parts.port)
        with socket.create_connection(address), socket.create_connection(address), pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/health/live")
        server.end()

"""Packs fetched over real sockets: a local server that answers as the hub does, and moto's S3."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from workers.encoders import registry, sources
from workers.encoders.pack import BadPack, verify_pack
from workers.encoders.registry import HubFile, KnownPack, open_pack
from workers.encoders.sources import FetchFailed, fetch_pack

REVISION = "0123456789abcdef0123456789abcdef01234567"
MODEL = bytes(range(256)) * 8000
FILES = {
    f"/acme/pack/resolve/{REVISION}/onnx/model.onnx": MODEL,
    f"/acme/pack/resolve/{REVISION}/config.json": b"{}",
}


class Hub:
    """A server of `/{repo}/resolve/{revision}/{file}` with redirects, ranges and faults to order."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.cut_after: int | None = None
        self.statuses: list[int] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.requests.append((self.path, self.headers.get("range"), self.headers.get("authorization")))
                if hub.statuses:
                    self.reply(hub.statuses.pop(0), b"")
                elif self.path.startswith("/cdn"):
                    self.content(hub.files[self.path.removeprefix("/cdn")])
                elif self.path in hub.files:
                    self.send_response(302)
                    self.send_header("location", "/cdn" + self.path)
                    self.send_header("content-length", "0")
                    self.end_headers()
                else:
                    self.reply(404, b"Entry not found")

            def content(self, data: bytes) -> None:
                start = int((self.headers.get("range") or "bytes=0-")[6:-1])
                if start >= len(data):
                    self.reply(416, b"", f"bytes */{len(data)}")
                    return
                body = data[start:]
                self.send_response(206 if start else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if hub.cut_after is not None and len(body) > hub.cut_after:
                    self.wfile.write(body[: hub.cut_after])
                    hub.cut_after = None
                    self.close_connection = True
                    return
                self.wfile.write(body)

            def reply(self, status: int, body: bytes, content_range: str | None = None) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                if content_range:
                    self.send_header("content-range", content_range)
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub on a free port."""
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> KnownPack:
    """A hub pack of two files: the model with a known sha256, the configuration without; no waiting."""
    pack = KnownPack(
        name="acme",
        kind="text",
        dim=8,
        source="hub",
        licence="MIT",
        about="",
        size_mb=2,
        repository="acme/pack",
        revision=REVISION,
        files=[
            HubFile(path="model.onnx", source="onnx/model.onnx", sha256=hashlib.sha256(MODEL).hexdigest()),
            HubFile(path="config.json"),
        ],
    )
    monkeypatch.setattr(registry, "list_packs", lambda: (pack,))
    monkeypatch.setattr(sources.time, "sleep", lambda seconds: None)
    return pack


def test_a_hub_pack_is_fetched_verified_and_opened(hub: Hub, tmp_path: Path) -> None:
    """Files come from the pinned revision through the hub's redirect; progress ends at the whole."""
    told: list[tuple[str, int, int | None]] = []
    pack = fetch_pack(
        "acme", tmp_path, environ={"HF_ENDPOINT": hub.address + "/"}, progress=lambda *step: told.append(step)
    )
    assert pack.manifest.revision == REVISION
    assert open_pack("acme", tmp_path) == pack
    assert (pack.folder / "model.onnx").read_bytes() == MODEL
    assert ("model.onnx", len(MODEL), len(MODEL)) in told
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["acme"]


def test_a_second_fetch_touches_no_network(hub: Hub, tmp_path: Path) -> None:
    """What is here and whole is only verified."""
    fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    before = len(hub.requests)
    fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    assert len(hub.requests) == before


def test_a_cut_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    """After a broken connection only the rest is asked for."""
    hub.cut_after = 1_000_000
    fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    ranges = [value for path, value, _ in hub.requests if path.endswith("model.onnx") and value]
    assert ranges
    assert int(ranges[0][6:-1]) > 0
    verify_pack(tmp_path / "acme")


def test_an_interrupted_fetch_is_resumed_by_the_next(hub: Hub, tmp_path: Path) -> None:
    """A fetch that gave up leaves its part; the next call asks for the rest alone."""
    part = tmp_path / f".acme.partial-{REVISION[:12]}" / "model.onnx.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(MODEL[:500_000])
    fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    assert any(value == "bytes=500000-" for _, value, _ in hub.requests)
    verify_pack(tmp_path / "acme")


def test_a_part_that_is_already_whole_is_taken(hub: Hub, tmp_path: Path) -> None:
    """The hub's 416 for a complete part is no failure."""
    part = tmp_path / f".acme.partial-{REVISION[:12]}" / "model.onnx.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(MODEL)
    verify_pack(fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address}).folder)


def test_a_file_with_another_sha256_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    """A mirror that serves other weights leaves nothing to be opened."""
    path = f"/acme/pack/resolve/{REVISION}/onnx/model.onnx"
    hub.files[path] = MODEL[:-1] + b"x"
    with pytest.raises(BadPack, match=r"model\.onnx of acme.*thrown away"):
        fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    assert not (tmp_path / "acme").exists()
    hub.files[path] = MODEL
    verify_pack(fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address}).folder)


def test_what_the_first_fetch_saw_holds_for_later_ones(hub: Hub, tmp_path: Path) -> None:
    """A file without a published sha256 is recorded; a later fetch of other bytes is refused."""
    fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    lock = json.loads((tmp_path / "acme.lock.json").read_bytes())
    assert lock["files"]["config.json"] == hashlib.sha256(b"{}").hexdigest()
    hub.files[f"/acme/pack/resolve/{REVISION}/config.json"] = b"{ }"
    with pytest.raises(BadPack, match=r"config\.json"):
        fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address}, again=True)
    verify_pack(tmp_path / "acme")


def test_a_damaged_pack_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    """`kindred models fetch` mends what `verify` found."""
    pack = fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    (pack.folder / "model.onnx").write_bytes(b"damaged")
    fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    verify_pack(pack.folder)


def test_a_busy_hub_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    """503 and 429 are tried again."""
    hub.statuses = [503, 429]
    verify_pack(fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address}).folder)


def test_a_missing_file_fails_at_once(hub: Hub, tmp_path: Path) -> None:
    """404 is not tried again, and the address is named."""
    hub.files.clear()
    with pytest.raises(FetchFailed, match=r"onnx/model\.onnx answered with status 404"):
        fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address})
    assert len(hub.requests) == 1


def test_a_private_repository_names_the_token(hub: Hub, tmp_path: Path) -> None:
    """HF_TOKEN is sent; a refusal says to set it."""
    hub.statuses = [401]
    with pytest.raises(FetchFailed, match="HF_TOKEN"):
        fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": hub.address, "HF_TOKEN": "t0ken"})
    assert hub.requests[0][2] == "Bearer t0ken"


def test_a_hub_that_is_away_is_a_clear_error(tmp_path: Path) -> None:
    """No connection becomes FetchFailed with the address."""
    with pytest.raises(FetchFailed, match="could not be fetched"):
        fetch_pack("acme", tmp_path, environ={"HF_ENDPOINT": "http://127.0.0.1:9"})


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """`s3://packs/mine` on a local moto server with a small pack in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="packs")
    manifest = {
        "name": "mine",
        "kind": "text",
        "dim": 8,
        "revision": "r1",
        "licence": "MIT",
        "files": {
            "model.onnx": hashlib.sha256(MODEL).hexdigest(),
            "a/b.json": hashlib.sha256(b"{}").hexdigest(),
        },
    }
    client.put_object(Bucket="packs", Key="mine/manifest.json", Body=json.dumps(manifest).encode())
    client.put_object(Bucket="packs", Key="mine/model.onnx", Body=MODEL)
    client.put_object(Bucket="packs", Key="mine/a/b.json", Body=b"{}")
    yield "s3://packs/mine"
    client.close()
    server.stop()


def test_a_pack_comes_from_s3(bucket: str, tmp_path: Path) -> None:
    """Manifest first, then its files; the pack is opened by the same address."""
    pack = fetch_pack(bucket, tmp_path / "models")
    assert (pack.folder / "a" / "b.json").read_bytes() == b"{}"
    assert open_pack(bucket, tmp_path / "models").manifest.name == "mine"


def test_a_changed_object_is_refused(bucket: str, tmp_path: Path) -> None:
    """An object that is not what the manifest says leaves no pack behind."""
    client = boto3.client("s3")
    client.put_object(Bucket="packs", Key="mine/model.onnx", Body=b"other")
    client.close()
    with pytest.raises(BadPack, match=r"model\.onnx"):
        fetch_pack(bucket, tmp_path / "models")
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


def test_an_empty_prefix_is_a_clear_error(bucket: str, tmp_path: Path) -> None:
    """A wrong address names itself and the settings to check."""
    with pytest.raises(FetchFailed, match=r"s3://packs/nothing could not be fetched.*AWS_ENDPOINT_URL_S3"):
        fetch_pack("s3://packs/nothing", tmp_path / "models")

"""The query encoder over a real Unix socket."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.encoder import (
    EncoderClient,
    EncodeRequest,
    EncoderUnavailable,
    QueryNotEncodable,
    pack_frame,
    parse_address,
)
from infra.errors import Invalid
from workers.encoders.server import EncodeServer
from workers.encoders.types import FloatArray, Photo, Role, Space

SPACE = "letters@1"


class Letters:
    """Counts a, b and c; notes each run; may be held to make requests wait."""

    space = Space(name=SPACE, kind="text", dim=3)

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.roles: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> FloatArray:
        self.entered.set()
        assert self.gate.wait(10)
        self.runs.append(len(texts))
        self.roles.append(role)
        if "boom" in texts:
            raise RuntimeError("broken model")
        return np.array([[text.count(c) for c in "abc"] for text in texts], np.float32)


class Brightness:
    """The mean colour of a photo."""

    space = Space(name="light@1", kind="image", dim=3)

    def encode(self, photos: Sequence[Photo]) -> FloatArray:
        return np.array([photo.mean(axis=(0, 1)) for photo in photos], np.float32)


def decode(data: bytes) -> Photo:
    if data == b"html":
        raise Invalid("The file is a web page, not a photo.")
    return np.full((2, 2, 3), data[0], np.uint8)


async def fetch(address: str) -> bytes:
    if address.endswith("/slow"):
        await asyncio.Event().wait()
    return bytes([len(address)])


Body = Callable[[EncodeServer, EncoderClient, Letters], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Runs a test's body with a server on a socket and a client that is patient unless told otherwise."""

    def go(body: Body, *, budget_s: float = 10, **options: Any) -> None:
        async def main() -> None:
            letters = Letters()
            server = EncodeServer(
                texts={SPACE: letters},
                photos={"light@1": Brightness()},
                fetch_photo=fetch,
                **({"decode_photo": decode} | options),
            )
            address = f"unix://{tmp_path}/encoder.sock"
            await server.start(address)
            client = EncoderClient(address, budget_s=budget_s)
            try:
                await body(server, client, letters)
            finally:
                letters.gate.set()
                await client.close()
                await server.close()

        asyncio.run(main())

    return go


async def entered(letters: Letters) -> None:
    """Waits until the encoder is at work."""
    assert await asyncio.to_thread(letters.entered.wait, 10)


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the state of another task
            await asyncio.sleep(0)


def test_texts_come_back_as_rows_in_order(run: Callable[..., None]) -> None:
    """Two texts give two float32 rows, encoded as queries."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        rows = await client.encode_texts(["aab", "c"], SPACE)
        assert rows.dtype == np.float32
        assert rows.tolist() == [[2, 1, 0], [0, 0, 1]]
        assert letters.roles == ["query"]

    run(body)


def test_requests_that_wait_share_a_run(run: Callable[..., None]) -> None:
    """While the session is busy, what arrives becomes one batch; each gets its own rows."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        first = asyncio.create_task(client.encode_texts(["a"], SPACE))
        await entered(letters)
        others = [asyncio.create_task(client.encode_texts(["b" * n], SPACE)) for n in range(1, 9)]
        await until(lambda: len(server._lanes[True]) == 8)
        letters.gate.set()
        assert (await first).tolist() == [[1, 0, 0]]
        assert [(await other)[0, 1] for other in others] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert letters.runs == [1, 8]

    run(body)


def test_roles_are_not_mixed_in_a_run(run: Callable[..., None]) -> None:
    """Documents and queries that wait together are encoded apart, since prefixes differ."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        first = asyncio.create_task(client.encode_texts(["a"], SPACE))
        await entered(letters)
        query = asyncio.create_task(client.encode_texts(["b"], SPACE))
        document = asyncio.create_task(client.encode_texts(["c"], SPACE, role="document"))
        await until(lambda: len(server._lanes[True]) == 2)
        letters.gate.set()
        await asyncio.gather(first, query, document)
        assert sorted(letters.roles) == ["document", "query", "query"]

    run(body)


def test_a_full_queue_refuses_at_once(run: Callable[..., None]) -> None:
    """The request too many is told so, while those before it are answered."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        taken = [asyncio.create_task(client.encode_texts(["a"], SPACE))]
        await entered(letters)
        taken += [asyncio.create_task(client.encode_texts(["a"], SPACE)) for _ in range(2)]
        await until(lambda: len(server._lanes[True]) == 2)
        with pytest.raises(EncoderUnavailable, match="too many queries"):
            await client.encode_texts(["b"], SPACE)
        letters.gate.set()
        assert [len(rows) for rows in await asyncio.gather(*taken)] == [1, 1, 1]

    run(body, queue=2)


def test_a_late_answer_is_given_up(run: Callable[..., None]) -> None:
    """A call ends within its budget with EncoderUnavailable; the connection serves the next one."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        with pytest.raises(EncoderUnavailable, match="within"):
            await client.encode_texts(["a"], SPACE)
        letters.gate.set()
        client._budget_s = 10
        assert (await client.encode_texts(["b"], SPACE)).tolist() == [[0, 1, 0]]

    run(body, budget_s=0.05)


def test_a_failing_encoder_fails_its_requests_only(run: Callable[..., None]) -> None:
    """An exception in the encoder answers the waiting request and leaves the server at work."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        with pytest.raises(EncoderUnavailable, match="failed"):
            await client.encode_texts(["boom"], SPACE)
        assert (await client.encode_texts(["c"], SPACE)).tolist() == [[0, 0, 1]]

    run(body)


def test_an_unknown_space_is_unavailable(run: Callable[..., None]) -> None:
    """A space that the worker has not loaded is answered by words, not an error of the caller."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        with pytest.raises(EncoderUnavailable, match="other@2"):
            await client.encode_texts(["a"], "other@2")

    run(body)


def test_too_many_texts_are_refused(run: Callable[..., None]) -> None:
    """The server is for queries: 65 texts are a bad request."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        with pytest.raises(QueryNotEncodable, match="1 to 64 texts"):
            await client.encode_texts(["a"] * 65, SPACE)

    run(body)


def test_photos_are_encoded_by_bytes_and_by_address(run: Callable[..., None]) -> None:
    """Both ways end in one row; the address is fetched by the worker."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        assert (await client.encode_photo("light@1", photo=b"\x07")).tolist() == [[7, 7, 7]]
        assert (await client.encode_photo("light@1", url="http://x/y")).tolist() == [[10, 10, 10]]

    run(body)


def test_an_unreadable_photo_is_the_callers_fault(run: Callable[..., None]) -> None:
    """The decoder's sentence reaches the caller; a good photo in the same batch is answered."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        bad, good = await asyncio.gather(
            client.encode_photo("light@1", photo=b"html"),
            client.encode_photo("light@1", photo=b"\x01"),
            return_exceptions=True,
        )
        assert isinstance(bad, QueryNotEncodable)
        assert "web page" in bad.detail
        assert isinstance(good, np.ndarray)

    run(body)


def test_a_slow_photo_server_holds_nobody_up(run: Callable[..., None]) -> None:
    """While one photo is being fetched, texts are answered; the fetch ends with its budget."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        slow = asyncio.create_task(client.encode_photo("light@1", url="http://x/slow", budget_s=0.1))
        assert (await client.encode_texts(["a"], SPACE)).tolist() == [[1, 0, 0]]
        with pytest.raises(EncoderUnavailable):
            await slow

    run(body)


def test_a_restarted_worker_is_found_again(tmp_path: Path) -> None:
    """When the server goes, waiting calls fail at once; when it is back, the same client works."""

    async def main() -> None:
        address = f"unix://{tmp_path}/e.sock"
        client = EncoderClient(address, budget_s=10)
        with pytest.raises(EncoderUnavailable, match="cannot be reached"):
            await client.encode_texts(["a"], SPACE)
        client._refused_at = float("-inf")
        for _ in range(2):
            server = EncodeServer(texts={SPACE: Letters()}, photos={}, decode_photo=decode)
            await server.start(address)
            assert (await client.encode_texts(["a"], SPACE)).tolist() == [[1, 0, 0]]
            await server.close()
            await until(lambda: client._writer is None)
        await client.close()

    asyncio.run(main())


def test_a_refused_connection_is_not_tried_by_every_call(tmp_path: Path) -> None:
    """For a moment after a failure calls fail without asking the system again."""

    async def main() -> None:
        client = EncoderClient(f"unix://{tmp_path}/none.sock")
        with pytest.raises(EncoderUnavailable, match="No such file"):
            await client.encode_texts(["a"], SPACE)
        with pytest.raises(EncoderUnavailable, match="a moment ago"):
            await client.encode_texts(["a"], SPACE)

    asyncio.run(main())


def test_closing_answers_what_waits(run: Callable[..., None]) -> None:
    """A drain encodes the queue before the connections close."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        first = asyncio.create_task(client.encode_texts(["a"], SPACE))
        await entered(letters)
        second = asyncio.create_task(client.encode_texts(["b"], SPACE))
        await until(lambda: len(server._lanes[True]) == 1)
        closing = asyncio.create_task(server.close())
        letters.gate.set()
        await closing
        assert (await first).tolist() == [[1, 0, 0]]
        assert (await second).tolist() == [[0, 1, 0]]

    run(body)


def test_closing_waits_for_the_run_at_work(run: Callable[..., None]) -> None:
    """A request that is being encoded when the server closes is answered too."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        only = asyncio.create_task(client.encode_texts(["a"], SPACE))
        await entered(letters)
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        letters.gate.set()
        assert (await only).tolist() == [[1, 0, 0]]
        await closing

    run(body)


def test_a_photo_at_work_delays_no_text(run: Callable[..., None]) -> None:
    """Photos have a thread of their own."""
    gate, at_work = threading.Event(), threading.Event()

    def slow_decode(data: bytes) -> Photo:
        at_work.set()
        assert gate.wait(10)
        return decode(data)

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        photo = asyncio.create_task(client.encode_photo("light@1", photo=b"\x01"))
        assert await asyncio.to_thread(at_work.wait, 10)
        assert (await client.encode_texts(["a"], SPACE)).tolist() == [[1, 0, 0]]
        gate.set()
        assert (await photo).tolist() == [[1, 1, 1]]

    run(body, decode_photo=slow_decode)


def test_a_client_that_never_reads_is_dropped(run: Callable[..., None], tmp_path: Path) -> None:
    """Answers do not pile up for a connection that takes none."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        server_side = server._writers
        _, writer = await asyncio.open_unix_connection(f"{tmp_path}/encoder.sock", limit=1)
        frame = pack_frame(EncodeRequest(id=1, space="none@0", texts=["a" * 60_000], budget_ms=1))
        await until(lambda: len(server_side) == 1)
        for side in server_side:
            side.transport.get_write_buffer_size = lambda: 9 * 1024 * 1024  # type: ignore[method-assign]
        writer.write(frame)
        await until(lambda: not server_side)
        writer.close()
        assert (await client.encode_texts(["a"], SPACE)).tolist() == [[1, 0, 0]]

    run(body)


def test_garbage_ends_its_own_connection_only(run: Callable[..., None], tmp_path: Path) -> None:
    """A frame that is no message, or of an absurd length, closes that connection and harms no other."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        for frame in (b"\x00\x00\x00\x03abc", b"\xff\xff\xff\xff", b"\x00\x00"):
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/encoder.sock")
            writer.write(frame)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert (await client.encode_texts(["a"], SPACE)).tolist() == [[1, 0, 0]]

    run(body)


def test_a_client_that_leaves_disturbs_nobody(run: Callable[..., None], tmp_path: Path) -> None:
    """An answer for a closed connection is dropped."""

    async def body(server: EncodeServer, client: EncoderClient, letters: Letters) -> None:
        letters.gate.clear()
        _, writer = await asyncio.open_unix_connection(f"{tmp_path}/encoder.sock")
        writer.write(pack_frame(EncodeRequest(id=1, space=SPACE, texts=["a"], budget_ms=10_000)))
        await entered(letters)
        writer.close()
        await writer.wait_closed()
        letters.gate.set()
        assert (await client.encode_texts(["b"], SPACE)).tolist() == [[0, 1, 0]]

    run(body)


def test_the_socket_is_private_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    """The socket admits its owner alone; a killed worker's file does not stop the next start."""
    path = tmp_path / "e.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        server = EncodeServer(texts={}, photos={}, decode_photo=decode)
        await server.start(f"unix://{path}")
        assert os.stat(path).st_mode & 0o077 == 0
        second = EncodeServer(texts={}, photos={}, decode_photo=decode)
        with pytest.raises(OSError, match="another encode worker"):
            await second.start(f"unix://{path}")
        await second.close()
        assert path.exists()
        await server.close()
        assert not path.exists()

    asyncio.run(main())


def test_loopback_tcp_works_too() -> None:
    """`tcp://127.0.0.1:port` serves as the socket does."""

    async def main() -> None:
        server = EncodeServer(texts={SPACE: Letters()}, photos={}, decode_photo=decode)
        await server.start("tcp://127.0.0.1:0")
        client = EncoderClient(f"tcp://127.0.0.1:{server.port}", budget_s=10)
        assert (await client.encode_texts(["a"], SPACE)).tolist() == [[1, 0, 0]]
        await client.close()
        await server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:1",
        "tcp://example.org:1",
        "unix://relative",
        "http://127.0.0.1:1",
        "",
        "tcp://127.0.0.1",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    """The server trusts whoever reaches it, so nothing but this machine may."""
    with pytest.raises(ValueError, match="no encoder address"):
        parse_address(address)

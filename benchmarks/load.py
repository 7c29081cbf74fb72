"""Clients that cost as little as they can: as fast as answers come, or so many a second."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

CLIENTS: Final = 16


class Client(asyncio.Protocol):
    """One connection that sends the next request as soon as it has its answer, which has the status `expected`."""

    def __init__(self, requests: Sequence[bytes], times: list[float], expected: int = 200) -> None:
        self._requests = requests
        self._times = times
        self._head = f"HTTP/1.1 {expected}".encode()
        self._next = 0
        self._sent = 0.0
        self._buffer = b""
        self.stopped = False

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if self.stopped:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        """Take the answer, and send the next."""
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        assert head.startswith(self._head), self._buffer[:500]
        if len(body) >= length_of(head):
            self._buffer = b""
            self._times.append(time.perf_counter() - self._sent)
            self._send()


def length_of(head: bytes) -> int:
    """Bytes of the body, by the head of an answer."""
    return int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


async def load(port: int, requests: Sequence[bytes], seconds: float, *, expected: int = 200) -> list[float]:
    """Seconds that each request took."""
    times: list[float] = []
    loop = asyncio.get_running_loop()
    share = len(requests) // CLIENTS
    clients = []
    for number in range(CLIENTS):
        own = requests[number * share :]
        _, client = await loop.create_connection(lambda own=own: Client(own, times, expected), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopped = True
    await asyncio.sleep(0.2)
    return times


class Tally(NamedTuple):
    """What came back: how many of each status (0: no answer), and the seconds of the good ones."""

    statuses: Counter[int]
    times: list[float]


async def paced(
    ports: Sequence[int], requests: Sequence[bytes], per_s: float, seconds: float, *, each: int = 8
) -> Tally:
    """Send so many a second, evenly, whether or not answers come; `each` connections to every port."""
    tally = Tally(Counter(), [])
    turns = iter(range(round(per_s * seconds)))
    began = time.perf_counter() + 0.1

    async def send(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in turns:
            wait = began + turn / per_s - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(length_of(head))
            except (asyncio.IncompleteReadError, ConnectionError):
                tally.statuses[0] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            status = int(head[9:12])
            tally.statuses[status] += 1
            if status == 200:
                tally.times.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(send(port) for port in ports for _ in range(each)))
    return tally


def post(path: str, key: str, body: bytes) -> bytes:
    """A POST of JSON as it goes over the wire."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: k\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body

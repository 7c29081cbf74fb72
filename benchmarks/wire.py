"""HTTP/1.1 on one connection with next to no code: what is measured is the server, not a client library."""

import asyncio
from types import TracebackType
from typing import Self

from benchmarks.stage import Stage, Tenant


class Wire:
    """One connection that signs with a tenant's secret key; `port` is for a process that is not the stage's first."""

    def __init__(self, stage: Stage, tenant: Tenant, *, port: int | None = None) -> None:
        self._port = port or stage.settings.port
        self._head = f"Host: bench\r\nAuthorization: Bearer {tenant.secret_key}\r\nContent-Type: application/json\r\n"
        self.status = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def post(self, path: str, body: bytes) -> bytes:
        """The answer's body; its status is in `status`."""
        self._writer.write(f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        self.status = int(head[9:12])
        length = head.split(b"content-length:")[1].split(b"\r\n")[0]
        return await self._reader.readexactly(int(length))

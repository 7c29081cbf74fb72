"""The object store: uploads, photos, model packs, in a folder or in S3.

A key is a path of plain names: `tenants/3f/photos/12-0`. A blob appears whole or not at all, a `put` over
an existing key replaces it whole, and whoever reads the old one reads on. Nothing here knows tenants: the
caller's keys keep them apart.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, Final, ParamSpec, Protocol, TypeAlias, TypeVar

import msgspec

from infra.errors import Invalid, NotFound, UpstreamFailed

P = ParamSpec("P")
T = TypeVar("T")
Data: TypeAlias = bytes | AsyncIterator[bytes]

CHUNK_BYTES: Final = 1024 * 1024
MAX_KEY_BYTES: Final = 800
MAX_NAME_BYTES: Final = 200


class BlobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was stored: SHA-256 of the bytes (hex) and their number."""

    sha256: str
    size: int


class BadBlobKey(Invalid):
    """Not a key that every store can hold."""

    code: ClassVar[str] = "bad_blob_key"
    title: ClassVar[str] = "The storage key is not valid"


class BadBlobUrl(Invalid):
    """The setting KINDRED_BLOB names no store."""

    code: ClassVar[str] = "bad_blob_url"
    title: ClassVar[str] = "The object store's address is not valid"


class BlobMissing(NotFound):
    """Nothing is stored under the key."""

    code: ClassVar[str] = "blob_missing"
    title: ClassVar[str] = "The stored file is missing"


class BlobsUnavailable(UpstreamFailed):
    """The store does not answer, refuses us, or is full."""

    code: ClassVar[str] = "blobs_unavailable"
    title: ClassVar[str] = "The object store is not available"


class BlobStore(Protocol):
    """What every store does; `BadBlobKey` for a bad key, `BlobsUnavailable` for a store in trouble."""

    async def put(self, key: str, data: Data, *, content_type: str = "application/octet-stream") -> BlobInfo:
        """Store the bytes under the key, replacing what was there; durable on return.

        If `data` raises half-way nothing is changed and the exception goes on.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The whole blob. Raises `BlobMissing`."""
        ...

    def open_stream(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The blob in pieces of at most 1 MiB; close it if left early. Raises `BlobMissing` at the first.

        Its bytes from `start` to before `end`, where they are given: they lie within the blob.
        """
        ...

    async def size(self, key: str) -> int:
        """Bytes of the blob. Raises `BlobMissing`."""
        ...

    def local_path(self, key: str) -> AbstractAsyncContextManager[Path]:
        """The blob as a file that may be read inside the block only, never written. Raises `BlobMissing`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the blob; nothing happens where there is none."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every blob whose key begins with `prefix`, which must end in "/"; how many there were."""
        ...

    def iter_keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that begin with `prefix` ("" or ending in "/"), in no particular order."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether something is stored under the key."""
        ...

    async def aclose(self) -> None:
        """Give back threads and connections."""
        ...


def check_key(key: str) -> str:
    """The key itself, if a folder and S3 can both hold it; else `BadBlobKey`.

    Names parted by single "/", none of them empty, beginning with a dot, or with control characters or a
    backslash inside; at most 200 bytes a name and 800 in all. In a folder no key may lie below another key
    ("a" and "a/b").
    """
    names = key.split("/")
    try:
        encoded = [name.encode() for name in names]
    except UnicodeEncodeError:
        raise BadBlobKey("A storage key must be valid Unicode.") from None
    if not all(names) or any(name.startswith(".") for name in names):
        raise BadBlobKey("A storage key is made of names parted by single slashes, none beginning with a dot.")
    if any(not each.isprintable() or each == "\\" for each in key):
        raise BadBlobKey("A storage key must not hold control characters or backslashes.")
    if max(map(len, encoded)) > MAX_NAME_BYTES or sum(map(len, encoded)) + len(names) - 1 > MAX_KEY_BYTES:
        raise BadBlobKey(f"A storage key has at most {MAX_NAME_BYTES} bytes a name and {MAX_KEY_BYTES} in all.")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself, if it is a key followed by "/"; else `BadBlobKey`."""
    if not prefix.endswith("/"):
        # "tenants/1" would take "tenants/10" along.
        raise BadBlobKey('A storage prefix ends in "/".')
    check_key(prefix[:-1])
    return prefix


async def pieces(data: Data) -> AsyncIterator[bytes]:
    """The bytes of `put`'s argument, whichever form it has."""
    if isinstance(data, bytes):
        yield data
    else:
        async for piece in data:
            yield piece


class Threads:
    """Threads of one store, so that a slow disk or bucket holds up nothing else in the process."""

    def __init__(self, name: str, *, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Wait for nothing."""
        self._pool.shutdown(wait=False)


def blob_missing() -> BlobMissing:
    """The error of every store for a key without a blob."""
    return BlobMissing("The stored file is not there any more. Upload it again.")

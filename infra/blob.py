"""The object store: uploads, photos, model packs, in a folder or in S3.

A key is a path of plain names: `tenants/3f/photos/12-0`. A blob appears whole or not at all, a `put` over
an existing key replaces it whole, and whoever reads the old one reads on. Nothing here knows tenants: the
caller's keys keep them apart.
"""

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, Final, ParamSpec, Protocol, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from infra.errors import Invalid, NotFound, UpstreamFailed

P = ParamSpec("P")
T = TypeVar("T")
Data: TypeAlias = bytes | AsyncIterator[bytes]

CHUNK_BYTES: Final = 1024 * 1024
MAX_KEY_BYTES: Final = 800
MAX_NAME_BYTES: Final = 200
_INCOMING: Final = ".incoming"
_TRIES: Final = 100
_STALE_S: Final = 24 * 3600.0


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

    def open_stream(self, key: str) -> AsyncIterator[bytes]:
        """The blob in pieces of at most 1 MiB; close it if left early. Raises `BlobMissing` at the first."""
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


def open_blobs(url: str) -> BlobStore:
    """The store that KINDRED_BLOB names: `file:///var/lib/kindred/blobs` or `s3://bucket/prefix`.

    S3's address, region and credentials come from where boto3 looks for them (`AWS_ENDPOINT_URL_S3` for
    stores other than Amazon's). Raises `BadBlobUrl`.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FolderBlobs(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment or "@" in parts.netloc):
        # boto3 costs 20 MB and half a second, which a folder's user should not pay.
        from infra.blob_s3 import S3Blobs

        return S3Blobs(parts.netloc, parts.path.strip("/"))
    raise BadBlobUrl("KINDRED_BLOB must be file:///an/absolute/folder or s3://bucket/prefix.")


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


class FolderBlobs:
    """Blobs as files under `root`, which is made if need be. Several processes may share it.

    A blob is written aside, flushed to the disk (file and folder) and renamed into place, so a crash leaves
    the old blob or the new one. What a crash left aside is removed a day later.
    """

    def __init__(self, root: Path, *, threads: int = 8) -> None:
        self._root = root.absolute()
        self._incoming = self._root / _INCOMING
        self._threads = Threads("blobs", threads=threads)
        with _disk_errors():
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._sweep()

    async def put(self, key: str, data: Data, *, content_type: str = "application/octet-stream") -> BlobInfo:
        """As `BlobStore.put`; a folder has no place for the content type."""
        path = self._path(key)
        aside = self._incoming / uuid.uuid4().hex
        digest, size = hashlib.sha256(), 0
        file = await self._threads.run(_disk(aside.open), "xb")
        try:
            async for piece in pieces(data):
                size += len(piece)
                await self._threads.run(_disk(_write), file, piece, digest)
            await self._threads.run(_disk(self._settle), file, aside, path)
        except BaseException:
            # Not in a thread: on cancellation nothing more may be awaited, and both are quick.
            file.close()
            aside.unlink(missing_ok=True)
            raise
        return BlobInfo(sha256=digest.hexdigest(), size=size)

    async def get(self, key: str) -> bytes:
        """As `BlobStore.get`."""
        return await self._threads.run(_disk(self._path(key).read_bytes))

    async def open_stream(self, key: str) -> AsyncIterator[bytes]:
        """As `BlobStore.open_stream`."""
        file = await self._threads.run(_disk(self._path(key).open), "rb")
        try:
            while piece := await self._threads.run(_disk(file.read), CHUNK_BYTES):
                yield piece
        finally:
            file.close()

    @asynccontextmanager
    async def local_path(self, key: str) -> AsyncIterator[Path]:
        """As `BlobStore.local_path`: the file itself, no copy."""
        path = self._path(key)
        if not await self._threads.run(path.is_file):
            raise blob_missing()
        yield path

    async def delete(self, key: str) -> None:
        """As `BlobStore.delete`."""
        await self._threads.run(_disk(self._remove), self._path(key))

    async def delete_prefix(self, prefix: str) -> int:
        """As `BlobStore.delete_prefix`."""
        folder = self._path(check_prefix(prefix)[:-1])
        return await self._threads.run(_disk(self._remove_tree), folder)

    async def iter_keys(self, prefix: str = "") -> AsyncIterator[str]:
        """As `BlobStore.iter_keys`."""
        folder = self._path(check_prefix(prefix)[:-1]) if prefix else self._root
        for key in await self._threads.run(_disk(lambda: [self._key(path) for path in self._files(folder)])):
            yield key

    async def exists(self, key: str) -> bool:
        """As `BlobStore.exists`."""
        return await self._threads.run(_disk(self._path(key).is_file))

    async def aclose(self) -> None:
        """As `BlobStore.aclose`."""
        self._threads.close()

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _settle(self, file: IO[bytes], aside: Path, path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.close()
        made: list[Path] = []
        for _ in range(_TRIES):
            try:
                made += _make_folder(path.parent)
                aside.replace(path)
                break
            except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                # Either a blob stands where a folder must be (or the reverse), or a deletion took the empty
                # folder between two steps: mkdir itself fails so when the folder goes while it looks.
                if path.is_dir() or any(parent.is_file() for parent in path.parents):
                    raise BadBlobKey("A storage key must not lie below another key.") from error
        else:
            raise BlobsUnavailable("The object store's folder is being changed by something else. Try again.")
        for folder in {path.parent, *made}:
            _flush_folder(folder)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            if path.is_file():
                raise
            return
        _flush_folder(path.parent)
        self._prune(path.parent)

    def _remove_tree(self, folder: Path) -> int:
        removed = 0
        for path in list(self._files(folder)):
            path.unlink(missing_ok=True)
            removed += 1
        for inner, _, _ in list(os.walk(folder, topdown=False)):
            self._prune(Path(inner))
        return removed

    def _prune(self, folder: Path) -> None:
        """Remove empty folders upwards; one that fills meanwhile stays."""
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _files(self, folder: Path) -> Iterator[Path]:
        for inner, folders, names in os.walk(folder):
            if Path(inner) == self._root and _INCOMING in folders:
                folders.remove(_INCOMING)
            for name in names:
                yield Path(inner, name)

    def _sweep(self) -> None:
        oldest = time.time() - _STALE_S
        for aside in self._incoming.iterdir():
            try:
                if aside.stat().st_mtime < oldest:
                    aside.unlink()
            except FileNotFoundError:
                continue


def _write(file: IO[bytes], piece: bytes, digest: Any) -> None:
    file.write(piece)
    digest.update(piece)


def _make_folder(folder: Path) -> list[Path]:
    """Make the folder; the parents of those that were new, whose entries must reach the disk too."""
    new = []
    each = folder
    while not each.is_dir():
        new.append(each.parent)
        each = each.parent
    folder.mkdir(parents=True, exist_ok=True)
    return new


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise blob_missing() from error
    except OSError as error:
        raise BlobsUnavailable(f"The object store's folder gives an error: {error.strerror}.") from error


def _disk(call: Callable[P, T]) -> Callable[P, T]:
    """The call, with the disk's errors as ours."""

    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        with _disk_errors():
            return call(*args, **kwargs)

    return guarded


def blob_missing() -> BlobMissing:
    """The error of every store for a key without a blob."""
    return BlobMissing("The stored file is not there any more. Upload it again.")

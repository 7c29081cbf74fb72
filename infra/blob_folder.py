"""Blobs in a folder of this machine."""

import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, Final, ParamSpec, TypeVar

from infra.blob import (
    CHUNK_BYTES,
    BadBlobKey,
    BlobInfo,
    BlobsUnavailable,
    Data,
    Threads,
    blob_missing,
    check_key,
    check_prefix,
    pieces,
)

P = ParamSpec("P")
T = TypeVar("T")

_INCOMING: Final = ".incoming"
_TRIES: Final = 100
_STALE_S: Final = 24 * 3600.0


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

    async def open_stream(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """As `BlobStore.open_stream`."""
        file = await self._threads.run(_disk(self._path(key).open), "rb")
        try:
            file.seek(start)
            left = float("inf") if end is None else end - start
            while left > 0 and (piece := await self._threads.run(_disk(file.read), int(min(left, CHUNK_BYTES)))):
                left -= len(piece)
                yield piece
        finally:
            file.close()

    async def size(self, key: str) -> int:
        """As `BlobStore.size`."""

        def look() -> int:
            if not path.is_file():
                raise FileNotFoundError
            return path.stat().st_size

        path = self._path(key)
        return await self._threads.run(_disk(look))

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

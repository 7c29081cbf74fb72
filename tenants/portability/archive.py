"""The tar around a bundle, written piece by piece, and read as if whoever made it meant harm.

Nothing is ever unpacked to a path: names are only compared, and the bytes of a member are read where they lie.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec
from msgspec import Struct

from tenants.catalog.photos import MAX_PHOTO_BYTES
from tenants.portability.format import (
    FORMAT,
    MANIFEST,
    MAX_FILES,
    MAX_JSON_BYTES,
    MAX_LINE_BYTES,
    MAX_RATIO,
    NAME,
    PHOTOS,
    BundleCorrupt,
    BundleTooLarge,
    BundleTooNew,
    FileInfo,
    Manifest,
    corrupt,
)

T = TypeVar("T")

_BLOCK: Final = 512
_PIECE: Final = 1024 * 1024
_SMALL: Final = 10_000_000
"""Bytes to which any file may unpack, however small it is packed."""


class FileEntry(Struct, frozen=True, kw_only=True):
    """A member that is to be written."""

    name: str
    size: int


def header(entry: FileEntry) -> bytes:
    """What precedes the bytes of a member."""
    info = tarfile.TarInfo(entry.name)
    info.size = entry.size
    info.mode = 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What follows the bytes of a member of that size."""
    return bytes(-size % _BLOCK)


def end() -> bytes:
    """What follows the last member."""
    return bytes(2 * _BLOCK)


class Bundle:
    """A bundle on the disk whose every byte was checked."""

    def __init__(self, path: Path, manifest: Manifest, places: dict[str, tuple[int, int]]) -> None:
        self._path = path
        self._places = places
        self.manifest = manifest

    @property
    def names(self) -> list[str]:
        """The files in it, without the photos."""
        return list(self._places)

    def document(self, name: str, kind: type[T]) -> T:
        """A file of one JSON document. Raises BundleCorrupt."""
        if name not in self._places:
            raise corrupt(name, None, "It is missing.")
        offset, size = self._places[name]
        if size > MAX_JSON_BYTES:
            raise BundleTooLarge(f"{name} has {size:,} bytes; {MAX_JSON_BYTES:,} are the most.")
        with self._path.open("rb") as file:
            file.seek(offset)
            return _decode(file.read(size), kind, name, None)

    def rows(self, name: str, kind: type[T]) -> Iterator[T]:
        """The lines of a file; none where the bundle has no such file. Raises BundleCorrupt naming the line."""
        if name not in self._places:
            return
        with self._path.open("rb") as file:
            for number, line in enumerate(_unpack(file, self._places[name], name), 1):
                yield _decode(line, kind, name, number)

    def photos(self) -> Iterator[tuple[str, bytes]]:
        """Every photo with its sha256."""
        with self._path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in _members(tar):
                if info.name.startswith(PHOTOS):
                    yield info.name.removeprefix(PHOTOS), _read(file, info.offset_data, info.size)


def open_bundle(path: Path) -> Bundle:
    """Check a bundle whole, before anything is made of it: names, sizes, hashes, what its files unpack to.

    Raises BundleCorrupt, BundleTooNew, BundleTooLarge.
    """
    try:
        with path.open("rb") as file:
            manifest, places = _survey(file)
            _verify(file, manifest, places)
    except OSError as error:
        raise BundleCorrupt(f"{path} cannot be read: {error.strerror or error}. Name an exported file.") from error
    # Long names that follow each other are read by a call within a call.
    except (tarfile.TarError, EOFError, RecursionError) as error:
        raise BundleCorrupt(f"{path} is not a bundle, or was cut short ({error}). Export the tenant again.") from error
    return Bundle(path, manifest, places)


def _survey(file: BinaryIO) -> tuple[Manifest, dict[str, tuple[int, int]]]:
    """The manifest, and where each file but the photos lies: by the headers alone."""
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in _members(tar):
            if info.name in places:
                raise corrupt(info.name[:80], None, "It is in the bundle twice.")
            if info.name.startswith(PHOTOS):
                if info.size > MAX_PHOTO_BYTES:
                    raise BundleTooLarge(f"{info.name} has {info.size:,} bytes; a photo has {MAX_PHOTO_BYTES:,}.")
                continue
            if len(places) > MAX_FILES:
                raise BundleTooLarge(f"The bundle has more than {MAX_FILES:,} files.")
            places[info.name] = (info.offset_data, info.size)
    place = places.pop(MANIFEST, None)
    if place is None:
        raise BundleCorrupt("The bundle has no manifest: it is none, or was cut short. Export the tenant again.")
    if place[1] > MAX_JSON_BYTES:
        raise BundleTooLarge(f"The manifest has {place[1]:,} bytes; {MAX_JSON_BYTES:,} are the most.")
    data = _read(file, *place)
    told = _decode(data, _Version, MANIFEST, None).format
    if told > FORMAT:
        raise BundleTooNew(
            f"The bundle is of format {told}; this Kindred reads up to {FORMAT}. Restore it with the version that "
            "wrote it, or a newer one."
        )
    return _decode(data, Manifest, MANIFEST, None), places


class _Version(Struct, frozen=True):
    """What every manifest says, whatever its format."""

    format: int


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Plain files with names of a bundle, and nothing else; none of them is kept in memory."""
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.pax_headers or not NAME.fullmatch(info.name):
            raise corrupt(info.name[:80], None, "An export holds no such file.")
        yield info


def _verify(file: BinaryIO, manifest: Manifest, places: dict[str, tuple[int, int]]) -> None:
    if manifest.files.keys() != places.keys():
        wrong = sorted(manifest.files.keys() ^ places.keys())
        raise corrupt(wrong[0][:80], None, "The bundle and its manifest differ about it.")
    for name, info in manifest.files.items():
        _verify_file(file, name, info, places[name])
    photos = size = 0
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in _members(tar):
            if not member.name.startswith(PHOTOS):
                continue
            data = _read(file, member.offset_data, member.size)
            if sha256(data).hexdigest() != member.name.removeprefix(PHOTOS):
                raise corrupt(member.name, None, "Its sha256 is another.")
            photos += 1
            size += len(data)
    if (photos, size) != (manifest.photos, manifest.photo_bytes):
        raise corrupt("photos", None, f"There are {photos} of {manifest.photos}.")


def _verify_file(file: BinaryIO, name: str, info: FileInfo, place: tuple[int, int]) -> None:
    offset, size = place
    digest = sha256()
    file.seek(offset)
    left = size
    while left and (piece := file.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    if size != info.bytes or left or digest.hexdigest() != info.sha256:
        raise corrupt(name, None, "Its size or sha256 is another than the manifest says.")
    if not name.endswith(".gz"):
        return
    if info.unpacked is None or info.rows is None:
        raise corrupt(name, None, "The manifest does not say what it unpacks to.")
    if info.unpacked > _SMALL + MAX_RATIO * size:
        raise BundleTooLarge(f"{name} has {size:,} bytes and unpacks to {info.unpacked:,}: no export does.")
    rows = unpacked = 0
    for line in _unpack(file, place, name, most=info.unpacked):
        rows += 1
        unpacked += len(line)
    if (rows, unpacked) != (info.rows, info.unpacked):
        raise corrupt(name, None, f"It has {rows:,} lines of {unpacked:,} bytes; the manifest says otherwise.")


class _Part:
    """The bytes of one member, as a file that ends where the member does."""

    def __init__(self, file: BinaryIO, place: tuple[int, int]) -> None:
        self._file = file
        self._place = place
        self._at, self._left = place

    def seek(self, offset: int) -> int:
        """Go to so many bytes after the beginning."""
        start, size = self._place
        self._at, self._left = start + offset, size - offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Others may read the same file in between."""
        size = self._left if size < 0 else min(size, self._left)
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        self._left -= len(data)
        return data


def _unpack(file: BinaryIO, place: tuple[int, int], name: str, *, most: int | None = None) -> Iterator[bytes]:
    """Line by line; each is bounded, and all of them by `most` bytes."""
    total = 0
    try:
        with gzip.GzipFile(fileobj=_Part(file, place), mode="rb") as packed:
            while line := packed.readline(MAX_LINE_BYTES + 1):
                total += len(line)
                if len(line) > MAX_LINE_BYTES or (most is not None and total > most):
                    raise BundleTooLarge(f"{name} unpacks to more than it may.")
                if not line.endswith(b"\n"):
                    raise corrupt(name, None, "Its last line is cut.")
                yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise corrupt(name, None, "It cannot be unpacked.") from error


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise BundleCorrupt("The bundle was cut short. Export the tenant again, or copy the file again.")
    return data


def _decode(data: bytes, kind: type[T], name: str, line: int | None) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise corrupt(name, line, f"{error}.") from error

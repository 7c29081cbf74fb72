"""One suite for every BlobStore: a folder, and S3 as moto plays it."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

import infra.blob_folder
from infra.blob import (
    BadBlobKey,
    BadBlobUrl,
    BlobMissing,
    BlobStore,
    BlobsUnavailable,
    check_key,
)
from infra.blob_folder import FolderBlobs
from infra.blob_open import open_blobs
from infra.blob_s3 import PART_BYTES, S3Blobs

T = TypeVar("T")
pytestmark = [
    # moto's own server leaves sockets and uses names that its libraries have given up.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    """A moto server, with the environment that boto3 reads pointed at it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    boto3.client("s3").create_bucket(Bucket="kindred-test")
    yield settings["AWS_ENDPOINT_URL_S3"]
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    if request.param == "folder":
        return f"file://{tmp_path}/blobs"
    request.getfixturevalue("s3_address")
    return f"s3://kindred-test/{uuid.uuid4().hex}/blobs"


def using(url: str, work: Callable[[BlobStore], Awaitable[T]]) -> T:
    """Open the store, do the work, close it."""

    async def scenario() -> T:
        store = open_blobs(url)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(scenario())


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def whole(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def keys(store: BlobStore, prefix: str = "") -> list[str]:
    return sorted([key async for key in store.iter_keys(prefix)])


def test_what_is_put_is_got(url: str) -> None:
    """The bytes come back as they went in, and the answer tells their hash and number."""

    async def work(store: BlobStore) -> None:
        info = await store.put("a/b.jpg", b"photo", content_type="image/jpeg")
        assert info.size == 5
        assert info.sha256 == hashlib.sha256(b"photo").hexdigest()
        assert await store.get("a/b.jpg") == b"photo"
        assert await store.exists("a/b.jpg")

    using(url, work)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 12345])
def test_a_stream_of_any_size(url: str, size: int) -> None:
    """A stream comes back as it went in, below, at and above the size of one part."""
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    cuts = [data[at : at + 3_000_000] for at in range(0, size, 3_000_000)]

    async def work(store: BlobStore) -> None:
        info = await store.put("feed", in_pieces(*cuts))
        assert (info.size, info.sha256) == (size, hashlib.sha256(data).hexdigest())
        assert await whole(store.open_stream("feed")) == data
        async with store.local_path("feed") as path:
            assert path.read_bytes() == data

    using(url, work)


def test_an_empty_blob(url: str) -> None:
    """No bytes are a blob too."""

    async def work(store: BlobStore) -> None:
        await store.put("empty", b"")
        assert await store.get("empty") == b""
        assert await whole(store.open_stream("empty")) == b""

    using(url, work)


def test_a_second_put_replaces(url: str) -> None:
    """The same key holds the last bytes put, also when they are fewer."""

    async def work(store: BlobStore) -> None:
        await store.put("key", b"a long first version")
        await store.put("key", b"short")
        assert await store.get("key") == b"short"
        assert await keys(store) == ["key"]

    using(url, work)


def test_a_failing_stream_changes_nothing(url: str) -> None:
    """When the source fails, early or after several parts, the old blob stays and nothing is left behind."""

    async def failing(first: int) -> AsyncIterator[bytes]:
        yield bytes(first)
        raise RuntimeError("the sender went away")

    async def work(store: BlobStore) -> None:
        await store.put("kept", b"old")
        for size in (10, 2 * PART_BYTES + 1):
            for key in ("kept", "new"):
                with pytest.raises(RuntimeError, match="went away"):
                    await store.put(key, failing(size))
        assert await store.get("kept") == b"old"
        assert not await store.exists("new")
        assert await keys(store) == ["kept"]

    using(url, work)


def test_a_cancelled_stream_changes_nothing(url: str) -> None:
    """A put that is cancelled while its source waits leaves no blob."""

    async def work(store: BlobStore) -> None:
        reached = asyncio.Event()

        async def waiting() -> AsyncIterator[bytes]:
            yield bytes(PART_BYTES)
            reached.set()
            await asyncio.Event().wait()

        put = asyncio.ensure_future(store.put("key", waiting()))
        await reached.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert await keys(store) == []

    using(url, work)


def test_a_missing_blob(url: str) -> None:
    """Every way of reading a key without a blob raises BlobMissing."""

    async def work(store: BlobStore) -> None:
        with pytest.raises(BlobMissing):
            await store.get("no/such")
        with pytest.raises(BlobMissing):
            await whole(store.open_stream("no/such"))
        with pytest.raises(BlobMissing):
            async with store.local_path("no/such"):
                pass
        assert not await store.exists("no/such")

    using(url, work)


def test_a_prefix_is_no_blob(url: str) -> None:
    """What lies above a blob, or below one, is not there itself."""

    async def work(store: BlobStore) -> None:
        await store.put("a/b", b"x")
        for key in ("a", "a/b/c"):
            assert not await store.exists(key)
            with pytest.raises(BlobMissing):
                await store.get(key)
            await store.delete(key)
        assert await store.get("a/b") == b"x"

    using(url, work)


def test_delete(url: str) -> None:
    """A deleted blob is gone; deleting it again does nothing; its neighbour stays."""

    async def work(store: BlobStore) -> None:
        await store.put("a/one", b"1")
        await store.put("a/two", b"2")
        await store.delete("a/one")
        await store.delete("a/one")
        assert not await store.exists("a/one")
        assert await keys(store) == ["a/two"]

    using(url, work)


def test_delete_prefix(url: str) -> None:
    """A prefix takes what lies below it and not what merely begins alike."""

    async def work(store: BlobStore) -> None:
        for key in ("t/1/a", "t/1/b/c", "t/10/a", "t/1x", "u/1/a"):
            await store.put(key, b"x")
        assert await store.delete_prefix("t/1/") == 2
        assert await keys(store) == ["t/10/a", "t/1x", "u/1/a"]
        assert await store.delete_prefix("t/1/") == 0

    using(url, work)


def test_iter_keys(url: str) -> None:
    """Keys are listed whole, all of them or below a prefix, from any number of folders."""

    async def work(store: BlobStore) -> None:
        expected = sorted([f"p/{n % 3}/{n}" for n in range(30)] + ["q"])
        await asyncio.gather(*(store.put(key, b"") for key in expected))
        assert await keys(store) == expected
        assert await keys(store, "p/1/") == [key for key in expected if key.startswith("p/1/")]
        assert await keys(store, "none/") == []

    using(url, work)


@pytest.mark.parametrize("prefix", ["t", "t/1", "", "/", "../", "t//"])
def test_prefixes_end_in_a_slash(url: str, prefix: str) -> None:
    """A prefix without its slash, or the empty one, never deletes."""

    async def work(store: BlobStore) -> None:
        with pytest.raises(BadBlobKey):
            await store.delete_prefix(prefix)

    using(url, work)


BAD_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    ".incoming/x",
    "a/.hidden",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\u202eb",
    "\ud800",
    "x" * 201,
    "é" * 101,
    "/".join(["x" * 100] * 9),
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys(url: str, key: str) -> None:
    """Keys that leave the store, hide in it or cannot be held by every store are refused by every method."""

    async def work(store: BlobStore) -> None:
        with pytest.raises(BadBlobKey):
            await store.put(key, b"x")
        with pytest.raises(BadBlobKey):
            await store.get(key)
        with pytest.raises(BadBlobKey):
            await store.delete(key)
        with pytest.raises(BadBlobKey):
            await whole(store.open_stream(key))
        with pytest.raises(BadBlobKey):
            await store.exists(key)

    using(url, work)


@given(st.text(max_size=60))
def test_an_accepted_key_stays_inside(key: str) -> None:
    """Whatever is accepted as a key names a file below the root and nothing else."""
    try:
        check_key(key)
    except BadBlobKey:
        return
    root = Path("/srv/blobs")
    joined = os.path.normpath(root / key)
    assert joined == str(root / key)
    assert joined.startswith("/srv/blobs/")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40).filter(
        lambda key: not any(bad in f"/{key}/" for bad in ("//", "/.", "\\")) and key.isprintable()
    ),
    data=st.binary(max_size=100),
)
def test_any_printable_key(url: str, key: str, data: bytes) -> None:
    """A key in any alphabet, with blanks and signs, holds its bytes and is listed as it is."""

    async def work(store: BlobStore) -> None:
        await store.put(key, data)
        assert await store.get(key) == data
        assert await keys(store) == [key]
        await store.delete(key)
        assert await keys(store) == []

    using(url, work)


def test_many_at_once(url: str) -> None:
    """Puts of one key and of many run side by side; the one key holds one of its versions whole."""

    async def work(store: BlobStore) -> None:
        versions = [bytes([n]) * 10_000 for n in range(8)]
        await asyncio.gather(
            *(store.put("same", version) for version in versions),
            *(store.put(f"other/{n}", version) for n, version in enumerate(versions)),
        )
        assert await store.get("same") in versions
        assert len(await keys(store, "other/")) == 8

    using(url, work)


def test_deleting_a_folder_while_it_fills(url: str) -> None:
    """A put that returns after a deletion of its neighbours is not lost with their folder."""

    async def work(store: BlobStore) -> None:
        for round_ in range(20):
            await store.put("a/b/old", b"x")
            await asyncio.gather(store.delete("a/b/old"), store.put("a/b/new", b"y"))
            assert await store.get("a/b/new") == b"y", round_
            await store.delete("a/b/new")

    using(url, work)


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_that_goes_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """A put whose folder another process removes at that moment tries again; if for ever, it says so."""
    made = infra.blob_folder._make_folder
    left = [error(17, "gone")] * 5

    def make(folder: Path) -> list[Path]:
        if left:
            raise left.pop()
        return made(folder)

    monkeypatch.setattr("infra.blob_folder._make_folder", make)

    async def work(store: BlobStore) -> None:
        await store.put("a/b", b"x")
        assert await store.get("a/b") == b"x"
        left.extend([error(17, "gone")] * 1000)
        with pytest.raises(BlobsUnavailable):
            await store.put("a/c", b"x")
        assert await keys(store) == ["a/b"]

    using(f"file://{tmp_path}", work)


def test_a_reader_keeps_the_old_version(tmp_path: Path) -> None:
    """Whoever reads a blob of a folder while it is replaced reads the old one to its end."""

    async def work(store: BlobStore) -> None:
        await store.put("key", b"a" * 3_000_000)
        stream = store.open_stream("key")
        first = await anext(stream)
        await store.put("key", b"b")
        assert first + await whole(stream) == b"a" * 3_000_000

    using(f"file://{tmp_path}", work)


def test_a_key_below_another_in_a_folder(tmp_path: Path) -> None:
    """A folder cannot hold "a" and "a/b": the second is refused and the first stays."""

    async def work(store: BlobStore) -> None:
        await store.put("a", b"x")
        with pytest.raises(BadBlobKey):
            await store.put("a/b", b"y")
        await store.put("c/d", b"z")
        with pytest.raises(BadBlobKey):
            await store.put("c", b"y")
        assert await keys(store) == ["a", "c/d"]

    using(f"file://{tmp_path}", work)


def test_a_folder_holds_nothing_but_blobs(tmp_path: Path) -> None:
    """After deleting everything no file and no empty folder is left."""

    async def work(store: BlobStore) -> None:
        await store.put("a/b/c/d", b"x")
        await store.put("a/e", b"x")
        await store.delete("a/b/c/d")
        assert await store.delete_prefix("a/") == 1

    using(f"file://{tmp_path}", work)
    assert [path.name for path in tmp_path.rglob("*")] == [".incoming"]


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    """Opening a folder removes pieces a day old and leaves those of a put that may still be running."""
    incoming = tmp_path / ".incoming"
    incoming.mkdir()
    for name in ("old", "fresh"):
        (incoming / name).write_bytes(b"half")
    os.utime(incoming / "old", (0, 0))
    asyncio.run(FolderBlobs(tmp_path).aclose())
    assert [path.name for path in incoming.iterdir()] == ["fresh"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A store below a file is reported at opening."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((BlobsUnavailable, BlobMissing)):
        FolderBlobs(tmp_path / "file" / "blobs")


def test_s3_keeps_the_content_type(s3_address: str) -> None:
    """S3 is told the content type, of small and of large blobs."""

    async def work(store: BlobStore) -> None:
        await store.put("small", b"x", content_type="image/png")
        await store.put("large", in_pieces(bytes(PART_BYTES + 1)), content_type="text/csv")

    using("s3://kindred-test/types", work)
    client = boto3.client("s3")
    assert client.head_object(Bucket="kindred-test", Key="types/small")["ContentType"] == "image/png"
    assert client.head_object(Bucket="kindred-test", Key="types/large")["ContentType"] == "text/csv"


def test_s3_leaves_no_unfinished_upload(s3_address: str) -> None:
    """An upload that fails is aborted, for its parts would be paid for."""

    async def failing() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        raise RuntimeError("stop")

    async def work(store: BlobStore) -> None:
        with pytest.raises(RuntimeError):
            await store.put("half", failing())

    using("s3://kindred-test/aborted", work)
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket="kindred-test")


def test_s3_lists_more_than_a_page(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys than fit a page are listed and deleted to the last."""
    monkeypatch.setattr("infra.blob_s3.PAGE_KEYS", 3)

    async def work(store: BlobStore) -> tuple[int, int]:
        for n in range(10):
            await store.put(f"pages/{n}", b"")
        return len(await keys(store, "pages/")), await store.delete_prefix("pages/")

    assert using("s3://kindred-test/listed", work) == (10, 10)


def test_s3_without_its_bucket(s3_address: str) -> None:
    """A bucket that does not exist is the store's trouble, not a missing blob."""

    async def work(store: BlobStore) -> None:
        with pytest.raises(BlobsUnavailable, match="NoSuchBucket"):
            await store.put("a", b"x")
        with pytest.raises(BlobsUnavailable, match="NoSuchBucket"):
            await store.get("a")

    using("s3://no-such-bucket-here", work)


def test_s3_that_does_not_answer(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that nobody serves is unavailable, which is repeated later."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("infra.blob_s3.ATTEMPTS", 1)

    async def work(store: BlobStore) -> None:
        with pytest.raises(BlobsUnavailable, match="does not answer"):
            await store.exists("a")

    using("s3://kindred-test", work)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "blobs",
        "/var/blobs",
        "file://blobs",
        "file:relative",
        "s3://",
        "s3:///prefix",
        "http://bucket/",
        "s3://k@b",
    ],
)
def test_addresses_of_no_store(url: str) -> None:
    """A malformed KINDRED_BLOB is named with the forms it may have."""
    with pytest.raises(BadBlobUrl, match="s3://bucket/prefix"):
        open_blobs(url)


def test_the_address_chooses_the_store(s3_address: str, tmp_path: Path) -> None:
    """file:// is a folder, blanks and all; s3:// a bucket."""
    folder = open_blobs(f"file://{tmp_path}/with%20blank")
    bucket = open_blobs("s3://kindred-test/deep/prefix/")
    assert isinstance(folder, FolderBlobs)
    assert isinstance(bucket, S3Blobs)
    assert (tmp_path / "with blank").is_dir()
    asyncio.run(folder.aclose())
    asyncio.run(bucket.aclose())


@pytest.mark.parametrize(("start", "end"), [(0, None), (3, None), (0, 4), (2, 5), (9, 10), (4, 4), (0, 10)])
def test_a_part_of_a_blob(url: str, start: int, end: int | None) -> None:
    """A download that broke off goes on where it was: the bytes from one place to another, and how many there are."""

    async def work(store: BlobStore) -> None:
        await store.put("x", b"0123456789")
        assert await whole(store.open_stream("x", start=start, end=end)) == b"0123456789"[start:end]
        assert await store.size("x") == 10
        with pytest.raises(BlobMissing):
            await store.size("y")

    using(url, work)


# The promise is Linux's, where the image and CI run. macOS, for who develops there, opens /dev/fd/N where the file was
# left: the copy has a name there, which a killed process leaves.
@pytest.mark.skipif(sys.platform != "linux", reason="promised on Linux alone: BlobStore.local_path of S3 says why")
def test_a_killed_process_leaves_no_copy(s3_address: str, tmp_path: Path) -> None:
    """What people did may stand in it, and nobody looks into the temporary folder."""
    program = """
import asyncio, os, signal
from infra.blob_s3 import S3Blobs

async def main():
    store = S3Blobs("kindred-test", "killed")
    await store.put("upload", b"user_id,ts,type")
    async with store.local_path("upload") as path:
        assert path.read_bytes() == b"user_id,ts,type"
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []

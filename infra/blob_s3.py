"""Blobs in S3 or a store that speaks its protocol."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Final, ParamSpec, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.blob import (
    CHUNK_BYTES,
    BlobInfo,
    BlobMissing,
    BlobsUnavailable,
    Data,
    Threads,
    blob_missing,
    check_key,
    check_prefix,
)

P = ParamSpec("P")
T = TypeVar("T")

# At most 10,000 parts of at least 5 MiB; 8 MiB reach 78 GiB.
PART_BYTES: Final = 8 * 1024 * 1024
# Not Final: tests make them smaller.
ATTEMPTS = 4
PAGE_KEYS = 1000


class S3Blobs:
    """Blobs as objects of one bucket, every key under `prefix`.

    Streams are sent in parts of 8 MiB; what is smaller goes in one request. boto3 is synchronous, so each
    request takes one of `threads`.
    """

    def __init__(self, bucket: str, prefix: str = "", *, threads: int = 16) -> None:
        if prefix:
            check_key(prefix.rstrip("/"))
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        self._threads = Threads("s3", threads=threads)
        other_store = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._s3 = boto3.client(
            "s3",
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                max_pool_connections=threads,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                # Stores other than Amazon's seldom have a name per bucket, and some refuse the newer
                # checksums.
                s3={"addressing_style": "path" if other_store else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    async def put(self, key: str, data: Data, *, content_type: str = "application/octet-stream") -> BlobInfo:
        """As `BlobStore.put`."""
        name = self._name(key)
        if isinstance(data, bytes):
            await self._put_whole(name, data, content_type)
            return BlobInfo(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        digest, size = hashlib.sha256(), 0
        part = bytearray()
        upload: _Upload | None = None
        try:
            async for piece in data:
                digest.update(piece)
                size += len(piece)
                part += piece
                while len(part) >= PART_BYTES:
                    upload = upload or await self._begin(name, content_type)
                    await self._send(upload, bytes(part[:PART_BYTES]))
                    del part[:PART_BYTES]
            if upload is None:
                await self._put_whole(name, bytes(part), content_type)
            else:
                if part:
                    await self._send(upload, bytes(part))
                await self._complete(upload)
        except BaseException:
            if upload is not None:
                # Parts of an upload that was given up are stored and paid for until it is aborted.
                await asyncio.shield(self._abort(upload))
            raise
        return BlobInfo(sha256=digest.hexdigest(), size=size)

    async def get(self, key: str) -> bytes:
        """As `BlobStore.get`."""

        def read() -> bytes:
            body: bytes = self._s3.get_object(Bucket=self._bucket, Key=name)["Body"].read()
            return body

        name = self._name(key)
        return await self._call(read)

    async def open_stream(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """As `BlobStore.open_stream`."""
        if end is not None and end <= start:
            return
        name = self._name(key)
        if not start and end is None:
            answer = await self._call(self._s3.get_object, Bucket=self._bucket, Key=name)
        else:
            part = f"bytes={start}-{'' if end is None else end - 1}"
            answer = await self._call(self._s3.get_object, Bucket=self._bucket, Key=name, Range=part)
        body = answer["Body"]
        try:
            while piece := await self._call(body.read, CHUNK_BYTES):
                yield piece
        finally:
            body.close()

    @asynccontextmanager
    async def local_path(self, key: str) -> AsyncIterator[Path]:
        """As `BlobStore.local_path`: a copy in the temporary folder, removed after the block.

        On Linux it has no name there, so that a process that is killed leaves nothing of what people did. Elsewhere a
        file without a name cannot be opened anew, and the copy has one.
        """
        linux = sys.platform == "linux"
        with TemporaryFile() if linux else NamedTemporaryFile(prefix="kindred-blob-") as file:
            async for piece in self.open_stream(key):
                await self._threads.run(file.write, piece)
            await self._threads.run(file.flush)
            yield Path(f"/proc/self/fd/{file.fileno()}" if linux else file.name)

    async def delete(self, key: str) -> None:
        """As `BlobStore.delete`."""
        await self._call(self._s3.delete_object, Bucket=self._bucket, Key=self._name(key))

    async def delete_prefix(self, prefix: str) -> int:
        """As `BlobStore.delete_prefix`."""
        check_prefix(prefix)
        removed = 0
        async for names in self._pages(self._prefix + prefix):
            answer = await self._call(
                self._s3.delete_objects,
                Bucket=self._bucket,
                Delete={"Objects": [{"Key": name} for name in names], "Quiet": True},
            )
            if answer.get("Errors"):
                raise BlobsUnavailable(f"The object store did not delete {len(answer['Errors'])} files. Repeat.")
            removed += len(names)
        return removed

    async def iter_keys(self, prefix: str = "") -> AsyncIterator[str]:
        """As `BlobStore.iter_keys`."""
        if prefix:
            check_prefix(prefix)
        async for names in self._pages(self._prefix + prefix):
            for name in names:
                yield name.removeprefix(self._prefix)

    async def size(self, key: str) -> int:
        """As `BlobStore.size`."""
        answer = await self._call(self._s3.head_object, Bucket=self._bucket, Key=self._name(key))
        return int(answer["ContentLength"])

    async def exists(self, key: str) -> bool:
        """As `BlobStore.exists`."""
        try:
            await self._call(self._s3.head_object, Bucket=self._bucket, Key=self._name(key))
        except BlobMissing:
            return False
        return True

    async def aclose(self) -> None:
        """As `BlobStore.aclose`."""
        self._threads.close()
        self._s3.close()

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _call(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._threads.run(call, *args, **kwargs)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404", "NotFound"):
                raise blob_missing() from error
            raise BlobsUnavailable(f"The object store refuses the request ({code}). Check bucket and keys.") from error
        except (BotoCoreError, OSError) as error:
            raise BlobsUnavailable("The object store does not answer. Try again later.") from error

    async def _pages(self, prefix: str) -> AsyncIterator[list[str]]:
        """The full names below a prefix, up to 1,000 at a time."""
        paginator = self._s3.get_paginator("list_objects_v2")
        pages = iter(paginator.paginate(Bucket=self._bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE_KEYS}))
        while (page := await self._call(lambda: next(pages, None))) is not None:
            if names := [each["Key"] for each in page.get("Contents", [])]:
                yield names

    async def _put_whole(self, name: str, body: bytes, content_type: str) -> None:
        await self._call(self._s3.put_object, Bucket=self._bucket, Key=name, Body=body, ContentType=content_type)

    async def _begin(self, name: str, content_type: str) -> "_Upload":
        answer = await self._call(
            self._s3.create_multipart_upload, Bucket=self._bucket, Key=name, ContentType=content_type
        )
        return _Upload(name, answer["UploadId"])

    async def _send(self, upload: "_Upload", part: bytes) -> None:
        answer = await self._call(
            self._s3.upload_part,
            Bucket=self._bucket,
            Key=upload.name,
            UploadId=upload.id,
            PartNumber=len(upload.etags) + 1,
            Body=part,
        )
        upload.etags.append(answer["ETag"])

    async def _complete(self, upload: "_Upload") -> None:
        await self._call(
            self._s3.complete_multipart_upload,
            Bucket=self._bucket,
            Key=upload.name,
            UploadId=upload.id,
            MultipartUpload={
                "Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(upload.etags, start=1)]
            },
        )

    async def _abort(self, upload: "_Upload") -> None:
        # The bucket's own rule for unfinished uploads has the last word, and the first error is the one to
        # tell.
        with suppress(BlobMissing, BlobsUnavailable):
            await self._call(self._s3.abort_multipart_upload, Bucket=self._bucket, Key=upload.name, UploadId=upload.id)


class _Upload:
    """A multipart upload under way: its object, its id, and the tags of the parts sent so far."""

    def __init__(self, name: str, upload_id: str) -> None:
        self.name = name
        self.id = upload_id
        self.etags: list[str] = []

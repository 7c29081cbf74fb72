"""The packs that Kindred knows by name (manifest.toml), and which pack a setting means."""

import re
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from workers.encoders.pack import ImageOptions, Manifest, Pack, PackNotFound, TextOptions, verify_pack

_HERE = Path(__file__).parent
PACKS = _HERE / "packs"
"""Packs that are part of Kindred."""

DEFAULT_TEXT = "all-minilm-l6-v2"
DEFAULT_IMAGE = "kindred-image-v1"


class HubFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a hub pack: `path` in the pack, `from` in the repository (the same when absent).

    `repository` and `revision` default to the pack's; `sha256` is None where it is learnt at first fetch.
    """

    path: str
    source: str | None = msgspec.field(default=None, name="from")
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None


class KnownPack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of manifest.toml. `languages` are BCP 47 codes, `*` for most; `size_mb` on disk."""

    kind: Literal["text", "image", "both"]
    dim: int
    source: Literal["built", "repository", "hub"]
    licence: str
    about: str
    size_mb: int
    name: str = ""
    languages: list[str] = []
    repository: str = ""
    revision: str = ""
    files: list[HubFile] = []
    text: TextOptions = TextOptions()
    image: ImageOptions = ImageOptions()

    def manifest(self, files: dict[str, str]) -> Manifest:
        """The `manifest.json` of this pack with the sha256 of each of its files."""
        return Manifest(
            name=self.name,
            kind=self.kind,
            dim=self.dim,
            revision=self.revision,
            licence=self.licence,
            files=files,
            text=self.text,
            image=self.image,
        )


@cache
def list_packs() -> tuple[KnownPack, ...]:
    """Every pack known by name, in the order of manifest.toml."""
    tables = msgspec.toml.decode((_HERE / "manifest.toml").read_bytes(), type=dict[str, KnownPack])
    return tuple(msgspec.structs.replace(pack, name=name) for name, pack in tables.items())


def find_pack(name: str) -> KnownPack | None:
    """The pack of this name, None where Kindred knows none."""
    return next((pack for pack in list_packs() if pack.name == name), None)


def pack_folder(value: str, models: Path) -> Path:
    """Where the pack that `value` means lies on disk, whether or not it is there yet.

    `value` is what KINDRED_MODELS_TEXT and KINDRED_MODELS_IMAGE hold: a known name, a folder, or
    `s3://bucket/prefix`; `models` is the folder that fetched and built packs are kept in.
    """
    known = find_pack(value)
    if known is not None:
        return (PACKS if known.source == "repository" else models) / known.name
    if value.startswith("s3://"):
        return models / re.sub(r"[^a-z0-9.]+", "-", value.lower()).strip("-.")
    if "/" in value or value.startswith("."):
        return Path(value).expanduser()
    names = ", ".join(pack.name for pack in list_packs())
    raise PackNotFound(
        f"There is no pack {value!r}. Known are {names}; a folder (./pack) or s3://bucket/prefix works too."
    )


def open_pack(value: str, models: Path) -> Pack:
    """The verified pack that `value` means. Never fetches: a start must not depend on a network.

    Raises `PackNotFound` where it has not been fetched, `BadPack` where a file is damaged.
    """
    folder = pack_folder(value, models)
    known = find_pack(value)
    try:
        pack = verify_pack(folder)
    except PackNotFound:
        if folder.exists() and known is None and not value.startswith("s3://"):
            raise
        raise PackNotFound(f"The pack {value} is not on this machine. Run `kindred models fetch {value}`.") from None
    if known is None:
        return pack
    # How a known pack is run is told by the manifest.toml of this version, not by that of the version that fetched it.
    options = msgspec.structs.replace(pack.manifest, text=known.text, image=known.image)
    return Pack(folder=pack.folder, manifest=options)

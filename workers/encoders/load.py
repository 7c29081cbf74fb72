"""From a setting to a running encoder: find the pack, verify it, open it with the class that its layout wants."""

from pathlib import Path

from workers.encoders.coverage import CoveringTextEncoder
from workers.encoders.image import OnnxImageEncoder
from workers.encoders.registry import find_pack, open_pack
from workers.encoders.text import OnnxTextEncoder
from workers.encoders.types import ImageEncoder


def load_text_encoder(value: str, models: Path, *, threads: int = 1) -> CoveringTextEncoder:
    """The text encoder that KINDRED_MODELS_TEXT means, with n-grams for what its pack does not cover.

    `models` is the folder of fetched packs. A pack that is not known by name is taken to cover the
    languages of whoever chose it. Raises `PackNotFound`, `BadPack`.
    """
    known = find_pack(value)
    pack = OnnxTextEncoder(open_pack(value, models), threads=threads)
    return CoveringTextEncoder(pack, languages=known.languages if known else ["*"])


def load_image_encoder(value: str, models: Path, *, threads: int = 1) -> ImageEncoder:
    """The image encoder that KINDRED_MODELS_IMAGE means. Raises `PackNotFound`, `BadPack`."""
    known = find_pack(value)
    pack = open_pack(value, models)
    options = known.image if known else pack.manifest.image
    if options.runner == "compact":
        from workers.encoders.compact import CompactImageEncoder

        return CompactImageEncoder(pack.folder, threads)
    return OnnxImageEncoder(pack, threads=threads)

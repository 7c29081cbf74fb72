"""The encoders that this worker has loaded: one set per layout of the fused rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from infra.db import Database
from infra.errors import KindredError
from infra.settings import Settings
from tenants.lifecycle import NGRAMS_PREFIX
from tenants.vectors.generations import Calibration, Layout, ensure_layout, ensure_space
from workers.encoders.ngrams import NgramEncoder
from workers.encoders.registry import find_pack, open_pack
from workers.encoders.types import ImageEncoder, TextEncoder

Covers = Callable[[str, str | None], bool]
"""Whether the text encoder knows the language of a text (and of the item, where its language is given)."""


def covers_all(_text: str, _language: str | None) -> bool:
    """For encoders that know every language, or none better than another."""
    return True


@dataclass(frozen=True, kw_only=True)
class Models:
    """Encoders and where their vectors belong. `names` are the spaces' names in the order text, n-grams, image."""

    layout: Layout
    text: TextEncoder
    ngrams: TextEncoder
    image: ImageEncoder
    covers: Covers
    calibration: Calibration
    names: tuple[str, str, str]


@cache
def _defaults() -> dict[str, tuple[float, float]]:
    table = (Path(__file__).parent / "calibration.toml").read_bytes()
    return msgspec.toml.decode(table, type=dict[str, tuple[float, float]])


def default_calibration(name: str, kind: str) -> tuple[float, float]:
    """Mean and deviation of random pairs in a space, before they are measured. `name` is the space's."""
    table = _defaults()
    return table.get(name.partition("@")[0], table[kind])


async def register(
    database: Database, *, text: TextEncoder, image: ImageEncoder, covers: Covers = covers_all
) -> Models:
    """Give the encoders' spaces and their layout numbers in the database."""
    ngrams = NgramEncoder(dim=text.space.dim)
    # Named with its size, as two packs of different sizes need two spaces of n-grams.
    grams_name = f"{NGRAMS_PREFIX}{text.space.dim}@{ngrams.space.name.partition('@')[2]}"
    # A pack with both towers (CLIP) has one name, but a text's and a photo's vector of an item are two rows.
    image_name = image.space.name if image.space.name != text.space.name else f"{image.space.name}/image"
    async with database.system_session(reason="register spaces") as conn:
        text_space = await ensure_space(conn, name=text.space.name, kind="text", dim=text.space.dim)
        ngrams_space = await ensure_space(conn, name=grams_name, kind="text", dim=text.space.dim)
        image_space = await ensure_space(conn, name=image_name, kind="image", dim=image.space.dim)
        layout_id = await ensure_layout(conn, text_space, image_space)
    return Models(
        layout=Layout(
            layout_id=layout_id,
            text_space=text_space,
            ngrams_space=ngrams_space,
            image_space=image_space,
            text_dim=text.space.dim,
            image_dim=image.space.dim,
        ),
        text=text,
        ngrams=ngrams,
        image=image,
        covers=covers,
        calibration={
            ngrams_space: default_calibration(grams_name, "ngrams"),
            text_space: default_calibration(text.space.name, "text"),
            image_space: default_calibration(image_name, "image"),
        },
        names=(text.space.name, grams_name, image_name),
    )


def open_text(value: str, models: Path, threads: int) -> tuple[TextEncoder, Covers]:
    """The text encoder of a pack, verified, and what it covers. Raises PackNotFound, BadPack."""
    from workers.encoders.coverage import is_covered
    from workers.encoders.text import OnnxTextEncoder

    pack = open_pack(value, models)
    encoder = OnnxTextEncoder(pack, threads=threads)
    known = find_pack(pack.manifest.name)
    # Of a pack that somebody brought along nothing is known: only its tokenizer says what it cannot read.
    languages = (known.languages if known else None) or ["*"]

    def covers(text: str, language: str | None) -> bool:
        return is_covered(encoder.tokenizer, text, languages=languages, language=language)

    return encoder, covers


def open_image(value: str, models: Path, threads: int) -> ImageEncoder:
    """The image encoder of a pack, verified. Raises PackNotFound, BadPack."""
    pack = open_pack(value, models)
    if pack.manifest.image.runner == "compact":
        from workers.encoders.compact import CompactImageEncoder

        return CompactImageEncoder(pack.folder, threads)
    from workers.encoders.image import OnnxImageEncoder

    return OnnxImageEncoder(pack, threads=threads)


_SERVING: Final = """
select distinct a.name as text, b.name as image from tenants t
join generations g on g.tenant_id = t.tenant_id and g.gen = t.active_gen
join layouts l on l.layout_id = g.layout_id
join spaces a on a.space_id = l.text_space join spaces b on b.space_id = l.image_space
where t.deleted_at is null
"""


async def load_models(settings: Settings, database: Database) -> Sequence[Models]:
    """The encoders that the settings name, first, then those that some tenant is still served from.

    The latter are looked for under their packs' names and left out where they are not on this machine any more.
    """
    from sqlalchemy import text as sql

    threads, folder = settings.encoder_threads, settings.models_dir
    text, covers = open_text(settings.models_text, folder, threads)
    image = open_image(settings.models_image, folder, threads)
    wanted = await register(database, text=text, image=image, covers=covers)
    loaded = [wanted]
    async with database.system_session(reason="encoders in use") as conn:
        serving = [(row.text, row.image) for row in await conn.execute(sql(_SERVING))]
    for text_name, image_name in serving:
        if (text_name, image_name) == (wanted.names[0], wanted.names[2]):
            continue
        try:
            old_text, old_covers = (
                (text, covers)
                if text_name == wanted.names[0]
                else open_text(text_name.partition("@")[0], folder, threads)
            )
            old_image = (
                image if image_name == wanted.names[2] else open_image(image_name.partition("@")[0], folder, threads)
            )
        except KindredError:
            continue
        if old_text.space.name == text_name and old_image.space.name == image_name.removesuffix("/image"):
            loaded.append(await register(database, text=old_text, image=old_image, covers=old_covers))
    return loaded

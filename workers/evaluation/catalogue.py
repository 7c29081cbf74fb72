"""The products of an evaluation: their texts and photos as vectors, by the same encoders that serve."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from infra.errors import Invalid
from infra.settings import Settings
from tenants.catalog.document import item_text
from tenants.catalog.item import Item, check_items
from workers.encoders.ngrams import NgramEncoder
from workers.encoders.photo import BadPhoto, decode_photo
from workers.feeds.read import read_feed
from workers.feeds.types import FeedRow
from workers.models import open_image, open_text
from workers.training.behaviour.interactions import Floats

_PHOTOS_AT_ONCE: Final = 32


class BadCatalogue(Invalid):
    """A file of items for an evaluation cannot be used."""

    code = "bad_catalogue"
    title = "The items cannot be read"


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an item: its text as it is encoded, its photos on this disk, and what figures are sliced by."""

    id: str
    text: str
    photos: tuple[Path, ...] = ()
    language: str | None = None
    category: str | None = None
    seller: str | None = None


def read_catalogue(path: Path, images: Path | None) -> list[Product]:
    """The products of an `items.jsonl`; photos only from the folder `images`. Raises BadCatalogue."""
    products: dict[str, Product] = {}
    try:
        with path.open("rb") as stream:
            for row in read_feed(stream, format="ndjson", file_name=path.name, default_currency="USD"):
                if not isinstance(row, FeedRow):
                    continue
                item = check_items([row.item])[0][0]
                if item is not None:
                    products[item.id] = _product(item, row.local_images, images)
    except OSError as error:
        raise BadCatalogue(f"{path.name} cannot be read: {error}.") from error
    if not products:
        raise BadCatalogue(f"{path.name} holds no item with an id.")
    return list(products.values())


def _product(item: Item, local: Sequence[str], images: Path | None) -> Product:
    return Product(
        id=item.id,
        text=item_text(item),
        photos=tuple(images / name for name in local) if images is not None else (),
        language=item.language,
        category=item.categories[0].partition(">")[0].strip() if item.categories else None,
        seller=item.seller_id,
    )


def encode_texts(products: Sequence[Product], settings: Settings, cache: Path) -> tuple[Floats, str]:
    """float32[n, d] and the name of the space. Texts in languages that the pack does not cover are character n-grams
    in columns of their own, so that the two compare only with their like.
    """
    encoder, covers = open_text(settings.models_text, settings.models_dir, threads=2)
    dim = encoder.space.dim
    key = _key(encoder.space.name, *(f"{p.language}\0{p.text}" for p in products))

    def encode() -> Floats:
        covered = np.array([covers(p.text, p.language) for p in products], bool)
        there = np.array([bool(p.text) for p in products], bool)
        rows = np.zeros((len(products), dim if covered.all() else 2 * dim), np.float32)
        for chosen, part, offset in ((covered, encoder, 0), (~covered, NgramEncoder(dim=dim), dim)):
            numbers = np.flatnonzero(chosen & there)
            if len(numbers):
                # Many products are told apart by their id alone: the same text is encoded once.
                texts = [products[n].text for n in numbers.tolist()]
                place = {text: at for at, text in enumerate(dict.fromkeys(texts))}
                rows[numbers, offset : offset + dim] = part.encode(list(place))[[place[text] for text in texts]]
        return rows

    return _cached(cache / f"text-{key}.npy", encode), encoder.space.name


def encode_photos(products: Sequence[Product], settings: Settings, cache: Path) -> tuple[Floats, str]:
    """float32[n, d], the mean of an item's photos at length 1, and the name of the space. A photo that is missing or
    broken is left out.
    """
    encoder = open_image(settings.models_image, settings.models_dir, threads=2)
    key = _key(encoder.space.name, *(str(photo) for p in products for photo in (p.id, *p.photos)))

    def encode() -> Floats:
        rows = np.zeros((len(products), encoder.space.dim), np.float32)
        wanted = [(number, photo) for number, p in enumerate(products) for photo in p.photos]
        for start in range(0, len(wanted), _PHOTOS_AT_ONCE):
            opened = []
            for number, path in wanted[start : start + _PHOTOS_AT_ONCE]:
                try:
                    opened.append((number, decode_photo(path.read_bytes())))
                except (OSError, BadPhoto):
                    continue
            if opened:
                numbers = [number for number, _ in opened]
                np.add.at(rows, numbers, encoder.encode([photo for _, photo in opened]))
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)

    return _cached(cache / f"image-{key}.npy", encode), encoder.space.name


def _key(*parts: str) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode("utf-8", "surrogatepass") + b"\x01")
    return found.hexdigest()[:20]


def _cached(path: Path, make: Callable[[], Floats]) -> Floats:
    if path.is_file():
        return np.asarray(np.load(path), np.float32)
    rows = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".part.npy")
    np.save(staging, rows)
    staging.replace(path)
    return rows

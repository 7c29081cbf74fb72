"""Reads the development catalogues as a shop's feeds are read, for benchmarks."""

import json
from pathlib import Path

import msgspec

from tenants.catalog.document import item_text
from tenants.catalog.item import Item
from workers.feeds.read import read_feed
from workers.feeds.types import FeedRow

CATALOGUES = ("luma_catalogue", "spree_catalogue", "saleor_catalogue", "vendure_catalogue", "oscar_books")
LARGE = "retail_demo_store"

DATA = Path("../shared/data")


def read_items(path: Path) -> list[Item]:
    """The items of one feed file; rows with faults are left out."""
    with path.open("rb") as file:
        rows = read_feed(file, format="auto", file_name=path.name, default_currency="USD")
        return [msgspec.convert(row.item, Item) for row in rows if isinstance(row, FeedRow)]


def catalogue_texts(data: Path) -> dict[str, list[str]]:
    """The texts to encode of each English catalogue."""
    return {
        name: [item_text(item) for item in read_items(data / name / "items.jsonl")] for name in (*CATALOGUES, LARGE)
    }


def foreign_items(data: Path) -> dict[str, list[Item]]:
    """Items in Russian (three feeds), and the German and French translations of one catalogue."""
    found = {
        f"ru {path.stem.split('_')[2]}": read_items(path)
        for path in sorted((data / "feeds" / "yandex_yml").glob("*.xml"))
    }
    path = data / "spree_catalogue" / "items.jsonl"
    items = {item.id: item for item in read_items(path)}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for language in ("de", "fr"):
        found[language] = [
            msgspec.structs.replace(
                items[row["id"]],
                title=row["translations"][language]["title"],
                description=row["translations"][language]["description"],
            )
            for row in rows
        ]
    return found

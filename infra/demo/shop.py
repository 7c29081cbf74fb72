"""Which shop /demo shows: a small file in the data folder, written by `kindred demo`, read by the API processes."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

_FILE: Final = "demo.json"


class DemoVisitor(Struct, frozen=True, kw_only=True):
    """Somebody whom the storefront lets one shop as."""

    name: str
    visitor_id: str


class DemoShop(Struct, frozen=True, kw_only=True):
    """The shop that the storefront shows: its name, and a key that may only recommend, search and tell events."""

    name: str
    publishable_key: str
    visitors: list[DemoVisitor] = []


def write_demo(data_dir: Path, shop: DemoShop) -> None:
    """Tell the API processes of this data folder which shop to show."""
    aside = data_dir / f".{_FILE}"
    aside.write_bytes(msgspec.json.encode(shop))
    aside.chmod(0o600)
    aside.replace(data_dir / _FILE)


def read_demo(data_dir: Path) -> DemoShop | None:
    """The shop to show; None where none was loaded."""
    try:
        return msgspec.json.decode((data_dir / _FILE).read_bytes(), type=DemoShop)
    except (FileNotFoundError, msgspec.DecodeError):
        return None

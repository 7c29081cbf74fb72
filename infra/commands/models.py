"""`kindred models`: packs of encoders."""

import sys
from argparse import Namespace

from rich.console import Console
from rich.table import Table

from infra.settings import Settings, read_chosen, write_chosen
from workers.encoders.registry import list_packs, open_pack, pack_folder
from workers.encoders.sources import fetch_pack


def list_(settings: Settings, arguments: Namespace) -> int:
    """The packs that Kindred knows."""
    table = Table("pack", "kind", "dim", "MB", "licence", "here", "used", "", box=None, pad_edge=False)
    used = {settings.models_text: "text", settings.models_image: "image"}
    for pack in list_packs():
        here = "yes" if (pack_folder(pack.name, settings.models_dir) / "manifest.json").exists() else ""
        table.add_row(
            pack.name, pack.kind, str(pack.dim), str(pack.size_mb), pack.licence, here, used.get(pack.name), pack.about
        )
    Console().print(table)
    return 0


def fetch(settings: Settings, arguments: Namespace) -> int:
    """Fetch or build one."""
    fetch_with_progress(arguments.pack, settings, Console())
    return 0


def use(settings: Settings, arguments: Namespace) -> int:
    """Encode with one from the workers' next start."""
    fetch_with_progress(arguments.pack, settings, Console())
    pack = open_pack(arguments.pack, settings.models_dir)
    kinds = ["text", "image"] if pack.manifest.kind == "both" else [pack.manifest.kind]
    if arguments.only is not None:
        kinds = [kind for kind in kinds if kind == arguments.only]
    if not kinds:
        print(f"kindred: {arguments.pack} is no {arguments.only} pack.", file=sys.stderr)
        return 2
    before = {"text": settings.models_text, "image": settings.models_image}
    write_chosen(settings.data_dir, {**read_chosen(settings.data_dir), **dict.fromkeys(kinds, arguments.pack)})
    back = ", ".join(f"kindred models use {before[kind]}" for kind in kinds)
    print(
        f"kindred: {arguments.pack} encodes {' and '.join(kinds)} from the workers' next start. "
        "Every catalogue is then "
        f"encoded anew in the background; lists switch when that is complete. To go back: {back}"
    )
    return 0


def verify(settings: Settings, arguments: Namespace) -> int:
    """Check every file against its sha256."""
    for value in arguments.pack or [settings.models_text, settings.models_image]:
        pack = open_pack(value, settings.models_dir)
        print(f"kindred: {value}: {len(pack.manifest.files)} files match their sha256.")
    return 0


def fetch_with_progress(value: str, settings: Settings, console: Console) -> None:
    """Fetch or build a pack, and say how far it is."""
    with console.status(f"Making the model pack {value}") as status:

        def tell(name: str, done: int, total: int | None) -> None:
            share = f"{done / total:.0%}" if total else f"{done >> 20} MB"
            status.update(f"Making the model pack {value}: {name} {share}")

        fetch_pack(value, settings.models_dir, progress=tell)
    console.print(f"Model pack {value} is ready.")

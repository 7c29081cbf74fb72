"""What every benchmark prints: a table for people, and JSON for programs."""

import json
import os
import platform
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


class Line(NamedTuple):
    """One figure; `bar` is what it is held against, `met` whether it holds (None: no bar)."""

    what: str
    figure: str
    bar: str | None
    met: bool | None


def print_report(name: str, lines: list[Line]) -> None:
    """Print the table, and write benchmarks/results/<name>.json."""
    table = Table(title=name, title_justify="left", box=None, pad_edge=False)
    for heading in ("what", "measured", "bar", ""):
        table.add_column(heading)
    for line in lines:
        mark = "" if line.met is None else "met" if line.met else "[red]missed[/red]"
        table.add_row(line.what, line.figure, line.bar or "", mark)
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count()}
    document = {"name": name, "machine": machine, "lines": [line._asdict() for line in lines]}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
    print(json.dumps(document, ensure_ascii=False))

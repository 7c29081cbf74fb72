"""How every benchmark tells its result: a table for people on the screen, JSON for programs in a file."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def report(name: str, rows: Sequence[Mapping[str, Any]], *, notes: Mapping[str, Any] | None = None) -> Path:
    """Print `rows` (one dict per line, same keys) and write them to `benchmarks/results/<name>.json`."""
    columns = list(rows[0]) if rows else []
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    print(f"\n{name}")
    for line in [columns, ["-" * width for width in widths], *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    for key, value in (notes or {}).items():
        print(f"{key}: {_cell(value)}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
    path.write_text(json.dumps({"name": name, **machine, "notes": notes or {}, "rows": rows}, indent=1))
    return path


def _cell(value: object) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

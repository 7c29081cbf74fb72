"""`python -m workers.training TASK FOLDER`: one piece of training in a process of its own, files in, files out.

Started by `workers.training.child`. Its memory goes back to the system when it ends, it may be killed at any time,
and it yields to whoever answers requests.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from infra.traces import format_trace

Report = Callable[[int, int], None]
"""Told how much is done of how much."""


def _neighbours(folder: Path, report: Report) -> None:
    from workers.training.content.task import run

    run(folder, report)


def _behaviour(folder: Path, report: Report) -> None:
    from workers.training.shop.fit import run

    run(folder, report)


TASKS: Final[Mapping[str, Callable[[Path, Report], None]]] = {"behaviour": _behaviour, "neighbours": _neighbours}


_EVERY_S: Final = 0.5
"""So often progress is told at most."""


def _end_with(parent: int) -> None:
    """A child whose parent was killed has nobody to work for."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Do the task; 0 when its files are written."""
    task, folder = sys.argv[1:] if argv is None else argv
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.nice(10)
    told = [0.0]

    def report(done: int, total: int) -> None:
        if time.monotonic() - told[0] >= _EVERY_S or done == total:
            told[0] = time.monotonic()
            print(done, total, flush=True)

    TASKS[task](Path(folder), report)
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak_kb = used.ru_maxrss if sys.platform == "linux" else used.ru_maxrss / 1024
    usage = {"peak_mb": round(peak_kb / 1024, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 2)}
    (Path(folder) / "usage.json").write_text(json.dumps(usage))
    return 0


if __name__ == "__main__":
    # It ends up in the log of whoever started us.
    sys.excepthook = lambda _kind, error, _trace: print(format_trace(error), file=sys.stderr)
    sys.exit(main())

"""`make run` on a fresh clone with warm package caches: seconds to the first recommendation by curl.

python -m benchmarks.startup [--repository .]
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.report import Line, print_report

_LIMIT_S = 300


def _run(repository: Path) -> list[Line]:
    folder = Path(tempfile.mkdtemp(prefix="kindred-fresh-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KINDRED_", "VIRTUAL_ENV"))}
    try:
        subprocess.run(["git", "clone", "-q", str(repository), str(folder / "kindred")], check=True)
        started = time.monotonic()
        process = subprocess.Popen(
            ["make", "run", f"PORT={port}"],
            cwd=folder / "kindred",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        marks: dict[str, float] = {}
        curl = ""
        assert process.stdout is not None
        try:
            for line in process.stdout:
                for name, pattern in (
                    ("installed", "Model pack"),
                    ("ready", "kindred: ready"),
                    ("uploaded", "Uploading products"),
                    ("loaded", "is loaded"),
                ):
                    if pattern in line:
                        marks.setdefault(name, time.monotonic() - started)
                if line.startswith("curl "):
                    curl = line
                elif curl:
                    curl += line
                    if "-d '" in line:
                        break
                if time.monotonic() - started > _LIMIT_S:
                    raise RuntimeError("make run took too long")
            answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
            total = time.monotonic() - started
            assert re.search(r'"rank":1', answer), answer[:300]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    encoding = marks["loaded"] - marks["uploaded"]
    return [
        Line("environment and model pack", f"{marks['installed']:.1f} s", None, None),
        Line("ready to serve", f"{marks['ready']:.1f} s", None, None),
        Line("of which encoding the demo, after the upload", f"{encoding:.1f} s", "≤ 30 s", encoding <= 30),
        Line("first recommendation by curl", f"{total:.1f} s", "≤ 60 s", total <= 60),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path())
    print_report("startup", _run(parser.parse_args().repository.resolve()))


if __name__ == "__main__":
    main()

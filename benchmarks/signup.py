"""From signing up to the first recommendation of one's own products, by the commands of docs/signup.md as they stand.

    python -m benchmarks.signup [--rounds 5]

The page is run by one shell per round, against a real installation whose mails are files; each round is another person.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage

_PAGE = Path(__file__).parent.parent / "docs" / "signup.md"
_STEPS = ("sign up", "the mail's link", "verify", "feed → first list")


def _walk(environment: dict[str, str]) -> list[float]:
    """Seconds that each step took. Raises CalledProcessError where one fails."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(_STEPS), "the page has other steps than this program names"
    script = "set -euo pipefail\n" + "\n".join(f"{block}\necho done >&3" for block in blocks)
    marks = [time.perf_counter()]
    read, write = os.pipe()
    shell = subprocess.Popen(
        ["bash", "-c", script.replace(">&3", f">&{write}")],
        env=environment,
        pass_fds=(write,),
        stdout=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as steps:
        marks.extend(time.perf_counter() for _ in steps)
    if shell.wait(60):
        raise subprocess.CalledProcessError(shell.returncode, "docs/signup.md")
    return [after - before for before, after in pairwise(marks)]


def _run(rounds: int) -> list[Line]:
    with Stage() as stage, tempfile.TemporaryDirectory() as scratch:
        environment = {
            "PATH": os.environ["PATH"],
            "KINDRED_URL": stage.url,
            "KINDRED_DATA_DIR": str(stage.settings.data_dir),
            "TMPDIR": scratch,
        }
        walks = [_walk(environment) for _ in range(rounds)]
    whole = statistics.median(sum(walk) for walk in walks)
    return [
        *(
            Line(name, f"{statistics.median(walk[at] for walk in walks):.2f} s", None, None)
            for at, name in enumerate(_STEPS)
        ),
        Line("sign-up → first own recommendation", f"{whole:.2f} s", "≤ 180 s", whole <= 180),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    print_report("signup", _run(parser.parse_args().rounds))


if __name__ == "__main__":
    main()

"""Made-up requests for minutes: does every answer keep to the OpenAPI document?

    python -m benchmarks.contract [--examples 50] [--seconds 300] [--seed 1]

First each operation alone, so many times with what may be sent to it and so many with what may not; then walks, those
of `tests/contract/test_stateful.py` from other seeds and for longer. A worker runs, so that imports, exports and
training come to an end, and no answer is excused. Worker and API follow made-up addresses of photos, feeds and
webhooks: run it where that reaches nobody, as in `unshare -n`.
"""

import argparse
import logging
import time
from collections import Counter

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage
from tests.contract.walk import DOCUMENT, Tally, ask, load, modes, run, walks

_UNDOCUMENTED = ("UndefinedStatusCode", "UndefinedContentType")
_FORM = ("JsonSchemaError", "MalformedJson", "MissingContentType", "MalformedMediaType")


def _report(tally: Tally, walked: int) -> list[Line]:
    operations = sum(len(methods) for methods in DOCUMENT["paths"].values())
    found = Counter(kind for _, kind in tally.failures)
    server_errors = found["ServerError"]
    undocumented, form = (sum(found[kind] for kind in kinds) for kinds in (_UNDOCUMENTED, _FORM))
    others = found.total() - server_errors - undocumented - form
    good = sum(count for status, count in tally.statuses.items() if status < 400)
    return [
        Line("operations tried", f"{len(tally.requests)} of {operations}", None, None),
        Line("walks", f"{walked:,}", None, None),
        Line(
            "requests",
            f"{tally.requests.total():,}, {good / tally.statuses.total():.0%} of them answered below 400",
            None,
            None,
        ),
        Line("links followed", f"{tally.followed.total():,}, {len(tally.followed)} of {len(tally.links)}", None, None),
        Line("server errors", str(server_errors), "0", server_errors == 0),
        Line("undocumented statuses and types", str(undocumented), "0", undocumented == 0),
        Line("answers of another form than the document's", str(form), "0", form == 0),
        Line("without a key, after a deletion, not there, bad data taken", str(others), "0", others == 0),
    ]


def main() -> None:
    """Walk and print; what was found is printed first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    tally = Tally()
    with Stage() as stage:
        began, seed, walked = time.monotonic(), given.seed, 0

        def new_key() -> str:
            nonlocal walked
            walked += 1
            return stage.make_tenant().secret_key

        def progress() -> None:
            print(
                f"{time.monotonic() - began:.0f} s, {tally.requests.total():,} requests, {len(tally.failures)} faults"
            )

        logging.getLogger("httpx").setLevel(logging.WARNING)
        for operation in (result.ok() for result in load().get_all_operations()):
            for mode in modes(operation):
                key = stage.make_tenant().secret_key  # a shop for each: none comes to its limits
                ask(tally, stage.url, key, operation, mode, examples=given.examples, encoder=True, seed=given.seed)
        progress()
        machine = walks(tally, stage.url, new_key, encoder=True)
        began = time.monotonic()
        while time.monotonic() - began < given.seconds:
            run(machine, seed=seed)
            seed += 1
            progress()
    print(tally.told())
    print_report("contract", _report(tally, walked))


if __name__ == "__main__":
    main()

"""The links of the OpenAPI document lead from answer to answer: walks along them find only what the document says."""

from collections.abc import Callable

import pytest

from tests.contract.walk import DOCUMENT, Tally, run, walks
from tests.integration.api.server import Server

# What the routes say is the same on every PostgreSQL.
pytestmark = pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True, scope="session")

_SEEDS = range(3)
_NOT_WALKED = {
    "GET /demo/assets/{name}": "no answer leads there",
    "GET /docs/assets/{name}": "no answer leads there",
    "GET /photos/{token}": "no answer leads there",
    "POST /v1/models/{model}/activate": "a model is trained from thousands of events",
}


@pytest.fixture(scope="module")
def walked(server: Server, new_key: Callable[[], str]) -> Tally:
    """Some 30 walks of at most 50 steps, from the same seeds each time; `python -m benchmarks.contract` walks on.

    Whether what is bad is refused, test_openapi.py asks of each operation alone, by the same requests each time.

    What the server writes by and by may part them: a walk that meets a flushed log goes on otherwise.
    """
    tally = Tally()
    machine = walks(tally, server.url, new_key, encoder=False, refusals=False)
    for seed in _SEEDS:
        run(machine, seed=seed, walks=10)
    return tally


def test_every_answer_on_the_way_is_one_of_the_document(walked: Tally) -> None:
    """Whatever was made, changed and ended before, and nobody gets in without a key or to what is gone."""
    assert not walked.failures, walked.told()


def test_the_walks_come_by_every_operation(walked: Tally) -> None:
    """But for those that say why not, and two that a walk which went otherwise may have passed by."""
    every = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    passed_by = every - walked.requests.keys() - _NOT_WALKED.keys()
    assert len(passed_by) <= 2, passed_by


def test_the_walks_follow_most_links(walked: Tally) -> None:
    """What none of them follows would test nothing."""
    assert len(walked.followed) >= 0.75 * len(walked.links)

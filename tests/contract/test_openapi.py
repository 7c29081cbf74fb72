"""The OpenAPI document is the contract: made-up requests to the real server keep to it, good and bad ones."""

import re
from typing import Any

import httpx
import pytest
from schemathesis.generation import GenerationMode

from tests.contract.walk import DOCUMENT, Tally, ask, load, modes
from tests.integration.api.server import Server

# What the routes say is the same on every PostgreSQL.
pytestmark = pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True, scope="session")

SCHEMA = load()
OPERATIONS = [
    pytest.param(operation, mode, id=f"{operation.label.lower()} {mode.value}")
    for operation in (result.ok() for result in SCHEMA.get_all_operations())
    for mode in modes(operation)
]


@pytest.mark.parametrize(("operation", "mode"), OPERATIONS)
def test_every_answer_is_one_of_the_document(server: Server, key: str, operation: Any, mode: GenerationMode) -> None:
    """Whatever is sent, the status is listed, the body has its form, and nothing of ours breaks."""
    tally = Tally()
    ask(tally, server.url, key, operation, mode, examples=8, encoder=False)
    assert not tally.failures, tally.told()


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_method_that_the_document_does_not_name_is_not_taken(server: Server, key: str, path: str) -> None:
    """405, and `Allow` names those that are.

    An item may be called `bulk`: what is taken of an item is taken there too, and `Allow` is of either.
    """
    address = path.replace("{position}", "0").replace("{", "").replace("}", "")
    told = [
        {method.upper() for method in methods}
        for other, methods in DOCUMENT["paths"].items()
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), address)
    ]
    headers = {"Authorization": f"Bearer {key}"}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - set().union(*told):
        answer = httpx.request(method, server.url + address, headers=headers, trust_env=False)
        assert answer.status_code == 405, method
        allowed = {each.strip() for each in answer.headers["Allow"].split(",")}
        assert any(methods <= allowed for methods in told)

"""The OpenAPI document says what the handlers do."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar, get, put
from msgspec import Raw

from api.app import Application, create_app
from api.contract import contract
from api.openapi import Operation, document, operations
from infra.blob_folder import FolderBlobs
from infra.db import Database
from infra.settings import Settings

_SETTINGS = Settings(secret_key="x" * 32, data_dir=Path("/nowhere"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """The application, not started: no database is asked."""
    database = Database("postgresql://nobody:x@127.0.0.1:1/none")
    return create_app(_SETTINGS, database, FolderBlobs(tmp_path_factory.mktemp("blobs")))


@pytest.fixture(scope="module")
def described(app: Application) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(msgspec.json.encode(document(app.framework)))
    return made


def _each(app: Application) -> list[Operation]:
    return list(operations(app.framework))


def test_every_example_of_a_body_is_taken(app: Application) -> None:
    """A reader may copy any of them."""
    examples = [(each.contract.body, each.contract.body_example) for each in _each(app) if each.contract.body]
    assert len(examples) >= 5
    for kind, example in examples:
        assert example is not None
        msgspec.json.decode(msgspec.json.encode(example), type=kind)


def test_every_example_of_an_answer_has_its_form(app: Application) -> None:
    """What is shown is what comes."""
    for each in _each(app):
        if each.contract.answer_example is not None and each.contract.answer is not Raw:
            msgspec.json.decode(msgspec.json.encode(each.contract.answer_example), type=each.contract.answer)


def test_every_operation_is_named_once(app: Application, described: dict[str, Any]) -> None:
    """Generators of clients make one function of each."""
    names = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names) == len(_each(app))


def test_every_operation_tells_its_errors(described: dict[str, Any]) -> None:
    """At least those that any request may meet."""
    for path in described["paths"].values():
        for operation in path.values():
            assert {"400", "405", "413", "500", "503"} <= operation["responses"].keys()


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    """No dangling $ref."""
    text = json.dumps(described)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}:
        node: Any = described
        for name in reference.split("/"):
            node = node[name]


def test_nothing_is_left_of_the_newer_form(described: dict[str, Any]) -> None:
    """OpenAPI 3.0 knows no null type, no const and no list of examples."""

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "properties" not in node or not isinstance(node["properties"], dict):
                assert node.get("type") != "null"
                assert "const" not in node
            for name, value in node.items():
                if name not in ("example", "default"):
                    walk(value)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(described["paths"])
    walk(described["components"])


def test_every_write_tells_how_it_is_tried_out_and_repeated(app: Application, described: dict[str, Any]) -> None:
    """`dry_run` of each; an Idempotency-Key of each POST, and of those that only compute."""
    for each in _each(app):
        operation = described["paths"][each.path][each.method.lower()]
        told = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}
        assert (("query", "dry_run") in told) is each.contract.writes, each.path
        repeatable = each.method == "POST" and each.scope != "public"
        assert (("header", "Idempotency-Key") in told) is repeatable, each.path
        replayed = operation["responses"][str(each.contract.status)].get("headers", {}).keys() & {"Idempotent-Replayed"}
        assert bool(replayed) is (each.method == "POST" and each.contract.writes)


def test_every_version_is_told(app: Application, described: dict[str, Any]) -> None:
    """Whoever writes may send If-Match, whoever reads If-None-Match."""
    for each in _each(app):
        if each.contract.tagged:
            operation = described["paths"][each.path][each.method.lower()]
            names = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
            assert names == ({"If-Match", "If-None-Match"} if each.contract.writes else {"If-None-Match"})
            assert ("412" if each.contract.writes else "304") in operation["responses"]


@pytest.mark.parametrize("path", ["/v1/items/{item_id}", "/v1/users/{user_id}"])
def test_an_id_that_the_address_says_may_be_left_out_of_the_body(described: dict[str, Any], path: str) -> None:
    """As the server takes it; in bulk it is required."""
    body = described["paths"][path]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert "id" in body["properties"]
    assert "id" not in body["required"]
    assert "id" in described["components"]["schemas"]["Item"]["required"]


def test_limits_are_told(described: dict[str, Any]) -> None:
    """An item's limits are in its schema."""
    item = described["components"]["schemas"]["Item"]["properties"]
    assert item["id"]["maxLength"] == 128
    assert item["images"]["maxItems"] == 10
    assert item["price"]["nullable"] is True
    assert item["price"]["minimum"] == 0


def test_a_route_that_says_nothing_of_itself_does_not_start() -> None:
    """Forgetting the scope must not open a route."""

    @get("/v1/forgotten")
    async def forgotten() -> str:
        """Nothing."""
        return ""

    with pytest.raises(TypeError, match="/v1/forgotten"):
        list(operations(Litestar([forgotten], openapi_config=None)))


def test_a_write_that_is_silent_about_the_audit_log_does_not_start() -> None:
    """Nor a reading route that claims to write."""

    @put("/v1/silent", opt=contract(scope="admin", tag="x", summary="x"))
    async def silent() -> None:
        """Nothing."""

    @get("/v1/loud", opt=contract(scope="admin", tag="x", summary="x", audit="x.read"))
    async def loud() -> str:
        """Nothing."""
        return ""

    for handler in (silent, loud):
        with pytest.raises(TypeError, match="audit log"):
            list(operations(Litestar([handler], openapi_config=None)))

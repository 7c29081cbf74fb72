"""Answers lead to the operations that take the ids which they give."""

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from litestar import Litestar

from api.app import ROUTES
from api.openapi import document

_DOCUMENT: Final = document(Litestar(ROUTES, openapi_config=None))
_OPERATIONS: Final = {
    operation["operationId"]: (method, path, operation)
    for path, methods in _DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
_NOT_REACHED: Final = {
    "demo_asset": "the demo's page names its own files",
    "docs_asset": "the documentation's page names its own files",
    "show_photo": "`url` of a photo is the whole address; its token stands nowhere alone",
}


def _links() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for name, (_, _, operation) in _OPERATIONS.items():
        for status, response in operation["responses"].items():
            for link in response.get("links", {}).values():
                yield name, status, link["operationId"], link


def _leads_to(source: str, status: str) -> set[str]:
    return {target for name, of, target, _ in _links() if (name, of) == (source, status)}


def _at(source: str, status: str, pointer: str) -> dict[str, Any] | None:
    """The schema of what stands there in an answer, None where nothing can."""
    schema = _OPERATIONS[source][2]["responses"][status]["content"]["application/json"]["schema"]
    for part in pointer.split("/")[1:]:
        schema = _plain(schema)
        schema = schema.get("items") if part == "0" else schema.get("properties", {}).get(part)
        if schema is None:
            return None
    return _plain(schema)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    schema = schema.get("allOf", [schema])[0]
    if "$ref" in schema:
        schema = _DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def test_a_link_takes_only_what_is_there() -> None:
    """Each expression names a field of the answer or a parameter of the request, each parameter one of the target."""
    checked = 0
    for source, status, target, link in _links():
        taken = {each["name"] for each in _OPERATIONS[target][2]["parameters"]}
        assert link.get("parameters", {}).keys() <= taken
        for expression in [*link.get("parameters", {}).values(), *link.get("requestBody", {}).values()]:
            if place := re.fullmatch(r"\$request\.(path|query)\.(\w+)", expression):
                given = {(each["in"], each["name"]) for each in _OPERATIONS[source][2]["parameters"]}
                assert place.groups() in given
            else:
                kind = _at(source, status, expression.removeprefix("$response.body#"))
                assert kind is not None, (source, expression)
                assert kind["type"] in ("string", "integer"), (source, expression)
            checked += 1
    assert checked > 150


def test_a_body_that_a_link_fills_has_such_a_field() -> None:
    """A list by what was stored, or its next page."""
    for _, _, target, link in _links():
        if "requestBody" in link:
            body = _plain(_OPERATIONS[target][2]["requestBody"]["content"]["application/json"]["schema"])
            assert link["requestBody"].keys() <= body["properties"].keys()


def test_whatever_takes_an_id_is_led_to_by_what_gives_it() -> None:
    """But for the few that say why not."""
    taking = {name for name, (_, path, _) in _OPERATIONS.items() if "{" in path}
    assert taking - {target for _, _, target, _ in _links()} == _NOT_REACHED.keys()


@pytest.mark.parametrize(
    ("source", "status", "targets"),
    [
        ("put_item", "201", {"get_item", "patch_item", "delete_item", "put_photo", "similar", "search"}),
        ("bulk_items", "200", {"get_item", "patch_item", "put_item", "delete_item", "similar"}),
        ("put_photo", "200", {"get_photo", "delete_photo"}),
        ("create_import", "202", {"get_job", "job_errors", "cancel_import", "confirm_import"}),
        ("create_key", "201", {"patch_key", "rotate_key", "revoke_key"}),
        ("rotate_key", "201", {"patch_key", "revoke_key"}),
        ("create_visitor_secret", "201", {"revoke_visitor_secret"}),
        ("create_export", "202", {"get_export", "get_export_file"}),
        ("put_placement", "201", {"get_placement", "delete_placement", "recommend"}),
        ("list_models", "200", {"activate"}),
        ("list_deliveries", "200", {"replay_delivery", "list_deliveries"}),
        ("recommend", "200", {"get_recommendation", "get_item", "similar", "recommend"}),
    ],
)
def test_what_was_made_leads_to_what_may_be_done_with_it(source: str, status: str, targets: set[str]) -> None:
    """And what a list shows to what shows it alone."""
    assert _leads_to(source, status) == targets


def test_what_was_done_to_a_thing_leads_only_to_what_shows_it() -> None:
    """A cancelled import is not to be confirmed."""
    assert _leads_to("cancel_import", "200") == {"get_job", "job_errors"}


def test_things_of_another_kind_are_only_read() -> None:
    """Nobody deletes the items that a list recommends."""
    for source, _, target, _ in _links():
        method, path, operation = _OPERATIONS[target]
        _, from_path, from_operation = _OPERATIONS[source]
        if operation["tags"] != from_operation["tags"] and not path.startswith(f"{from_path}/") and "{" in path:
            assert method == "get", (source, target)


def test_every_list_leads_to_its_next_page() -> None:
    """By its cursor, with the same filter."""
    for name, (_, _, operation) in _OPERATIONS.items():
        if any(each["name"] == "cursor" and each["in"] == "query" for each in operation["parameters"]):
            page = operation["responses"]["200"]["links"]["next_page"]
            assert page["operationId"] == name
            assert page["parameters"]["cursor"] == "$response.body#/next_cursor"

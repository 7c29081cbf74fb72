"""What an answer leads to: the operations that take the ids which it gives, as `links` of the OpenAPI document.

Nothing is written by hand: a path's parameter says what it names, and so do an answer's fields, `job_id` outright,
`id` by what it is the id of. A list stands for its first entry.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

_OWN_CHOICE: Final = "position"
"""A place that who writes chooses: no answer needs to have named it."""
_ROWS: Final = "results"
"""What bulk calls answer, of each row that was sent."""


class _Operation(NamedTuple):
    method: str
    path: str
    told: dict[str, Any]

    @property
    def takes(self) -> tuple[str, ...]:
        """The parameters of its path, outermost first."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    def has(self, place: str, name: str) -> bool:
        return any(each["in"] == place and each["name"] == name for each in self.told["parameters"])

    def is_near(self, other: "_Operation") -> bool:
        """Whether `other` is of the same kind of thing, or of what lies below it."""
        return self.told["tags"] == other.told["tags"] or other.path.startswith(f"{self.path}/")


def add_links(document: dict[str, Any]) -> None:
    """Put into every good answer what it leads to.

    To its own kind of thing it leads with every method; to another kind, as a list of recommendations to the items
    in it, only with those that read, and so does what was done to a thing. A list also leads to its next page, and
    what was stored to the lists that may be made by it.
    """
    listed = [
        _Operation(method, path, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]
    schemas = document["components"]["schemas"]
    for source in listed:
        for status, response in source.told["responses"].items():
            answer = response.get("content", {}).get("application/json", {}).get("schema")
            if not status.startswith("2") or answer is None:
                continue
            given = {name: f"$response.body#{pointer}" for name, pointer in _given(source, answer, schemas)}
            links = {}
            for target in listed:
                name = target.told["operationId"]
                if target is source:
                    name, link = "next_page", _next_page(source, answer, schemas)
                elif target.takes:
                    link = _by_path(source, status, target, given)
                else:
                    link = _by_body(source, target, given, schemas)
                if link is not None:
                    links[name] = {"operationId": target.told["operationId"], **link}
            if links:
                response["links"] = links


def _by_path(source: _Operation, status: str, target: _Operation, given: Mapping[str, str]) -> dict[str, Any] | None:
    """The link to `target`, where this answer names something in its path and all of the rest is known."""
    parameters = {}
    for name in target.takes:
        if name in given:
            parameters[name] = given[name]
        elif name in source.takes:
            parameters[name] = f"$request.path.{name}"
        elif name != _OWN_CHOICE or target.method != "put":
            return None
    named = [name for name in parameters if name in given]
    if not named:
        return None
    near = source.is_near(target)
    if not near and not all(name.endswith("_id") for name in target.takes):
        return None  # a bare word means another thing elsewhere: a product's position in a list is none of its photos
    done = source.method == "post" and named[-1] in source.takes and status != "201"
    if target.method != "get" and (done or not near):
        return None
    where = given[named[-1]].removeprefix("$response.body#")
    return {"parameters": parameters, "description": f"`{named[-1]}` is `{where}` of this answer."}


def _by_body(
    source: _Operation, target: _Operation, given: Mapping[str, str], schemas: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The link from what was stored to a list that may be made by it: an item, a user, a placement."""
    if source.method != "put" or target.method != "post" or target.has("query", "dry_run"):
        return None
    fields = _fields(_body(target), schemas)
    for name in source.takes:
        for field in (name, name.removesuffix("_id")):
            if name in given and field in fields:
                said = f"`{field}` of the body may be `{name}` of what was stored."
                return {"requestBody": {field: given[name]}, "description": said}
    return None


def _next_page(source: _Operation, answer: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any] | None:
    fields = _fields(answer, schemas)
    if "next_cursor" in fields and source.has("query", "cursor"):
        same = {
            each["name"]: f"$request.{each['in']}.{each['name']}"
            for each in source.told["parameters"]
            if each["in"] in ("path", "query")
        }
        return {
            "parameters": {**same, "cursor": "$response.body#/next_cursor"},
            "description": "The next page; where `next_cursor` is null, this was the last.",
        }
    if "cursor" in fields and "cursor" in _fields(_body(source), schemas):
        return {
            "requestBody": {"cursor": "$response.body#/cursor"},
            "description": "The next entries: the same body with this `cursor`; where it is null, there are no more.",
        }
    return None


def _given(source: _Operation, answer: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the answer names, by the parameters that may take it: where it stands. The outermost comes last."""
    fields = _fields(answer, schemas)
    for name, schema in fields.items():
        inner = _plain(schema, schemas)
        pointer, noun = f"/{name}", name
        if inner.get("type") == "array":
            inner = _plain(inner["items"], schemas)
            pointer, noun = f"/{name}/0", _singular(name)
        for field in inner.get("properties", {}):
            if field != "id":
                yield field, f"{pointer}/{field}"
            elif name == _ROWS:
                yield f"{_singular(source.path.split('/')[-2])}_id", f"{pointer}/id"
            else:
                yield f"{noun}_id", f"{pointer}/id"
    for name in fields:
        if name != "id":
            yield name, f"/{name}"
        elif source.takes:
            yield source.takes[-1], "/id"


def _body(operation: _Operation) -> Mapping[str, Any]:
    content = operation.told.get("requestBody", {}).get("content", {})
    schema: Mapping[str, Any] = content.get("application/json", {}).get("schema", {})
    return schema


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = _plain(schema, schemas).get("properties", {})
    return fields


def _plain(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, where it is only referred to, with or without null."""
    if "allOf" in schema:
        schema = schema["allOf"][0]
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _singular(noun: str) -> str:
    return f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")

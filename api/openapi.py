"""The OpenAPI document, made from the routes themselves and the types that their handlers read and write.

Version 3.0.3, which every generator and the bundled Swagger UI read; the schemas, with every limit, are
msgspec's (JSON Schema 2020-12) put into that older form.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.auth import PUBLIC
from api.contract import KEY, Contract
from api.links import add_links
from api.problems import MEDIA_TYPE, Problem, headers_of, status_of
from infra.errors import KindredError
from tenants.catalog.item import Id
from tenants.keys import PUBLISHABLE_SCOPES
from tenants.webhooks import events

VERSION: Final = "1.0.0"

_REF: Final = "#/components/schemas/{name}"
_TITLES: Final = {
    400: "The request cannot be read",
    401: "A valid API key is needed",
    402: "The plan does not include this",
    403: "The key may not do this",
    404: "Not found",
    405: "The method is not allowed here",
    406: "No answer in an accepted form",
    408: "The request took too long to arrive",
    409: "Conflict with the present state",
    412: "A condition of the request does not hold",
    413: "The request is too large",
    415: "The body's type is not taken",
    416: "The range is not within the file",
    422: "Fields cannot be used; every bad one is named",
    429: "Too many requests",
    500: "A defect of ours",
    503: "Temporarily unavailable",
}


_HEADERS: Final[Mapping[str, Any]] = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Names this exchange."},
    "RateLimit-Policy": {"schema": {"type": "string"}, "description": "The limits: calls `q` in `w` seconds."},
    "RateLimit": {"schema": {"type": "string"}, "description": "Of each, calls left at once `r`; all of it in `t` s."},
}
_FIRST: Final = ("Recommendations", "Search", "Events", "Users", "Catalogue", "Photos", "Imports", "Jobs", "Keys")


def _tag_order(tag: str) -> tuple[int, str]:
    """What a newcomer looks for comes first, then the rest by name."""
    return (_FIRST.index(tag) if tag in _FIRST else len(_FIRST), tag)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    path: str
    method: str
    handler: HTTPRouteHandler
    contract: Contract
    scope: str


def operations(app: Litestar) -> Iterator[Operation]:
    """Every operation of the application, in the order of paths. Raises TypeError for one that says nothing."""
    for route in sorted((route for route in app.routes if isinstance(route, HTTPRoute)), key=lambda r: r.path_format):
        for handler in sorted(route.route_handlers, key=lambda handler: sorted(handler.http_methods)):
            for method in sorted(handler.http_methods):
                if method in ("OPTIONS", "HEAD"):
                    continue
                said = handler.opt.get(KEY)
                if "scope" in handler.opt and not handler.resolve_include_in_schema():
                    continue  # a page for people: no part of the API
                if not isinstance(said, Contract) or "scope" not in handler.opt:
                    raise TypeError(f"{method} {route.path_format}: the route has no contract(…) in its opt")
                if (method != "GET" and handler.opt["scope"] != PUBLIC) != (said.writes or said.computes):
                    raise TypeError(
                        f"{method} {route.path_format}: the contract of a write, and of no other, says what it notes "
                        "in the audit log (audit=…) or why it notes nothing (unaudited=…); or it says computes=True"
                    )
                yield Operation(
                    path=route.path_format, method=method, handler=handler, contract=said, scope=handler.opt["scope"]
                )


def error_classes(kind: type[KindredError] = KindredError) -> Iterator[type[KindredError]]:
    """All concrete and abstract kinds of error that are imported, each once, by code."""
    found: dict[str, type[KindredError]] = {}

    def walk(parent: type[KindredError]) -> None:
        for child in parent.__subclasses__():
            found.setdefault(child.code, child)
            walk(child)

    walk(kind)
    yield from (found[code] for code in sorted(found))


def document(app: Litestar) -> dict[str, Any]:
    """The whole document as plain data."""
    listed = list(operations(app))
    kinds: list[Any] = [Problem]
    for operation in listed:
        kinds += [kind for kind in (operation.contract.body, operation.contract.answer) if kind is not None]
        if operation.contract.query is not None:
            kinds.append(operation.contract.query)
    kinds += events.DATA.values()
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    named = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, named, components)
    queries = {operation.contract.query.__name__ for operation in listed if operation.contract.query is not None}
    whole: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {
            "title": "Kindred",
            "version": VERSION,
            "description": "Recommendations from the texts and photos of a catalogue. "
            "Send `Authorization: Bearer <key>`; errors are RFC 9457 problems.",
            "license": {"name": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in sorted({operation.contract.tag for operation in listed}, key=_tag_order)],
        "paths": paths,
        # OpenAPI 3.1 calls it `webhooks`; 3.0 leaves it to an extension, which renderers of documents know.
        "x-webhooks": {type_: {"post": _message(type_)} for type_ in events.DATA},
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "responses": _errors(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "sk_… or pk_…"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
    result = _downgrade(whole)
    assert isinstance(result, dict)
    add_links(result)
    return result


def _operation(operation: Operation, named: Mapping[int, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    said = operation.contract
    fn = operation.handler.fn
    told: dict[str, Any] = {
        "operationId": fn.__name__,
        "summary": said.summary,
        "description": inspect.cleandoc(fn.__doc__ or ""),
        "tags": [said.tag],
        "parameters": [
            *_path_parameters(operation.path),
            *_query_parameters(said, components),
            *_header_parameters(operation),
        ],
        "responses": _responses(operation, named),
    }
    if (cost := operation.handler.opt.get("cost")) is not None:
        told["description"] += f"\n\nIts uses of the rate limits: {cost}."
    if operation.scope == PUBLIC:
        told["security"] = []
    else:
        told["security"] = [{"bearer": []}, {"header": []}]
        told["x-scope"] = operation.scope
        told["description"] += f"\n\nNeeds the scope `{operation.scope}`."
        if operation.scope in PUBLISHABLE_SCOPES:
            told["description"] += " `X-Visitor-Token` says, signed, whom a publishable key speaks for."
    content: dict[str, Any] = {}
    if said.body is not None:
        content["application/json"] = {"schema": _body(said, named[id(said.body)], components)}
        if said.body_example is not None:
            content["application/json"]["example"] = said.body_example
    for media_type, example in said.body_types.items():
        binary = media_type.startswith("image/") or media_type == "application/octet-stream"
        content[media_type] = {"schema": {"type": "string", **({"format": "binary"} if binary else {})}}
        if example is not None:
            content[media_type]["example"] = example
    if content:
        told["requestBody"] = {"required": said.body_required, "content": content}
    return told


def _body(said: Contract, schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    if not said.body_optional:
        return schema
    whole = components[said.body.__name__]
    return {**whole, "required": [name for name in whole["required"] if name not in said.body_optional]}


def _message(type_: events.EventType) -> dict[str, Any]:
    """What we send to a tenant's webhooks (docs/webhooks.md)."""
    example = {"type": type_, "timestamp": "2026-01-15T12:00:00Z", "data": events.EXAMPLES[type_]}
    content = {"schema": events.message_schema(type_), "example": msgspec.to_builtins(example)}
    told = {
        "webhook-id": "The same for each attempt: who has seen it need not act again.",
        "webhook-timestamp": "Seconds since 1970 of this attempt.",
        "webhook-signature": "`v1,` and the signature (Standard Webhooks); two, with a space between, in a rotation.",
    }
    return {
        "operationId": "told_" + type_.replace(".", "_"),
        "summary": type_,
        "description": inspect.cleandoc(events.DATA[type_].__doc__ or ""),
        "tags": ["Webhooks"],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
            for name, text in told.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "2XX": {"description": "Taken, within 15 seconds. Anything else is a failure, and sent again."},
            "410": {"description": "There is nobody here any more: the webhook is disabled."},
        },
    }


_CHOSEN: Final = {
    "item_id": "SKU-1",
    "placement_id": "product-page",
    "segment_id": "regulars",
    "user_id": "customer-7",
}
"""Ids that clients choose, each with an example; the others are ours."""


def _path_parameters(path: str) -> list[dict[str, Any]]:
    made = []
    for name in re.findall(r"{(\w+)}", path):
        if name in ("position",):
            schema: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 9}
        elif name in _CHOSEN:
            schema = {**msgspec.json.schema(Id), "example": _CHOSEN[name]}
        else:
            schema = {"type": "string", "minLength": 1, "maxLength": 200}
        made.append({"name": name, "in": "path", "required": True, "schema": schema})
    return made


_IF_MATCH: Final = "The `ETag` of the version that the change is of; another one is stored: 412."
_IF_NEW: Final = "`*`: only where there is nothing yet; else 412."
_IF_OTHER: Final = "The `ETag` of the version that you have; it is still the one: 304."
_REPEATABLE: Final = (
    "A key of your own for this request, such as a random UUID: sent again within 24 hours, the request is not carried "
    "out again, and answered as the first time."
)
_BILLED_ONCE: Final = (
    "A key of your own for this request: sent again as it was within 24 hours, it is computed anew and billed once."
)


def _header_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    said = operation.contract
    told: dict[str, str] = {}
    if said.tagged and said.writes:
        told |= {"If-Match": _IF_MATCH, "If-None-Match": _IF_NEW}
    elif said.tagged:
        told["If-None-Match"] = _IF_OTHER
    if operation.method == "POST" and (said.writes or said.computes):
        told["Idempotency-Key"] = _REPEATABLE if said.writes else _BILLED_ONCE
    for name, text in told.items():
        schema: dict[str, Any] = {"type": "string"}
        if name == "Idempotency-Key":
            schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        yield {"name": name, "in": "header", "required": False, "schema": schema, "description": text}


def _answer_headers(operation: Operation) -> dict[str, Any]:
    said = operation.contract
    told: dict[str, str] = {}
    if said.tagged and said.status != 204:
        told["ETag"] = "The version of what is shown."
    if said.writes:
        told["Dry-Run"] = "`true` where nothing was changed, as `dry_run` asked for."
        if operation.method == "POST":
            told["Idempotent-Replayed"] = "`true` where this is the answer that the first request was given."
            told["Idempotent-Results"] = "`omitted` where `results` of the first answer were too long to be kept."
    return {**_HEADERS, **{name: {"schema": {"type": "string"}, "description": text} for name, text in told.items()}}


def _query_parameters(said: Contract, components: Mapping[str, Any]) -> list[dict[str, Any]]:
    if said.query is None:
        return []
    schema = components[said.query.__name__]
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": {key: value for key, value in field.items() if key != "description"},
            **({"description": field["description"]} if "description" in field else {}),
        }
        for name, field in schema["properties"].items()
    ]


def _responses(operation: Operation, named: Mapping[int, Any]) -> dict[str, Any]:
    said = operation.contract
    good: dict[str, Any] = {"description": "Done."}
    if said.answer is not None:
        good["content"] = {"application/json": {"schema": named[id(said.answer)]}}
        if said.answer_example is not None:
            good["content"]["application/json"]["example"] = said.answer_example
    for media_type in said.answer_types:
        good.setdefault("content", {})[media_type] = {"schema": {"type": "string", "format": "binary"}}
    good["headers"] = _answer_headers(operation)
    responses = {str(said.status): good}
    for status, text in said.also.items():
        responses[str(status)] = {**good, "description": text}
    expected = {400, 405, 406, 413, 429, 500, 503}
    if operation.scope != PUBLIC:
        expected |= {401, 402, 403}
    if said.query is not None or said.body is not None or said.body_types or "{" in operation.path:
        expected |= {404, 408, 415, 422, 409}
    if said.tagged and said.writes:
        expected.add(412)
    elif said.tagged:
        responses["304"] = {"description": "You have this version."}
    if said.computes:
        expected.add(422)
    if operation.method != "GET":
        expected.add(409)
    for status in sorted(expected | set(said.refusals)):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})
    return responses


def _errors() -> dict[str, Any]:
    """One response per status, which names all codes that it may carry."""
    codes: dict[int, list[str]] = {}
    for kind in error_classes():
        codes.setdefault(status_of(kind), []).append(kind.code)
    made = {}
    for status, title in _TITLES.items():
        listed = "".join(f"\n- `{code}`" for code in codes.get(status, ()))
        made[str(status)] = {
            "description": f"{title}. `code` is one of:{listed}" if listed else f"{title}.",
            "headers": {
                **_HEADERS,
                **{name.title(): {"schema": {"type": "string"}} for name in headers_of(status)},
            },
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    return made


def _downgrade(node: Any) -> Any:
    """JSON Schema 2020-12 as OpenAPI 3.0 writes it: `nullable` for null, one `example`, `enum` for `const`."""
    if isinstance(node, list):
        return [_downgrade(each) for each in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for name, value in node.items():
        if name in ("example", "examples", "default", "properties") or isinstance(value, list | dict):
            continue
        made[name] = value
    for name, value in node.items():
        if name == "properties":
            made[name] = {field: _downgrade(schema) for field, schema in value.items()}
        elif name in ("example", "default", "enum"):
            made[name] = value
        elif name == "examples" and isinstance(value, list):
            made["example"] = value[0]
        elif name == "anyOf":
            others = [_downgrade(each) for each in value if each != {"type": "null"}]
            if len(others) < len(value):
                made["nullable"] = True
            if len(others) > 1:
                made["anyOf"] = others
            elif "$ref" in others[0]:
                made["allOf"] = others
            else:
                made.update({key: each for key, each in others[0].items() if key not in made})
        elif isinstance(value, list | dict):
            made[name] = _downgrade(value)
    if made.get("type") == "null":
        made = {"nullable": True, "enum": [None]}
    if "const" in made:
        made["enum"] = [made.pop("const")]
    for bound, flag in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(made.get(bound), int | float) and not isinstance(made.get(bound), bool):
            made[flag], made[bound] = made[bound], True
    return made

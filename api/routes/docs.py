"""/openapi.json, the interactive page /docs, and /docs/errors where every problem's `type` leads; all offline."""

from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from api.contract import contract
from api.openapi import document, error_classes
from api.problems import RouteNotFound, status_of
from api.wire import AnyRequest

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
# Swagger UI puts style attributes on elements; no script but ours runs.
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS: Final = {"content-security-policy": _CSP, "referrer-policy": "no-referrer"}

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kindred API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png"></head>
<body><div id="page"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js"></script></body></html>
"""
_START: Final = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, persistAuthorization: true,
  tryItOutEnabled: true, validatorUrl: null, presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""


@cache
def _bundle() -> Path:
    """The folder of Swagger UI's files in its package; never imported, for its import pulls in a web framework."""
    spec = find_spec("swagger_ui_bundle")
    if spec is None or not spec.submodule_search_locations:
        raise RouteNotFound("The package swagger-ui-bundle is not installed; /openapi.json is still there.")
    (found,) = (Path(spec.submodule_search_locations[0]) / "vendor").glob("swagger-ui-*")
    return found


@get(
    "/openapi.json",
    opt=contract(scope="public", tag="Documentation", summary="The OpenAPI document", answer=dict[str, Any]),
)
async def openapi(request: AnyRequest) -> Response[bytes]:
    """The contract of this server: every route, with its limits and an example."""
    state = request.app.state
    if "openapi" not in state:
        state["openapi"] = msgspec.json.encode(document(request.app))
    return Response(state["openapi"], media_type="application/json", headers={"cache-control": "no-cache"})


@get(
    "/docs",
    opt=contract(
        scope="public", tag="Documentation", summary="The interactive documentation", answer_types=["text/html"]
    ),
)
async def docs_page() -> Response[str]:
    """Swagger UI over /openapi.json, from local files."""
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)


@get(
    "/docs/errors",
    opt=contract(scope="public", tag="Documentation", summary="Every error code", answer_types=["text/html"]),
)
async def docs_errors() -> Response[str]:
    """What each `code` of a problem means; a problem's `type` leads here."""
    rows = "".join(
        f'<h2 id="{kind.code}">{kind.code} <small>{status_of(kind)}</small></h2>'
        f"<p><b>{escape(kind.title)}.</b> {escape(' '.join((kind.__doc__ or '').split()))}</p>"
        for kind in error_classes()
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Kindred errors</title></head>'
        f"<body><h1>Errors</h1>{rows}</body></html>"
    )
    return Response(page, media_type="text/html", headers=_HEADERS)


@get(
    "/docs/assets/{name:str}",
    opt=contract(
        scope="public",
        tag="Documentation",
        summary="A file of the interactive page",
        answer_types=["application/octet-stream"],
    ),
)
async def docs_asset(name: FromPath[str]) -> Response[bytes]:
    """Scripts and styles of /docs."""
    if name == "start.js":
        return Response(_START.encode(), media_type="text/javascript", headers=_HEADERS)
    if name not in _ASSETS:
        raise RouteNotFound("There is no such file.")
    headers = {**_HEADERS, "cache-control": "public, max-age=86400"}
    return Response((_bundle() / name).read_bytes(), media_type=_ASSETS[name], headers=headers)


ROUTES: Final = (openapi, docs_page, docs_errors, docs_asset)

"""The demo shop's storefront: a static page that talks to the public API with a publishable key."""

import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from api.contract import contract
from api.deps import services_of
from infra.demo.shop import DemoShop, read_demo

_CONSOLE: Final = Path(__file__).parent.parent
_ASSETS: Final = {
    "demo.css": "text/css; charset=utf-8",
    "demo.js": "text/javascript; charset=utf-8",
    "cards.js": "text/javascript; charset=utf-8",
    "client.js": "text/javascript; charset=utf-8",
    "row.js": "text/javascript; charset=utf-8",
    "shopper.js": "text/javascript; charset=utf-8",
}
# Products may show photos of other hosts; all else comes from here, and nothing inline runs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: http: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@cache
def _file(folder: str, name: str) -> tuple[bytes, str]:
    """A file of the console and its entity tag; read once, since an installed file does not change."""
    content = (_CONSOLE / folder / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:20]}"'


def render_demo(shop: DemoShop | None) -> str:
    """The page's HTML; without a shop, a page that says how to load one."""
    name = "demo.html" if shop is not None else "demo_absent.html"
    page = _file("templates", name)[0].decode()
    if shop is not None:
        visitors = msgspec.json.encode(shop.visitors).decode()
        for name, value in (("shop_name", shop.name), ("key", shop.publishable_key), ("visitors", visitors)):
            page = page.replace("{{" + name + "}}", escape(value))
    return page


@get(
    "/demo",
    media_type=MediaType.HTML,
    sync_to_thread=False,
    opt=contract(scope="public", tag="Documentation", summary="The demo storefront", answer_types=("text/html",)),
)
def demo_page(request: Request[Any, Any, Any]) -> Response[str]:
    """The storefront of the shop that `kindred demo` loaded."""
    shop = read_demo(services_of(request).settings.data_dir)
    return Response(
        render_demo(shop),
        media_type=MediaType.HTML,
        headers={**_HEADERS, "Content-Security-Policy": _POLICY, "Cache-Control": "no-store"},
    )


@get(
    "/demo/assets/{name:str}",
    sync_to_thread=False,
    opt=contract(
        scope="public",
        tag="Documentation",
        summary="A file of the storefront",
        answer_types=("text/css", "text/javascript"),
    ),
)
def demo_asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A style sheet or script of the page. Always revalidated, so that an upgrade shows at once."""
    media_type = _ASSETS.get(name)
    if media_type is None:
        raise NotFoundException(f"There is no file {name[:80]!r}; the page's files are {', '.join(sorted(_ASSETS))}.")
    content, tag = _file("assets", name)
    headers = {**_HEADERS, "Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, media_type=media_type, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


ROUTES: Final = (demo_page, demo_asset)

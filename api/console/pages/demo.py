"""The demo shop's storefront: a static page that talks to the public API with a publishable key."""

from html import escape
from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.params import FromPath

from api.console.files import CSS, HEADERS, SCRIPT, answer_asset, read_file
from api.contract import contract
from api.deps import services_of
from infra.demo.shop import DemoShop, read_demo

_ASSETS: Final = {
    "demo.css": CSS,
    "demo.js": SCRIPT,
    "cards.js": SCRIPT,
    "client.js": SCRIPT,
    "row.js": SCRIPT,
    "shopper.js": SCRIPT,
}
# Products may show photos of other hosts; all else comes from here, and nothing inline runs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: http: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render_demo(shop: DemoShop | None) -> str:
    """The page's HTML; without a shop, a page that says how to load one."""
    name = "demo.html" if shop is not None else "demo_absent.html"
    page = read_file("templates", name)[0].decode()
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
        headers={**HEADERS, "Content-Security-Policy": _POLICY, "Cache-Control": "no-store"},
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
    """A style sheet or script of the page."""
    return answer_asset(request, name, _ASSETS)


ROUTES: Final = (demo_page, demo_asset)

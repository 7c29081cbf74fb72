"""What the console's pages load, beside the style sheet of the demo page that they share."""

from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath

from api.auth import PUBLIC
from api.console.files import CSS, SCRIPT, answer_asset

_ASSETS: Final = {"console.css": CSS, "proof.js": SCRIPT, "copy.js": SCRIPT}


@get("/console/assets/{name:str}", sync_to_thread=False, include_in_schema=False, opt={"scope": PUBLIC})
def console_asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A style sheet or script of the console."""
    return answer_asset(request, name, _ASSETS)


ROUTES: Final = (console_asset,)

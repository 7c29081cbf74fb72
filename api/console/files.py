"""The console's files: templates and what its pages load. Read once, since an installed file does not change."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import NotFoundException

CONSOLE: Final = Path(__file__).parent
HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

CSS: Final = "text/css; charset=utf-8"
SCRIPT: Final = "text/javascript; charset=utf-8"


@cache
def read_file(folder: str, name: str) -> tuple[bytes, str]:
    """A file and its entity tag."""
    content = (CONSOLE / folder / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:20]}"'


def answer_asset(request: Request[Any, Any, Any], name: str, known: Mapping[str, str]) -> Response[bytes]:
    """One of the `known` files, by name and media type. Always revalidated, so that an upgrade shows at once."""
    media_type = known.get(name)
    if media_type is None:
        raise NotFoundException(f"There is no file {name[:80]!r}; the page's files are {', '.join(sorted(known))}.")
    content, tag = read_file("assets", name)
    headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, media_type=media_type, headers=headers)
    return Response(content, media_type=media_type, headers=headers)

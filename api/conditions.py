"""If-Match and If-None-Match (RFC 9110, 13.1) of a request, for every resource with an `ETag`."""

import re
from typing import Final

from litestar import Response

from api.problems import BadRequest
from api.wire import AnyRequest
from tenants.versions import ANY, Condition, matches

_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_LIST: Final = re.compile(rf"\s*{_TAG.pattern}(?:\s*,\s*{_TAG.pattern})*\s*")


def condition_of(request: AnyRequest) -> Condition:
    """What must be so for a write. Raises BadRequest for a tag without its quotes."""
    return Condition(
        match=_tags(request, "if-match", weak=False), none_match=_tags(request, "if-none-match", weak=True)
    )


def not_modified(request: AnyRequest, etag: str) -> Response[bytes] | None:
    """304, where the client has this version already; else None. Raises BadRequest."""
    known = _tags(request, "if-none-match", weak=True)
    if known is None or not matches(known, etag):
        return None
    return Response(b"", status_code=304, headers={"etag": etag})


def _tags(request: AnyRequest, name: str, *, weak: bool) -> frozenset[str] | None:
    """The tags of a header. If-Match compares strongly, so a weak tag matches nothing; If-None-Match weakly."""
    given = request.headers.getall(name, [])
    if not given:
        return None
    whole = ",".join(given)
    if whole.strip() == ANY:
        return frozenset({ANY})
    if not _LIST.fullmatch(whole):
        raise BadRequest(f"{name.title()} is `*`, or the `ETag` as it was given, with its quotes; several with commas.")
    return frozenset(tag for mark, tag in _TAG.findall(whole) if weak or not mark)

"""Requests in, answers out: bodies, query strings and path parts to structs, with every bad field named."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection

from api.problems import BadRequest, UnsupportedMediaType
from infra.decode import InvalidFields, convert, decode_json, faults
from infra.errors import FieldError, TooLarge
from tenants.catalog.item import Id

T = TypeVar("T")
AnyRequest: TypeAlias = Request[Any, Any, Any]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

_encode = msgspec.json.Encoder().encode


def media_type(request: AnyRequest) -> str:
    """The body's type without its parameters, in lower case; empty when none is named."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def expect_media_type(request: AnyRequest, *allowed: str) -> str:
    """The body's type, which is one of `allowed`; the first of them when none is named. Raises UnsupportedMediaType.

    So does a Content-Encoding: bodies are not decoded, as a small one could hold a very large one.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding; imports take gzip files.")
    given = media_type(request)
    if not given:
        return allowed[0]
    if given not in allowed:
        raise UnsupportedMediaType(f"The body is {given!r}; send {' or '.join(allowed)}.")
    return given


async def read_json(request: AnyRequest, kind: type[T]) -> T:
    """The JSON body as a `kind`. Raises UnsupportedMediaType, MalformedJson, InvalidFields."""
    expect_media_type(request, JSON)
    return decode_json(await request.body(), kind)


async def read_small_json(request: AnyRequest, kind: type[T], *, max_bytes: int) -> T:
    """The same, where the route takes files of any size beside JSON. Raises TooLarge, too."""
    expect_media_type(request, JSON)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise TooLarge(f"As JSON the body may have {max_bytes:,} bytes. Nothing of it was stored.")
    return decode_json(bytes(body), kind)


def read_query(request: ASGIConnection[Any, Any, Any, Any], kind: type[T]) -> T:
    """The query string as a `kind`, numbers and booleans converted. Raises InvalidFields.

    A parameter given twice is refused: nobody can know which was meant.
    """
    plain: dict[str, str] = {}
    faults = []
    for name, value in request.query_params.multi_items():
        if name in plain:
            faults.append(FieldError(pointer=f"/{name}", code="repeated_parameter", message="Given more than once."))
        plain[name] = value
    if faults:
        raise InvalidFields("Give every query parameter once.", errors=faults)
    return convert_text(plain, kind)


def convert_text(plain: Mapping[str, str], kind: type[T]) -> T:
    """Text values as a `kind`: "10" is a number and "true" a boolean where the field is one. Raises InvalidFields."""
    try:
        made = msgspec.convert(dict(plain), kind, strict=False)
    except msgspec.ValidationError:
        pass
    else:
        _refuse_numbers(plain, made)
        return made
    # Converted one by one where that works, so that only the bad ones are named.
    typed: dict[str, object] = {}
    hints = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    for name, value in plain.items():
        try:
            typed[name] = msgspec.convert(value, hints[name], strict=False) if name in hints else value
        except msgspec.ValidationError:
            typed[name] = _nearest(value, hints[name])
    return convert(typed, kind)


def _refuse_numbers(plain: Mapping[str, str], made: object) -> None:
    """A number is no moment, though msgspec takes one for seconds since 1970: a day or a year would be 1970 too."""
    faults = [
        FieldError(pointer=f"/{field.encode_name}", code="invalid_value", message="Write a moment as RFC 3339 does.")
        for field in msgspec.structs.fields(made)  # type: ignore[arg-type]
        if isinstance(getattr(made, field.name), datetime) and _is_number(plain.get(field.encode_name))
    ]
    if faults:
        raise InvalidFields("A moment is written as 2026-01-15T12:00:00Z.", errors=faults)


def _is_number(text: str | None) -> bool:
    if text is None:
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _nearest(value: str, kind: Any) -> object:
    """What a bad value was meant to be, so that "0" is out of range rather than no number."""
    for meant in (int, float):
        try:
            number = meant(value)
        except ValueError:
            continue
        if all(fault.code != "wrong_type" for fault in faults(number, kind)):
            return number
    return value


def decode_id(segment: str) -> str:
    """An id out of a path segment, which is routed escaped. Raises BadRequest, InvalidFields."""
    try:
        external_id = unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("The id in the address is not UTF-8; escape it byte by byte (%C3%A4 for ä).") from error
    try:
        return msgspec.convert(external_id, Id)
    except msgspec.ValidationError as error:
        fault = FieldError(pointer="/id", code="invalid_value", message=str(error))
        raise InvalidFields(
            "The id in the address has 1 to 128 characters and no control characters.", errors=[fault]
        ) from error


def answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """The struct as a JSON answer."""
    return Response(_encode(body), status_code=status, media_type=JSON, headers=headers)


def encoded(body: bytes) -> Response[bytes]:
    """JSON that is encoded already."""
    return Response(body, status_code=200, media_type=JSON)


def no_content() -> Response[None]:
    """204."""
    return Response(None, status_code=204)

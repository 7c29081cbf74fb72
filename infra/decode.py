"""JSON in, structs out, and every bad field named.

msgspec reports one fault and stops. The happy path pays for nothing else; on
failure, and only then, the plain data is walked beside the struct's fields to
collect every unknown, missing, mistyped and out-of-range one.
"""

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from infra.errors import FieldError, Invalid

T = TypeVar("T")

_MAX_FAULTS = 100


class MalformedJson(Invalid):
    """The body is not JSON at all (a 400, not a 422)."""

    code = "malformed_json"
    title = "The body is not valid JSON"


class InvalidFields(Invalid):
    """The body is JSON, but fields of it cannot be used."""

    code = "invalid_fields"
    title = "Some fields cannot be used"


def decode_json(data: bytes, kind: type[T]) -> T:
    """Decode `data` to `kind`. Raises MalformedJson, or InvalidFields naming every bad field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return convert(plain_json(data), kind)


def plain_json(data: bytes | msgspec.Raw) -> object:
    """`data` as plain Python values. Raises MalformedJson, which says where it stops being JSON."""
    try:
        plain: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(f"{error}. Send one JSON document in UTF-8.") from error
    except RecursionError as error:
        raise MalformedJson("It is nested too deeply to be read. Nothing here needs more than a few levels.") from error
    return plain


def convert(data: object, kind: type[T]) -> T:
    """Turn plain data into `kind`. Raises InvalidFields naming every bad field."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        found = faults(data, kind) or [_fault("", error)]
        raise InvalidFields(summary(found), errors=found) from error


def faults(data: object, kind: Any) -> list[FieldError]:
    """Every bad field of `data` as a `kind`, at most 100; empty when it converts."""
    found = []
    for fault in _walk(data, kind, ""):
        found.append(fault)
        if len(found) == _MAX_FAULTS:
            break
    return found


def summary(found: Sequence[FieldError]) -> str:
    """One sentence that names the bad fields."""
    named = ", ".join(fault.pointer or "the body" for fault in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"Mend {named}{more}; `errors` says what is wrong with each."


def pointer_part(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _fault(pointer: str, error: Exception) -> FieldError:
    message = str(error).partition(" - at `")[0]
    if message.startswith("Expected `") and "`, got `" in message:
        code = "wrong_type"
    elif " >= " in message or " <= " in message or "length" in message:
        code = "out_of_range"
    else:
        code = "invalid_value"
    return FieldError(pointer=pointer, code=code, message=message)


def _walk(data: object, kind: Any, pointer: str) -> Iterator[FieldError]:
    bare = _bare(kind, data)
    origin = get_origin(bare)
    inner: list[FieldError] = []
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and isinstance(data, dict):
        yield from _walk_struct(data, bare, pointer)
        return
    if origin is list and isinstance(data, list):
        (element,) = get_args(bare)
        for index, value in enumerate(data):
            inner += _walk(value, element, f"{pointer}/{index}")
    elif origin is dict and isinstance(data, dict):
        key_kind, value_kind = get_args(bare)
        for key, value in data.items():
            inner += _leaf(key, key_kind, f"{pointer}/{pointer_part(key)}")
            inner += _walk(value, value_kind, f"{pointer}/{pointer_part(key)}")
    yield from inner or _leaf(data, kind, pointer)


def _walk_struct(data: dict[Any, Any], kind: type[msgspec.Struct], pointer: str) -> Iterator[FieldError]:
    hints = get_type_hints(kind, include_extras=True)
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if kind.__struct_config__.forbid_unknown_fields:
        for name in data.keys() - known.keys():
            yield FieldError(
                pointer=f"{pointer}/{pointer_part(name)}", code="unknown_field", message=f"There is no field `{name}`."
            )
    for name, field in known.items():
        if name in data:
            yield from _walk(data[name], hints[field.name], f"{pointer}/{pointer_part(name)}")
        elif field.required:
            yield FieldError(
                pointer=f"{pointer}/{pointer_part(name)}",
                code="missing_field",
                message=f"The field `{name}` is required.",
            )


def _bare(kind: Any, data: object) -> Any:
    """`kind` without its annotation; of a union, the member whose shape `data` has."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        shapes = [_bare(member, data) for member in get_args(kind)]
        for shape in shapes:
            if isinstance(data, list) and get_origin(shape) is list:
                return shape
            structured = isinstance(shape, type) and issubclass(shape, msgspec.Struct)
            if isinstance(data, dict) and (structured or get_origin(shape) is dict):
                return shape
    return kind


def _unread(kind: Any) -> Any:
    """`kind` with anything in the place of what is kept as it came, which plain data cannot be converted to."""
    if kind is msgspec.Raw:
        return Any
    if get_origin(kind) is Annotated:
        bare, *notes = get_args(kind)
        return Annotated[(_unread(bare), *notes)]
    if get_origin(kind) is list:
        return list[_unread(get_args(kind)[0])]  # type: ignore[misc]
    return kind


def _leaf(data: object, kind: Any, pointer: str) -> list[FieldError]:
    try:
        msgspec.convert(data, _unread(kind))
    except msgspec.ValidationError as error:
        return [_fault(pointer, error)]
    return []

"""Versions of what is stored, so that two editors do not overwrite each other (RFC 9110, 8.8.3 and 13.1).

A version is named by a strong entity tag over its content. Whoever writes checks the conditions of the request under
the lock of the row, before anything is changed.
"""

from hashlib import blake2b
from typing import Final

from msgspec import Struct

from infra.errors import PreconditionFailed


class VersionChanged(PreconditionFailed):
    """If-Match names another version than the stored one: somebody has changed it since it was read."""

    code = "version_changed"
    title = "Another version is stored"


class AlreadyThere(PreconditionFailed):
    """If-None-Match asks for something that is not there yet, or is of another version, and it is there."""

    code = "already_there"
    title = "It is there already"


ANY: Final = "*"
"""Stands for every version that is there."""


class Condition(Struct, frozen=True, kw_only=True):
    """What must be so for a write to happen: tags with their quotes, or `ANY`; None where nothing is asked.

    `match`: the stored version is one of these. `none_match`: it is none of these (`ANY`: there is none).
    """

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None


ALWAYS: Final = Condition()


def etag_of(document: bytes) -> str:
    """The strong entity tag of a document."""
    return f'"{blake2b(document, digest_size=12).hexdigest()}"'


def matches(tags: frozenset[str], etag: str | None) -> bool:
    """Whether the stored version, None where there is none, is one of these."""
    return etag is not None and (ANY in tags or etag in tags)


def expect(condition: Condition, etag: str | None) -> None:
    """Check the stored version, None where there is none. Raises VersionChanged, AlreadyThere."""
    if condition.match is not None and not matches(condition.match, etag):
        raise VersionChanged(
            "If-Match is sent, but there is nothing of that name."
            if etag is None
            else f"If-Match names another version than the stored one, {etag}. Read it again and repeat the change."
        )
    if condition.none_match is not None and matches(condition.none_match, etag):
        raise AlreadyThere(
            "If-None-Match is sent, and it is there already. Nothing was changed; send If-Match to replace it."
        )

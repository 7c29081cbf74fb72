"""Words of any language, for search by words.

Tokens are made here rather than by PostgreSQL's dictionaries, so that every
language works on any server (DECISIONS 6): NFKC, case folded, accents off,
bigrams for scripts that write no spaces.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from struct import Struct
from typing import Final

MAX_TOKENS: Final = 400
"""Distinct tokens kept of one item; the title's come first."""

MAX_TOKEN_CHARS: Final = 64

# Letters to lower case, digits as they are, all else to blanks: twice as fast as a search for words.
_ASCII_FOLD: Final = bytes(ord(chr(code).lower()) if chr(code).isalnum() and code < 128 else 32 for code in range(256))
_WORD = re.compile(r"[^\W_]+")
# Han, kana, Thai, Lao, Myanmar and Khmer write no spaces between words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
# Marks that are accents of Latin, Greek and Cyrillic letters; other scripts' marks are letters.
_ACCENT = re.compile("[\u0300-\u036f]")


def tokens(text: str) -> list[str]:
    """The tokens of `text`, in order, repeats included. Example: `Café-Stühle` -> `cafe`, `stuhle`."""
    folded = text if text.isascii() else text.lower()
    if folded.isascii():
        return [token.decode() for token in _ascii_tokens(folded)]
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    folded = unicodedata.normalize("NFC", _ACCENT.sub("", decomposed))
    found: list[str] = []
    for match in _WORD.finditer(folded):
        word = match.group()
        if _UNSPACED.search(word):
            found += _split_unspaced(word)
        else:
            found.append(word[:MAX_TOKEN_CHARS])
    return found


def _ascii_tokens(text: str) -> list[bytes]:
    words = text.encode("ascii").translate(_ASCII_FOLD).split()
    if max(map(len, words), default=0) > MAX_TOKEN_CHARS:
        return [word[:MAX_TOKEN_CHARS] for word in words]
    return words


def _encoded_tokens(text: str) -> list[bytes]:
    return _ascii_tokens(text) if text.isascii() else [token.encode() for token in tokens(text)]


def _split_unspaced(word: str) -> list[str]:
    found: list[str] = []
    end = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > end:
            found.append(word[end : run.start()][:MAX_TOKEN_CHARS])
        chars = run.group()
        found += [chars[at : at + 2] for at in range(len(chars) - 1)] or [chars]
        end = run.end()
    if end < len(word):
        found.append(word[end:][:MAX_TOKEN_CHARS])
    return found


_COUNT = Struct(">i")

TITLE_MARK: Final = "^"
"""A title's token is stored a second time with this before it, and so weighs more when it is found."""

_MARK: Final = TITLE_MARK.encode()


def lexemes(title: str | None, rest: str) -> list[bytes]:
    """The distinct lexemes of an item's words in UTF-8, in no order: the title's tokens, with and without their mark,
    and as many others as may be kept."""
    heavy = _encoded_tokens(title or "")
    others = _encoded_tokens(rest)
    found: Collection[bytes] = {*heavy, *others}
    if len(found) > MAX_TOKENS:
        found = list(dict.fromkeys([*heavy, *others]))[:MAX_TOKENS]
    return [*found, *[_MARK + token for token in list(dict.fromkeys(heavy))[:MAX_TOKENS]]]


def binary_tsvector(given: Sequence[bytes]) -> bytes:
    """`lexemes` as PostgreSQL's binary tsvector, without positions; the server puts them in its order.

    Its own way from text, `array_to_tsvector(string_to_array(…))`, costs as much as writing the row three times.
    """
    if not given:
        return _COUNT.pack(0)
    return b"%b%b\0\0\0" % (_COUNT.pack(len(given)), b"\0\0\0".join(given))


def query_tokens(text: str, limit: int = 32) -> list[str]:
    """The distinct tokens of a search query, in order."""
    return list(dict.fromkeys(tokens(text)))[:limit]

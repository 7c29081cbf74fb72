"""Words of any language, for search by words.

Tokens are made here rather than by PostgreSQL's dictionaries, so that every
language works on any server (DECISIONS 6): NFKC, case folded, accents off,
bigrams for scripts that write no spaces.
"""

import re
import unicodedata
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
        words = folded.encode("ascii").translate(_ASCII_FOLD).decode("ascii").split()
        if max(map(len, words), default=0) > MAX_TOKEN_CHARS:
            return [word[:MAX_TOKEN_CHARS] for word in words]
        return words
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


def lexemes(title: str | None, rest: str) -> str:
    """The lexemes of an item's words, separated by blanks: `array_to_tsvector` is three times faster than parsing."""
    heavy = dict.fromkeys(tokens(title or ""))
    found = dict.fromkeys([*heavy, *tokens(rest)])
    marked = [TITLE_MARK + token for token in heavy]
    if len(found) > MAX_TOKENS:
        return " ".join([*list(found)[:MAX_TOKENS], *marked[:MAX_TOKENS]])
    return " ".join([*found, *marked])


def binary_tsvector(given: str) -> bytes:
    """`lexemes` as PostgreSQL's binary tsvector, without positions; the server puts them in its order.

    Its own way from text, `array_to_tsvector(string_to_array(…))`, costs as much as writing the row three times.
    """
    if not given:
        return _COUNT.pack(0)
    return b"%b%b\0\0\0" % (_COUNT.pack(given.count(" ") + 1), given.replace(" ", "\0\0\0").encode())


def query_tokens(text: str, limit: int = 32) -> list[str]:
    """The distinct tokens of a search query, in order."""
    return list(dict.fromkeys(tokens(text)))[:limit]

"""Words of any language, for search by words.

Tokens are made here rather than by PostgreSQL's dictionaries, so that every
language works on any server (DECISIONS 6): NFKC, case folded, accents off,
bigrams for scripts that write no spaces.
"""

import re
import unicodedata
from typing import Final

MAX_TOKENS: Final = 400
"""Distinct tokens kept of one item; the title's come first."""

MAX_TOKEN_CHARS: Final = 64

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_WORD = re.compile(r"[^\W_]+")
# Han, kana, Thai, Lao, Myanmar and Khmer write no spaces between words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
# Marks that are accents of Latin, Greek and Cyrillic letters; other scripts' marks are letters.
_ACCENT = re.compile("[\u0300-\u036f]")


def tokens(text: str) -> list[str]:
    """The tokens of `text`, in order, repeats included. Example: `Café-Stühle` -> `cafe`, `stuhle`."""
    folded = text.lower()
    if folded.isascii():
        return [word[:MAX_TOKEN_CHARS] for word in _ASCII_WORD.findall(folded)]
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


TITLE_MARK: Final = "^"
"""A title's token is stored a second time with this before it, and so weighs more when it is found."""


def lexemes(title: str | None, rest: str) -> str:
    """The lexemes of an item's words, separated by blanks: `array_to_tsvector` is three times faster than parsing."""
    heavy = dict.fromkeys(tokens(title or ""))
    found = list(heavy | dict.fromkeys(tokens(rest)))[:MAX_TOKENS]
    return " ".join(found + [TITLE_MARK + token for token in heavy][:MAX_TOKENS])


def query_tokens(text: str, limit: int = 32) -> list[str]:
    """The distinct tokens of a search query, in order."""
    return list(dict.fromkeys(tokens(text)))[:limit]

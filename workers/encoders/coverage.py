"""Whether a text pack covers a text's language, and a text encoder that falls back to n-grams where not."""

import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from workers.encoders.ngrams import NgramEncoder, split_words
from workers.encoders.stopwords import FOREIGN, STOPWORDS
from workers.encoders.text import OnnxTextEncoder, normalise
from workers.encoders.types import FloatArray, Role, Space

_LETTERS = re.compile(r"[^\W\d_]{2,}")

_USUAL = 0.225
_SPREAD = 0.14
_LIMIT = 3.5
"""English product texts start 0.225 pieces per letter in the mean, with a deviation of 0.14 / sqrt(words)
(measured on six catalogues, titles and descriptions); German has 0.32, French 0.30, Russian 0.94. The limit
is in deviations."""

_UNKNOWN = 0.2
_LOOKED_AT = 400
"""Words looked at: more do not change the answer."""


def fragmentation(tokenizer: Tokenizer, text: str) -> float:
    """The share of the text's letters at which a new piece begins, 0 to 1; 0 for a text without words.

    A tokenizer cuts the words of its languages into few pieces and spells foreign ones nearly letter by
    letter. A word that it does not know at all counts as spelt.
    """
    return _pieces(tokenizer, text)[0]


def is_covered(
    tokenizer: Tokenizer, text: str, *, languages: Sequence[str] = ("en",), language: str | None = None
) -> bool:
    """Whether a pack with this tokenizer, trained on `languages`, can tell what `text` is about.

    `language` is the item's own, where known (BCP 47), and decides alone. Otherwise foreign function words
    and the fragmentation do. A pack of many languages (`*`) covers all whose letters it knows. Short texts
    get the benefit of the doubt: brand names are fragmented in every language.
    """
    if language and "*" not in languages:
        return language.partition("-")[0].lower() in languages
    if "*" in languages:
        return _pieces(tokenizer, text)[2] <= _UNKNOWN
    native, foreign = _function_words(text)
    if foreign >= 2 and foreign > native:
        return False
    return foreignness(tokenizer, text) <= _LIMIT


def foreignness(tokenizer: Tokenizer, text: str) -> float:
    """How many deviations the fragmentation is above that of an English text of as many words."""
    share, words, _ = _pieces(tokenizer, text)
    return (share - _USUAL) * words**0.5 / _SPREAD if words else 0.0


def _pieces(tokenizer: Tokenizer, text: str) -> tuple[float, int, float]:
    """Pieces per letter, number of words, and the share of words that are unknown."""
    words = _LETTERS.findall(text)[:_LOOKED_AT]
    if not words:
        return 0.0, 0, 0.0
    unknown = tokenizer.model.unk_token if hasattr(tokenizer.model, "unk_token") else None
    pieces = lost = 0
    for word, encoding in zip(words, tokenizer.encode_batch(words, add_special_tokens=False), strict=True):
        if unknown is not None and unknown in encoding.tokens:
            pieces, lost = pieces + len(word), lost + 1
        else:
            pieces += min(len(encoding.ids), len(word))
    return pieces / sum(map(len, words)), len(words), lost / len(words)


def _function_words(text: str) -> tuple[int, int]:
    """How many of the text's words are English function words, and how many are those of other languages."""
    words = split_words(text)[:_LOOKED_AT]
    return sum(word in STOPWORDS["en"] for word in words), sum(word in FOREIGN for word in words)


class CoveringTextEncoder:
    """A `TextEncoder` for shops of any language: a pack where it covers the text, n-grams where not.

    Both kinds of rows have one size and live in one column. Rows of different kinds are unrelated: their
    cosine is that of random directions (0 +- 0.05 at 384 dimensions), so an item finds those of its own
    kind. A query is often too short to tell, so it is the sum of both kinds, weighed by how foreign it looks.
    """

    def __init__(self, pack: OnnxTextEncoder, *, languages: Sequence[str] = ("en",)) -> None:
        """`languages` are those that `pack` was trained on, `*` for many."""
        self._pack = pack
        self._languages = tuple(languages)
        self._ngrams = NgramEncoder(dim=pack.space.dim)
        name = f"{pack.space.name}+{self._ngrams.space.name}"
        self._space = Space(name=name, kind="text", dim=pack.space.dim)

    @property
    def space(self) -> Space:
        """The space of the rows: the pack's name and that of the n-grams."""
        return self._space

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: Role = "document",
        languages: Sequence[str | None] | None = None,
    ) -> FloatArray:
        """`float32[len(texts), dim]`, rows L2-normalised; `languages` are the items' own where known."""
        if role == "query":
            return self._encode_queries(texts)
        known = languages or [None] * len(texts)
        covered = [self.covers(text, language) for text, language in zip(texts, known, strict=True)]
        rows = np.zeros((len(texts), self._space.dim), np.float32)
        inside = [index for index, yes in enumerate(covered) if yes]
        outside = [index for index, yes in enumerate(covered) if not yes]
        if inside:
            rows[inside] = self._pack.encode([texts[i] for i in inside], role=role)
        if outside:
            rows[outside] = self._ngrams.encode([texts[i] for i in outside])
        return rows

    def covers(self, text: str, language: str | None = None) -> bool:
        """Whether the pack encodes this text, rather than the n-grams."""
        return is_covered(self._pack.tokenizer, text, languages=self._languages, language=language)

    def _encode_queries(self, texts: Sequence[str]) -> FloatArray:
        if not texts:
            return np.zeros((0, self._space.dim), np.float32)
        if "*" in self._languages:
            foreign = [0.0 if self.covers(text) else 1.0 for text in texts]
        else:
            foreign = [self._weigh(text) for text in texts]
        weight = np.array(foreign, np.float32)[:, None]
        rows = self._pack.encode(texts, role="query") * np.sqrt(1 - weight)
        return normalise(rows + self._ngrams.encode(texts, role="query") * np.sqrt(weight))

    def _weigh(self, text: str) -> float:
        """How much of a query's vector its n-grams are, 0 to 1."""
        native, foreign = _function_words(text)
        if foreign > native:
            return 1.0
        return float(np.clip(0.1 + 0.25 * foreignness(self._pack.tokenizer, text), 0, 1))

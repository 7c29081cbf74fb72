"""Texts of any language without a model: hashed character n-grams (DECISIONS 23).

A text pack knows the languages that it was trained on. For the others this space still finds the same and
kindred words, inflected and compounded ones included, because they share character n-grams (Cavnar and
Trenkle 1994; hashing with signs: Weinberger et al. 2009). The weights were chosen on a Russian, a German
and a French catalogue (benchmarks/languages.py).
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from workers.encoders.stopwords import ANY
from workers.encoders.text import normalise
from workers.encoders.types import FloatArray, Role, Space

VERSION = 1
"""Part of the space's name: a change to what is hashed or to a weight is another space."""

DIM = 384

_WORD = re.compile(r"[^\W_]+")
_ACCENTS = re.compile(r"[\u0300-\u036f]")
"""Combining marks of Latin, Greek and Cyrillic. Those of Indic scripts or Arabic change the word and stay."""

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, kana, han: no blanks between words, so two characters say what five do."""

_HEAD = 16
_HEAD_WEIGHT = 3.5
"""The first words of an item's text are its title and brand, which say more than the description's."""

_SHORT = 3
_SHORT_WEIGHT = 0.3
_STOPWORD_WEIGHT = 0.1
"""There are no counts of a language at hand, so function words are told by lists, and by being short."""

_WORD_SHARE = 0.4
"""Part of a word's weight that lies on the whole word; the rest is spread over its n-grams."""

_GRAM = 5

_MASK = np.uint64(0xFFFFFFFF)


class NgramEncoder:
    """A `TextEncoder` without a model: needs no pack, no language, and about 0.5 ms for a product's text."""

    def __init__(self, *, dim: int = DIM) -> None:
        """Rows of `dim` numbers; the default is that of the text pack, so that both fit one column."""
        self._space = Space(name=f"char-ngrams-{dim}@{VERSION}", kind="text", dim=dim)

    @property
    def space(self) -> Space:
        """The space of the rows."""
        return self._space

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> FloatArray:
        """`float32[len(texts), dim]`, rows L2-normalised (zeros for a text without a word), in order."""
        rows = np.zeros((len(texts), self._space.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            features = weigh_features(text)
            if features:
                _hash_into(row, features)
        return normalise(rows)


def weigh_features(text: str) -> dict[str, float]:
    """The features of a text (whole words as ` word `, n-grams as they are) with their weights.

    A word's weight is spread over its features, so that a long word counts as one word, then summed over
    its occurrences as 1 + ln(count) (sublinear tf). Accents are off: shoppers leave them out.
    """
    words = split_words(text)
    counts = Counter(words)
    heads = set(words[:_HEAD])
    weights: dict[str, float] = {}
    for word, count in counts.items():
        weight = 1 + np.log(count)
        if word in heads:
            weight *= _HEAD_WEIGHT
        if word in ANY:
            weight *= _STOPWORD_WEIGHT
        elif len(word) <= _SHORT and word.isalpha() and not _UNSPACED.search(word):
            weight *= _SHORT_WEIGHT
        grams = _ngrams(word)
        whole = weight * _WORD_SHARE**0.5 if grams else weight
        weights[f" {word} "] = weights.get(f" {word} ", 0) + float(whole)
        for gram in grams:
            part = weight * ((1 - _WORD_SHARE) / len(grams)) ** 0.5
            weights[gram] = weights.get(gram, 0) + float(part)
    return weights


def split_words(text: str) -> list[str]:
    """Words in the form in which they are compared: NFKC, case folded, accents off."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = _ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    return _WORD.findall(unicodedata.normalize("NFC", plain))


def _ngrams(word: str) -> list[str]:
    """5-grams of `<word>`; 1- and 2-grams for scripts without blanks."""
    if _UNSPACED.search(word):
        return [word[i : i + n] for n in (1, 2) for i in range(len(word) - n + 1)]
    marked = f"<{word[:64]}>"
    if len(marked) <= _GRAM:
        return []
    return [marked[i : i + _GRAM] for i in range(len(marked) - _GRAM + 1)]


def _hash_into(row: FloatArray, features: dict[str, float]) -> None:
    """Add each feature at its place with its sign. CRC32 is mixed, since its own low bits are too regular."""
    keys = np.fromiter((zlib.crc32(name.encode()) for name in features), np.uint64, len(features))
    keys = (keys ^ (keys >> np.uint64(15))) * np.uint64(0x2C1B3C6D) & _MASK
    keys = (keys ^ (keys >> np.uint64(12))) * np.uint64(0x297A2D39) & _MASK
    keys ^= keys >> np.uint64(15)
    places = (keys >> np.uint64(1)) % np.uint64(len(row))
    signs = np.where(keys & np.uint64(1), 1.0, -1.0)
    values = np.fromiter(features.values(), np.float64, len(features))
    row += np.bincount(places.astype(np.int64), signs * values, len(row)).astype(np.float32)

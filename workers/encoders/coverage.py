"""Whether a text pack covers a text's language, or the n-grams are to encode it (DECISIONS 23)."""

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from workers.encoders.ngrams import split_words
from workers.encoders.stopwords import FOREIGN, STOPWORDS

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

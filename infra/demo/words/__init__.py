"""The demo shop's texts: one vocabulary per language, written by hand."""

from infra.demo.words.de import GERMAN
from infra.demo.words.en import ENGLISH
from infra.demo.words.es import SPANISH
from infra.demo.words.fr import FRENCH
from infra.demo.words.ru import RUSSIAN
from infra.demo.words.vocabulary import Vocabulary

VOCABULARIES: dict[str, Vocabulary] = {v.code: v for v in (ENGLISH, GERMAN, FRENCH, SPANISH, RUSSIAN)}
"""Every language of the shop, by its ISO 639-1 code."""

"""Languages that the offline text pack does not cover: what the n-gram space finds in them.

Search by an item's own title, and whether the five most similar items share its category, against words
alone (tf-idf) and random. Twice: as served (the category path is part of an item's text), and with the category
left out of the text. Run: `python -m benchmarks.languages`.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.catalogues import DATA, catalogue_texts, foreign_items
from benchmarks.report import Line, print_report
from tenants.document import item_text
from tenants.item import Item
from tenants.words import tokens
from workers.encoders.coverage import is_covered
from workers.encoders.minilm import build_minilm
from workers.encoders.ngrams import NgramEncoder
from workers.encoders.text import OnnxTextEncoder
from workers.encoders.types import FloatArray, Role

TITLE_BAR = 0.95

Encode = Callable[[Sequence[str], Role], FloatArray]


def tf_idf(texts: Sequence[str]) -> FloatArray:
    """Words alone: (1 + ln tf) * ln((1 + n) / (1 + df)), rows of length one, over this catalogue's words."""
    counts = [Counter(tokens(text)) for text in texts]
    frequency = Counter(word for found in counts for word in found)
    places = {word: place for place, word in enumerate(frequency)}
    rows = np.zeros((len(texts), len(places)), np.float32)
    for row, found in zip(rows, counts, strict=True):
        for word, count in found.items():
            row[places[word]] = (1 + np.log(count)) * np.log((1 + len(texts)) / (1 + frequency[word]))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def same_category(rows: FloatArray, categories: Sequence[str], k: int = 5) -> float:
    """Mean share of the k most similar items that are of the item's own category."""
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    top = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    return float(np.mean([[categories[i] == categories[j] for j in near] for i, near in enumerate(top)]))


def found_by_title(encode: Encode, items: Sequence[Item], texts: Sequence[str]) -> float:
    """Share of items whose own title, as a query, has them (or one of the same title) first."""
    titles = [item.title or "" for item in items]
    first = (encode(titles, "query") @ encode(texts, "document").T).argmax(axis=1)
    return float(np.mean([titles[j] == titles[i] for i, j in enumerate(first)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        pack = OnnxTextEncoder(build_minilm(Path(folder) / "minilm"), threads=2)
    ngrams = NgramEncoder()
    methods: dict[str, Encode] = {
        "pack alone": lambda texts, role: pack.encode(texts, role=role),
        "n-grams": lambda texts, role: ngrams.encode(texts, role=role),
    }
    for language, items in foreign_items(options.data).items():
        # Leaf categories of the German and French shop have two items each: its top ones are counted.
        deep = language.startswith("ru")
        categories = [i.categories[0] if deep else i.categories[0].partition(" > ")[0] for i in items]
        sizes = Counter(categories)
        chance = float(np.mean([(sizes[c] - 1) / (len(items) - 1) for c in categories]))
        full = [item_text(item) for item in items]
        bare = [item_text(msgspec.structs.replace(item, categories=[])) for item in items]
        words = {"served": same_category(tf_idf(full), categories), "bare": same_category(tf_idf(bare), categories)}
        lines.append(Line(f"{language}: same category among 5, random", f"{chance:.3f}", None, None))
        # Where a category holds more than half of the shop, twice random is more than all.
        wanted = max(words["served"], min(2 * chance, 1) if chance < 0.5 else 0)
        for method, encode in methods.items():
            ours = method == "n-grams"
            title = found_by_title(encode, items, full)
            lines.append(
                Line(
                    f"{language}: own title found first, {method}",
                    f"{title:.3f}",
                    f">= {TITLE_BAR}" if ours else None,
                    title >= TITLE_BAR if ours else None,
                )
            )
            share = same_category(encode(full, "document"), categories)
            without = same_category(encode(bare, "document"), categories)
            lines.append(
                Line(
                    f"{language}: same category among 5, {method}",
                    f"{share:.3f} (category not in the text {without:.3f})",
                    f">= {wanted:.3f}" if ours else None,
                    share >= wanted if ours else None,
                )
            )
        figure = f"{words['served']:.3f} (category not in the text {words['bare']:.3f})"
        lines.append(Line(f"{language}: same category among 5, words alone", figure, None, None))
        told = float(np.mean([not is_covered(pack.tokenizer, text) for text in full]))
        lines.append(Line(f"{language}: told to be foreign", f"{told:.3f}", None, None))
    for name, texts in catalogue_texts(options.data).items():
        wrong = float(np.mean([not is_covered(pack.tokenizer, text) for text in texts]))
        lines.append(Line(f"{name}: English taken for foreign", f"{wrong:.3f}", None, None))
    print_report("languages", lines)
    sys.exit(any(line.met is False for line in lines))


if __name__ == "__main__":
    main()

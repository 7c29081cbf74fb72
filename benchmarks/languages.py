"""Languages that the offline text pack does not cover: what a shop in them finds.

Search by an item's own title, and whether the five most similar items share its category: through the API, and of
each encoder alone against words alone (tf-idf) and random. The latter twice: as served (the category path is part of
an item's text), and with the category left out. Run: `python -m benchmarks.languages`.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.catalogues import DATA, catalogue_texts, foreign_items
from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, until_encoded
from tenants.catalog.document import item_text
from tenants.catalog.item import Item
from tenants.catalog.words import tokens
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


async def ask_api(stage: Stage, items: Sequence[Item], categories: Sequence[str]) -> tuple[float, float]:
    """A shop of these items: the share found first by their own title, and of `similar`'s five in their category."""
    titles = {item.id: item.title for item in items}
    kinds = dict(zip(titles, categories, strict=True))
    first, shared = [], []
    async with stage.client(stage.make_tenant()) as client:
        # Without the photos, which lie on pages that a benchmark does not ask.
        body = msgspec.json.encode([msgspec.structs.replace(item, images=[]) for item in items])
        headers = {"Content-Type": "application/json"}
        (await client.post("/v1/items/bulk", content=body, headers=headers)).raise_for_status()
        await until_encoded(client)
        for item in items:
            asked = await client.post("/v1/search", json={"query": item.title, "count": 1})
            first.append([titles[hit["id"]] for hit in asked.raise_for_status().json()["items"]] == [item.title])
            wanted = {"strategy": "similar", "item_ids": [item.id], "count": 5, "fallback": "none"}
            near = (await client.post("/v1/recommend", json=wanted)).raise_for_status().json()["items"]
            shared += [kinds[hit["id"]] == kinds[item.id] for hit in near]
    return float(np.mean(first)), float(np.mean(shared))


def of_language(stage: Stage, methods: Mapping[str, Encode], language: str, items: Sequence[Item]) -> list[Line]:
    """The lines of one shop; the bars are of what the API answers."""
    # Leaf categories of the German and French shop have two items each: its top ones are counted.
    deep = language.startswith("ru")
    categories = [i.categories[0] if deep else i.categories[0].partition(" > ")[0] for i in items]
    sizes = Counter(categories)
    chance = float(np.mean([(sizes[c] - 1) / (len(items) - 1) for c in categories]))
    full = [item_text(item) for item in items]
    bare = [item_text(msgspec.structs.replace(item, categories=[])) for item in items]
    served, without = (same_category(tf_idf(texts), categories) for texts in (full, bare))
    # Where a category holds more than half of the shop, twice random is more than all.
    wanted = max(served, 2 * chance if chance < 0.5 else 0)
    title, share = asyncio.run(ask_api(stage, items, categories))
    lines = [
        Line(f"{language}: own title found first", f"{title:.3f}", f">= {TITLE_BAR}", title >= TITLE_BAR),
        Line(f"{language}: same category among 5", f"{share:.3f}", f">= {wanted:.3f}", share >= wanted),
        Line(f"{language}: the same, random", f"{chance:.3f}", None, None),
        Line(
            f"{language}: the same, words alone", f"{served:.3f} (category not in the text {without:.3f})", None, None
        ),
    ]
    for method, encode in methods.items():
        title = found_by_title(encode, items, full)
        share, without = (same_category(encode(texts, "document"), categories) for texts in (full, bare))
        lines += [
            Line(f"{language}: own title found first, {method}", f"{title:.3f}", None, None),
            Line(
                f"{language}: same category among 5, {method}",
                f"{share:.3f} (category not in the text {without:.3f})",
                None,
                None,
            ),
        ]
    return lines


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
        "n-grams alone": lambda texts, role: ngrams.encode(texts, role=role),
    }
    with Stage() as stage:
        for language, items in foreign_items(options.data).items():
            lines += of_language(stage, methods, language, items)
            told = float(np.mean([not is_covered(pack.tokenizer, item_text(item)) for item in items]))
            lines.append(Line(f"{language}: told to be foreign", f"{told:.3f}", None, None))
    for name, texts in catalogue_texts(options.data).items():
        wrong = float(np.mean([not is_covered(pack.tokenizer, text) for text in texts]))
        lines.append(Line(f"{name}: English taken for foreign", f"{wrong:.3f}", None, None))
    print_report("languages", lines)
    sys.exit(any(line.met is False for line in lines))


if __name__ == "__main__":
    main()

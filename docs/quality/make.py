"""Makes the catalogues that the cards of this folder need, and the tables of docs/quality.md from the cards.

python docs/quality/make.py items DATA OUT    OUT/online_retail.jsonl, OUT/complete_journey.jsonl
python docs/quality/make.py tables            the tables between the marks of docs/quality.md
"""

import csv
import gzip
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "quality.md"
BEGIN, END = "<!-- tables: made by docs/quality/make.py -->", "<!-- end of tables -->"


def make_items(data: Path, out: Path) -> None:
    """Products as items.jsonl: the most frequent description, or type, brand and category."""
    out.mkdir(parents=True, exist_ok=True)
    titles: dict[str, Counter[str]] = defaultdict(Counter)
    with gzip.open(data / "online_retail" / "transactions.csv.gz", "rt", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            titles[row["stock_code"].strip()][row["description"].strip()] += 1
    retail = [
        {"id": code, "title": next((title for title, _ in found.most_common() if title), "")}
        for code, found in titles.items()
    ]
    with gzip.open(data / "complete_journey" / "products.csv.gz", "rt", encoding="utf-8") as stream:
        journey = [
            {
                "id": row["product_id"],
                "title": row["product_type"],
                "brand": row["brand"],
                "categories": [f"{row['department']} > {row['product_category']}"],
            }
            for row in csv.DictReader(stream)
        ]
    for name, items in (("online_retail", retail), ("complete_journey", journey)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


def _figure(found: dict[str, float]) -> str:
    return f"{found['value']:.4f} ({found['low']:.4f}–{found['high']:.4f})"


def _percent(relative: list[float]) -> str:
    return f"{100 * relative[0]:+.1f} % ({100 * relative[1]:+.1f} to {100 * relative[2]:+.1f})"


def table(name: str, card: dict[str, Any]) -> str:
    """The section of one card."""
    counts, split = card["counts"], card["split"]
    cold = next((s for s in card["slices"] if s["kind"] == "item history" and s["name"] == "0"), None)
    against = {
        c["against"]: c["difference"]["relative"]
        for c in card["claims"]
        if c["model"] == "blend" and c["metric"] == "recall@20"
    }
    lines = [
        f"### {name.replace('-', ', repeats ')}",
        "",
        f"Split by time at {split['test_from'][:16].replace('T', ' ')}, the last {split['share']:.0%} of the events; "
        f"{counts['shoppers_asked']:,} shoppers asked, {counts['shoppers_without_history']:,} without a history left "
        f"out; {counts['candidates']:,} candidates, full ranking"
        + (f"; {cold['shoppers']:,} shoppers wanted an item that nobody had met." if cold else "."),
        "",
        "| model | Recall@20 | NDCG@20 | cold items, Recall@20 | the blend against it, Recall@20 |",
        "|---|---|---|---|---|",
    ]
    for model in sorted(card["models"], key=lambda m: -card["models"][m]["recall@20"]["value"]):
        found = card["models"][model]
        spread = _figure(cold["models"][model]) if cold else "–"
        paired = _percent(against[model]) if model in against and against[model][0] < 10 else "–"
        lines.append(f"| {model} | {_figure(found['recall@20'])} | {_figure(found['ndcg@20'])} | {spread} | {paired} |")
    weights = sorted(card["blend"]["weights"].items(), key=lambda pair: -pair[1])
    lines += ["", "Weights: " + ", ".join(f"{source} {weight:.2f}" for source, weight in weights) + ".", ""]
    return "\n".join(lines)


def tables() -> str:
    """All sections, in the order of the names of the cards."""
    return "\n".join(table(path.stem, json.loads(path.read_bytes())) for path in sorted(HERE.glob("*.json")))


def main() -> None:
    """Run one of the two."""
    if sys.argv[1] == "items":
        make_items(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The metric card as one self-contained page: no script, no address, plots as inline SVG."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from workers.evaluation.bootstrap import Interval
from workers.evaluation.card import Card
from workers.evaluation.models import BLEND

_TEMPLATE: Final = Path(__file__).with_name("page.html")
_LABELS: Final = 132
_WIDTH: Final = 1000
_ROW: Final = 26


def render_page(card: Card) -> str:
    """The HTML of a card."""
    metric = _headline(card)
    parts = {
        "title": escape(card.title),
        "subtitle": escape(_subtitle(card)),
        "facts": "".join(f"<div><b>{value}</b><span>{what}</span></div>" for what, value in _facts(card)),
        "command": escape(card.command),
        "metric": escape(metric.replace("recall", "Recall")),
        "candidates": f"{card.counts.candidates:,}",
        "recall_plot": _recall_plot(card, metric),
        "differences": _differences(card, metric),
        "metrics_table": _metrics_table(card, metric),
        "catalogue_table": _catalogue_table(card),
        "slices": _slices(card),
        "blend": _blend(card),
        "models": _models(card),
        "footer": escape(f"Made {card.made}. " + ", ".join(f"{k} {v}" for k, v in card.code.items()) + "."),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace("{{" + name + "}}", part)
    return page


def _headline(card: Card) -> str:
    names = [name for name in next(iter(card.models.values())) if name.startswith("recall@")]
    return "recall@20" if "recall@20" in names else names[-1]


def _subtitle(card: Card) -> str:
    split = card.split
    how = {
        "time": f"Split by time for all shoppers at once, at {(split.test_from or '')[:16].replace('T', ' ')} UTC",
        "leave_last": "The last new item of each shopper is asked for",
        "random": "A random part of each shopper's items is asked for",
        "given": "Split made by others",
    }[split.kind]
    repeats = "items that the shopper had met may come again" if card.repeats == "included" else "new items only"
    return f"{how}; {repeats}; full ranking."


def _facts(card: Card) -> list[tuple[str, str]]:
    counts = card.counts
    facts = [
        ("shoppers asked", f"{counts.shoppers_asked:,}"),
        ("without a history, left out", f"{counts.shoppers_without_history:,}"),
        ("candidates", f"{counts.candidates:,}"),
        ("events learnt from", f"{counts.events_train:,}"),
        ("events of the test", f"{counts.events_test:,}"),
    ]
    if card.split.train_from and card.split.test_to:
        facts.append(("first to last event", f"{card.split.train_from[:10]} – {card.split.test_to[:10]}"))
    return facts


def _recall_plot(card: Card, metric: str) -> str:
    rows = sorted(((name, found[metric]) for name, found in card.models.items()), key=lambda row: -row[1].value)
    return _whiskers(
        [
            (name, found.value, found.low, found.high, "best" if place == 0 else "")
            for place, (name, found) in enumerate(rows)
        ],
        lambda value: f"{value:.4f}",
        label=f"{metric} of each model with its interval",
    )


def _differences(card: Card, metric: str) -> str:
    claims = [c for c in card.claims if c.metric == metric and c.model == BLEND and any(c.difference.relative)]
    claims = [c for c in claims if c.difference.relative[0] < 3]
    if not claims:
        return ""
    rows = []
    for claim in sorted(claims, key=lambda c: c.difference.relative[0]):
        value, low, high = (100 * part for part in claim.difference.relative)
        rows.append((claim.against, value, low, high, "good" if low > 0 else "bad" if high < 0 else ""))
    plot = _whiskers(rows, _percent, label="difference of the blend to each model")
    return (
        "<h2>The blend against each model</h2><p>Relative difference over the same shoppers, paired bootstrap. Green: "
        "the whole interval is above 0. Models that it more than quadruples are left out.</p>" + plot
    )


def _percent(value: float) -> str:
    """Whole percent with its sign; what rounds to nothing has none."""
    return f"{value:+.0f} %" if round(value) else "0 %"


def _whiskers(rows: Sequence[tuple[str, float, float, float, str]], show: Callable[[float], str], *, label: str) -> str:
    """One line per row: name, dot at the value, bar from low to high; the third part of each row is its class."""
    low = min(0.0, *(row[2] for row in rows))
    high = max(0.0, *(row[3] for row in rows))
    span = (high - low) or 1.0
    right = _WIDTH - 76
    height = _ROW * len(rows) + 30

    def x(value: float) -> float:
        return _LABELS + (value - low) / span * (right - _LABELS)

    step = _step(span)
    ticks = [step * i for i in range(int(low // step), int(high // step) + 1) if low <= step * i <= high]
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for tick in ticks:
        kind = "zero" if abs(tick) < step / 2 and low < 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 24}"/>')
        text = show(tick) if low < 0 else f"{tick:.3g}"
        parts.append(f'<text class="soft" x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{text}</text>')
    for place, (name, value, start, end, kind) in enumerate(rows):
        y = _ROW * place + 17
        parts.append(
            f'<g class="{kind}"><text x="{_LABELS - 14}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line class="bar" x1="{x(start):.1f}" x2="{x(end):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot" cx="{x(value):.1f}" cy="{y}" r="4.5"/>'
            f'<text class="soft" x="{_WIDTH - 4}" y="{y + 4}" text-anchor="end">{show(value)}</text></g>'
        )
    return "".join(parts) + "</svg>"


def _step(span: float) -> float:
    """A round step that cuts the span in 4 to 8."""
    power = 1.0
    while power > span:
        power /= 10
    while power * 10 <= span:
        power *= 10
    for part in (0.2, 0.5, 1.0, 2.0):
        if span / (power * part) <= 7:
            return power * part
    return power * 2


def _cell(found: Interval) -> str:
    return f"{found.value:.4f}<small>{found.low:.4f}–{found.high:.4f}</small>"


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, best: str | None = None) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = []
    for name, cells in rows:
        kind = ' class="best"' if name == best else ""
        # A cell that opens with > carries its own class.
        line = "".join(f"<td{cell}</td>" if cell.startswith((">", " class")) else f"<td>{cell}</td>" for cell in cells)
        body.append(f"<tr{kind}><td>{escape(name)}</td>{line}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _ordered(card: Card) -> list[str]:
    metric = _headline(card)
    return sorted(card.models, key=lambda name: -card.models[name][metric].value)


def _metrics_table(card: Card, metric: str) -> str:
    k = metric.partition("@")[2]
    wanted = [name for name in next(iter(card.models.values())) if name.endswith(f"@{k}") or name.startswith("recall")]
    order = _ordered(card)
    rows = [(name, [_cell(card.models[name][one]) for one in wanted]) for name in order]
    return _table(["model", *wanted], rows, best=order[0])


def _catalogue_table(card: Card) -> str:
    rows = []
    for name in _ordered(card):
        spread = card.catalogue[name]
        rows.append(
            (
                name,
                [
                    f"{spread['coverage']:.1%}",
                    f"{spread['novelty']:.2f}",
                    f"{spread['gini']:.3f}",
                    f"{spread['popularity_share']:.1%}",
                ],
            )
        )
    return _table(["model", "coverage", "novelty", "gini", "head"], rows)


def _slices(card: Card) -> str:
    parts = []
    explained = {
        "item history": "Only wanted items with so many shoppers in training count; 0 are cold items.",
        "shopper history": "Shoppers with so many items before the test.",
        "category": "Only wanted items of the category count.",
        "seller": "Only wanted items of the seller count.",
    }
    for kind, group in groupby(card.slices, key=lambda part: part.kind):
        columns = list(group)
        rows = []
        for name in _ordered(card):
            cells = []
            for part in columns:
                top = max(part.models, key=lambda one: part.models[one].value)
                mark = ' class="top">' if name == top and part.models[name].value > 0 else ">"
                cells.append(mark + _cell(part.models[name]))
            rows.append((name, cells))
        heads = ["model", *(f"{part.name} ({part.shoppers:,})" for part in columns)]
        parts.append(
            f"<h2>Recall@{columns[0].k} by {escape(kind)}</h2><p>{explained[kind]} In brackets: shoppers.</p>"
            f'<div class="scroll">{_table(heads, rows)}</div>'
        )
    return "".join(parts)


def _blend(card: Card) -> str:
    if card.blend is None:
        return ""
    weights = sorted(card.blend["weights"].items(), key=lambda pair: -pair[1])
    sources = card.blend.get("sources", {})
    rows = [(name, [escape(sources.get(name, name)), f"{weight:.3f}"]) for name, weight in weights]
    about = f"Fitted on {card.blend['validation_shoppers']:,} shoppers of windows before the test, never on the test."
    if "fresh" in card.blend["weights"]:
        about += " Fresh are items that few have met lately, weighted apart."
    table = _table(["model", "source of the service", "weight"], rows)
    return f"<h2>Weights of the blend</h2><p>{escape(about)}</p>{table}"


def _models(card: Card) -> str:
    rows = [(name, [escape(card.about.get(name, ""))]) for name in _ordered(card)]
    return f'<h2>What the models are</h2><div class="words">{_table(["model", ""], rows)}</div>'

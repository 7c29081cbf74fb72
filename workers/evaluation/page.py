"""The metric card as one self-contained page: no script, no address, plots as inline SVG."""

from workers.evaluation.card import Card


def render_page(card: Card) -> str:
    return card.title

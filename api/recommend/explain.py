"""Why an item is in the list: what its score is made of, and the item that is the evidence."""

from collections.abc import Mapping
from typing import Final

from api.recommend.plan import BEHAVIOUR, CONTENT
from api.recommend.types import Because, Candidate, Explain, Plan
from tenants.retrieval.wanted import Hit
from tenants.sources.scene import AT_MODEL

_ANCHORLESS: Final = frozenset({"popular", "trending", "new", "on_sale", "recently_viewed"})


def explain(candidate: Candidate, plan: Plan) -> Explain:
    """The parts of a score, as its sources have them; they add up to it before it is cut to 0..1."""
    hit = candidate.hit
    if candidate.parts:
        return _blended(candidate, plan)
    if plan.strategy == "search" and hit.text_cosine is None and hit.image_cosine is None:
        return Explain(words=_short(hit.text), vectors=_short(hit.image))
    return Explain(
        text=_short(hit.text),
        image=_short(hit.image),
        text_similarity=_short(hit.text_cosine),
        image_similarity=_short(hit.image_cosine),
    )


def _blended(candidate: Candidate, plan: Plan) -> Explain:
    parts: dict[str, float] = {}
    for label, part in candidate.parts:
        # One source with two models is one kind of reason.
        name = label.partition(AT_MODEL)[0]
        parts[name] = parts.get(name, 0.0) + part
    content = _total(parts, CONTENT)
    text, image = _halves(candidate.hit, plan, content, only_image="similar" not in parts)
    personal = set(parts) - _ANCHORLESS
    because = candidate.hit.because if personal else None
    return Explain(
        text=_short(text),
        image=_short(image),
        text_similarity=_short(candidate.hit.text_cosine) if because else None,
        image_similarity=_short(candidate.hit.image_cosine) if because else None,
        behaviour=_short(_total(parts, BEHAVIOUR)),
        popularity=_short(_total(parts, parts.keys() - CONTENT - BEHAVIOUR - {"attributes"})),
        attributes=_short(parts.get("attributes")),
        because=None if because is None else Because(item_id=because),
    )


def _total(parts: Mapping[str, float], names: frozenset[str] | set[str]) -> float | None:
    """The sum of the parts of these sources; None where none played a role."""
    found = [part for name, part in parts.items() if name in names]
    return sum(found) if found else None


def _halves(hit: Hit, plan: Plan, content: float | None, *, only_image: bool) -> tuple[float | None, float | None]:
    """The content part, shared out as text and photos speak for the likeness to the evidence."""
    if content is None:
        return None, None
    generation = plan.tenant.generation
    text = image = 0.0
    if hit.text_cosine is not None and not only_image:
        text = plan.asked.text_weight * max(0.0, (hit.text_cosine - generation.text.mean) / generation.text.dev)
    if hit.image_cosine is not None:
        image = plan.asked.image_weight * max(0.0, (hit.image_cosine - generation.image.mean) / generation.image.dev)
    if only_image or text + image == 0:
        return (None, content) if only_image or hit.text_cosine is None else (content, None)
    share = text / (text + image)
    return content * share, content * (1 - share)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

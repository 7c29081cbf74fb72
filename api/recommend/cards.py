"""The documents of the items of a list, from the cache (L3) or in one statement for all that are missing.

Lists are found without them: a statement then carries no document of an item that is not shown in the end.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from api.recommend.cache import AnswerCache, Card
from api.recommend.types import Slate
from infra.db import Database, TenantId

_LOAD: Final = """
select i.item_no, i.doc::text as doc, (select jsonb_object_agg(p.position, encode(p.sha256, 'hex'))::text
    from item_photos p where p.tenant_id = $2::uuid and p.item_no = i.item_no) as photos
from items i where i.tenant_id = $2::uuid and i.item_no = any($3::int4[])
"""


class Cards:
    """Fills in what a list shows of its items."""

    def __init__(self, database: Database, cache: AnswerCache) -> None:
        self._database = database
        self._cache = cache

    async def fill_in(self, tenant_id: TenantId, slate: Slate, *, photos: bool) -> Slate:
        """The list with its items' documents, and `photos` where asked; an item deleted meanwhile is left out."""
        numbers = [candidate.hit.item_no for candidate in slate.candidates]
        cards = await self._of(tenant_id, numbers)
        candidates = [
            structs.replace(
                candidate, hit=structs.replace(candidate.hit, doc=card.doc, photos=card.photos if photos else None)
            )
            for candidate in slate.candidates
            if (card := cards.get(candidate.hit.item_no)) is not None
        ]
        return structs.replace(slate, candidates=candidates)

    async def _of(self, tenant_id: TenantId, numbers: Sequence[int]) -> dict[int, Card]:
        cards = self._cache.cards(tenant_id, numbers)
        missing = [number for number in numbers if number not in cards]
        if missing:
            version = self._cache.version(tenant_id)
            records = await self._database.fetch_scoped(tenant_id, _LOAD, missing)
            found = {record["item_no"]: Card(record["doc"], record["photos"]) for record in records}
            self._cache.put_cards(tenant_id, found, version=version)
            cards |= found
        return cards

"""Search by text, by photo, by an item, or by several of them.

Words and vectors make one list each, joined by reciprocal rank fusion; when
the encoder is away, words alone answer and the answer says so.
"""

import asyncio
import binascii
from base64 import b64decode
from collections import OrderedDict
from datetime import datetime
from time import perf_counter
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta, Struct, structs
from numpy.typing import NDArray

from api.recommend.diversify import diversify
from api.recommend.pipeline import answer
from api.recommend.plan import plan
from api.recommend.recall import wanted
from api.recommend.types import Candidate, Count, Exclude, Plan, Query, Served, Share, Slate
from infra.db import Database
from infra.decode import InvalidFields
from infra.encoder import EncoderClient, EncoderUnavailable
from infra.errors import FieldError
from infra.secret import Secret
from tenants.catalog.item import Id
from tenants.catalog.words import query_tokens
from tenants.lifecycle import TenantRef
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.search import RRF_K, Spoken, find_spoken
from tenants.retrieval.wanted import Found, Hit

_CACHED_QUERIES: Final = 4096
_EVERYTHING: Final = 1_000_000
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class SearchQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/search`; at least one of query, image and item_id."""

    query: Annotated[str, Meta(max_length=512)] | None = None
    image: (
        Annotated[str, Meta(max_length=14_000_000, description="An http(s) address, or the photo in base64.")] | None
    ) = None
    item_id: Id | None = None
    count: Count = 10
    cursor: Annotated[str, Meta(max_length=16_384)] | None = None
    filter: dict[str, Any] | None = None
    exclude: Exclude = Exclude()
    max_per: dict[str, Annotated[int, Meta(ge=1, le=100)]] = {}
    min_score: Share = 0.0
    include: list[str] = []
    fields: Annotated[list[str], Meta(max_length=40)] = []
    explain: bool = False


def logged(query: SearchQuery) -> bytes:
    """The request as the log keeps it: of a photo that was sent along, only that there was one."""
    if query.image is not None and not query.image.startswith(("http://", "https://")):
        query = structs.replace(query, image="(photo)")
    return _encode(query)


class QueryVectors:
    """Vectors of search queries, bounded; asks the encode worker for those it has not."""

    def __init__(self, client: EncoderClient) -> None:
        self._client = client
        self._texts: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

    async def text(self, query: str, space: str) -> NDArray[np.float32]:
        """float32[dim] of a text in a space. Raises EncoderUnavailable within 150 ms."""
        key = (space, query)
        found = self._texts.get(key)
        if found is None:
            rows = await self._client.encode_texts([query], space)
            found = np.asarray(rows[0])
            self._texts[key] = found
            if len(self._texts) > _CACHED_QUERIES:
                self._texts.popitem(last=False)
        else:
            self._texts.move_to_end(key)
        return found

    async def photo(self, image: str, space: str) -> NDArray[np.float32]:
        """float32[dim] of a photo by its address or in base64. Raises InvalidFields, QueryNotEncodable."""
        if image.startswith(("http://", "https://")):
            rows = await self._client.encode_photo(space, url=image)
            return np.asarray(rows[0])
        try:
            data = b64decode(image.partition(";base64,")[2] or image, validate=True)
        except (binascii.Error, ValueError) as error:
            fault = FieldError(
                pointer="/image", code="invalid_value", message="`image` is neither an http(s) address nor base64."
            )
            raise InvalidFields(fault.message, errors=[fault]) from error
        rows = await self._client.encode_photo(space, photo=data)
        return np.asarray(rows[0])


async def search(
    database: Database, vectors: QueryVectors, tenant: TenantRef, query: SearchQuery, *, now: datetime, secret: Secret
) -> Served:
    """Answer one search. Raises what `plan` and `QueryVectors.photo` raise."""
    started = perf_counter()
    if not (query.query or "").strip() and query.image is None and query.item_id is None:
        fault = FieldError(pointer="/query", code="missing_field", message="Send `query`, `image` or `item_id`.")
        raise InvalidFields(fault.message, errors=[fault])
    planned = structs.replace(plan(_as_query(query), tenant, now=now, secret=secret), strategy="search")
    spoken, degraded = await _speak(vectors, tenant, query)
    limit = planned.count if not planned.max_per else planned.count * 4
    found = await _find(database, planned, query, spoken, limit)
    chosen = _choose(planned, found)
    if len(chosen) < planned.count and not found.complete:
        found = await _find(database, planned, query, spoken, _EVERYTHING)
        chosen = _choose(planned, found)
    unknown = [query.item_id] if query.item_id is not None and query.item_id not in found.known else []
    slate = Slate(candidates=chosen, fallback_used=degraded, unknown_seeds=unknown)
    return Served(plan=planned, slate=slate, answer=answer(planned, slate, secret=secret, started=started))


def _as_query(query: SearchQuery) -> Query:
    """The part of a search that any list has."""
    return Query(
        strategy="new",
        count=query.count,
        cursor=query.cursor,
        filter=query.filter,
        exclude=query.exclude,
        max_per=query.max_per,
        min_score=query.min_score,
        include=["out_of_stock"] if "out_of_stock" in query.include else [],
        fields=query.fields,
        explain=query.explain,
    )


async def _speak(vectors: QueryVectors, tenant: TenantRef, query: SearchQuery) -> tuple[Spoken, bool]:
    """The query in tokens and in the vectors of the serving spaces; True when some could not be had."""
    generation = tenant.generation
    text = (query.query or "").strip()
    image = await vectors.photo(query.image, generation.image.name) if query.image is not None else None
    if not text:
        return Spoken(tokens=[], image=image), False
    halves = await asyncio.gather(
        vectors.text(text, generation.text.name), vectors.text(text, generation.ngrams.name), return_exceptions=True
    )
    for half in halves:
        if isinstance(half, BaseException) and not isinstance(half, EncoderUnavailable):
            raise half
    covered, ngrams = (None if isinstance(half, BaseException) else half for half in halves)
    spoken = Spoken(tokens=query_tokens(text), text=covered, ngrams=ngrams, image=image)
    return spoken, covered is None or ngrams is None


async def _find(database: Database, planned: Plan, query: SearchQuery, spoken: Spoken, limit: int) -> Found:
    lists: list[Found] = []
    asked = wanted(planned, limit=limit)
    if spoken.tokens or spoken.image is not None or spoken.text is not None:
        lists.append(await find_spoken(database, planned.tenant, asked, spoken))
    if query.item_id is not None:
        generation = planned.tenant.generation
        likeness = Likeness(
            seeds=[query.item_id], text_weight=generation.text_weight, image_weight=generation.image_weight
        )
        lists.append(await find_similar(database, planned.tenant, asked, likeness))
    if not lists:
        return Found(hits=[], known={}, complete=True)
    return lists[0] if len(lists) == 1 else _fuse(lists)


def _fuse(lists: list[Found]) -> Found:
    """Reciprocal rank fusion of whole lists."""
    scores: dict[int, float] = {}
    hits: dict[int, Hit] = {}
    for found in lists:
        for place, hit in enumerate(found.hits, 1):
            scores[hit.item_no] = scores.get(hit.item_no, 0.0) + (RRF_K + 1) / (RRF_K + place) / len(lists)
            hits.setdefault(hit.item_no, hit)
    order = sorted(scores, key=lambda item_no: (-scores[item_no], item_no))
    return Found(
        hits=[structs.replace(hits[item_no], score=scores[item_no]) for item_no in order],
        known={seed: number for found in lists for seed, number in found.known.items()},
        complete=all(found.complete for found in lists),
    )


def _choose(planned: Plan, found: Found) -> list[Candidate]:
    candidates = (Candidate(hit=hit, source="search") for hit in found.hits if hit.score >= planned.asked.min_score)
    return list(diversify(candidates, count=planned.count, max_per=planned.max_per))

"""sampling: which answers are logged with all that they were chosen from, for training and for replay.

One answer in a hundred, told by its id alone, and every one whose request says `explain`, is logged with its best
candidates: the share of each source in the score, the cosines, and the item that is the evidence. They are recalled
again, with evidence and beyond the length of the list, after the answer is on its way, by one task; so the request pays
nothing, and at most one connection is busy with it. Where the task is behind, or fails, the answer is logged without.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from msgspec import Struct, structs

from api.recommend.asked import Asked
from api.recommend.log import AnswerLog, Shown
from api.recommend.plan import plan
from api.recommend.recall import recall_or_popular
from infra.clock import Clock
from infra.db import Database
from infra.secret import Secret
from infra.telemetry import Children, counter
from tenants.answers import SCORE_UNITS, StoredCandidate
from tenants.lifecycle import TenantRef
from tenants.retrieval.wanted import Hit

ONE_IN: Final = 100
POOL: Final = 200
"""Candidates of one answer."""

MAX_BYTES: Final = 32_768
"""Of the candidates of one answer, encoded; the last ones go first."""

MAX_WAITING: Final = 64
"""Answers whose candidates are still to be recalled; further ones are logged without."""

KNOWN: Final = 128
"""Lists of everybody's whose candidates are kept, the last that were sampled: the most popular ones are sampled again
and again. 4 MB at most."""

BUDGET_S: Final = 0.5

_sampled: Final = Children(
    counter(
        "answer_samples_total", "Answers that were to be logged with their candidates, and what came of it.", ["how"]
    )
)
_encode: Final = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


def sampled(answer_id: str) -> bool:
    """Whether an answer is of the sample: by the last 32 of the random bits of its UUIDv7."""
    return int(answer_id[-8:], 16) % ONE_IN == 0


class _Due(Struct, frozen=True):
    answer_id: str
    shown: Shown
    key_id: str
    tenant: TenantRef
    asked: Asked
    shared: bool
    took_s: float
    once: str | None


class Sampling:
    """What stands between answers and their log."""

    def __init__(self, database: Database, log: AnswerLog, *, secret: Secret, clock: Clock, pool: int = POOL) -> None:
        self._database = database
        self._log = log
        self._secret = secret
        self._clock = clock
        self._pool = pool
        self._due: deque[_Due] = deque()
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def record(
        self,
        answer_id: str,
        shown: Shown,
        *,
        key_id: str,
        once: str | None = None,
        tenant: TenantRef,
        asked: Asked,
        shared: bool = False,
        took_s: float,
    ) -> None:
        """Log an answer, with its candidates where it is to have them; never waits and never fails.

        `shared`: the list is everybody's, not made for the shopper who asked.
        """
        wanted = asked.query.explain or sampled(answer_id)
        if wanted and len(self._due) >= MAX_WAITING:
            _sampled("behind").inc()
            wanted = False
        if not wanted:
            self._log.record(answer_id, shown, key_id=key_id, once=once, shopper=asked.shopper, took_s=took_s)
            return
        self._due.append(_Due(answer_id, shown, key_id, tenant, asked, shared, took_s, once))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="answer-candidates")

    async def close(self, *, patience_s: float = 2.0) -> None:
        """Have everything in the log, with candidates as far as there is time for them."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=patience_s)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        while self._due:
            self._write(self._due.popleft())

    async def _drain(self) -> None:
        while self._due:
            # Taken off only then: cut off half-way, it is still logged.
            due = self._due[0]
            candidates = await self._candidates_of(due)
            self._due.popleft()
            self._write(due, candidates)

    def _write(self, due: _Due, candidates: bytes | None = None) -> None:
        self._log.record(
            due.answer_id,
            due.shown,
            key_id=due.key_id,
            once=due.once,
            shopper=due.asked.shopper,
            took_s=due.took_s,
            candidates=candidates,
        )

    async def _candidates_of(self, due: _Due) -> bytes | None:
        """By the list itself, which names its tenant and what was asked: one that differs has others."""
        name = due.shown.body
        if not due.shared or name not in self._known:
            found = await self._candidates(due)
            if due.shared and found is not None:
                self._known[name] = found
                if len(self._known) > KNOWN:
                    self._known.popitem(last=False)
            return found
        self._known.move_to_end(name)
        _sampled("kept").inc()
        return self._known[name]

    async def _candidates(self, due: _Due) -> bytes | None:
        query = structs.replace(due.asked.query, explain=True, fields=[], diversity=0.0)
        if due.shared:
            query = structs.replace(query, user_id=None, visitor_id=None)
        try:
            planned = plan(query, due.tenant, now=self._clock(), secret=self._secret, sources=due.asked.sources)
            async with asyncio.timeout(BUDGET_S):
                found = await recall_or_popular(self._database, planned, limit=self._pool)
        except Exception as error:
            # The answer was given: whatever went wrong here is the sample's loss alone.
            _log.warning("answers.candidates_failed", error=type(error).__name__)
            _sampled("failed").inc()
            return None
        _sampled("kept").inc()
        # Nothing of a session is stored, and evidence from one would be.
        return encode_candidates(found.hits, evidence=not query.session.recent_items)


def encode_candidates(hits: Sequence[Hit], *, evidence: bool) -> bytes:
    """The candidates in order of their score, as JSON of at most `MAX_BYTES`."""
    rows = [_encode(_stored(hit, evidence)) for hit in hits]
    room = MAX_BYTES - 2
    for place, row in enumerate(rows):
        room -= len(row) + 1
        if room < 0:
            del rows[place:]
            break
    return b"[" + b",".join(rows) + b"]"


def _stored(hit: Hit, evidence: bool) -> StoredCandidate:
    return StoredCandidate(
        i=hit.item_no,
        s=round(min(1.0, max(0.0, hit.score)) * SCORE_UNITS),
        f=int(hit.fallback),
        p={label: round(part, 4) for label, part in hit.parts},
        t=None if hit.text_cosine is None else round(hit.text_cosine, 4),
        m=None if hit.image_cosine is None else round(hit.image_cosine, 4),
        b=hit.because if evidence else None,
    )

"""The buffer of the answer log: bounded in rows and in bytes."""

import pytest

from api.recommend.log import AnswerLog, Shown
from infra.changes import ChangeFeed
from infra.db import Database, TenantId
from infra.ids import uuid7


@pytest.mark.parametrize(("limit", "max_bytes"), [(3, 10_000), (100, 3 * 50 + 49)])
def test_what_has_no_room_is_dropped(limit: int, max_bytes: int) -> None:
    """Whether there are too many rows, or too many bytes of them."""
    database = Database("postgresql://x@127.0.0.1/x")
    log = AnswerLog(database, ChangeFeed(database), limit=limit, max_bytes=max_bytes)
    shown = Shown(TenantId(uuid7()), b"x" * 40)
    for _ in range(5):
        log.record(str(uuid7()), shown, key_id="k", candidates=b"y" * 10)
    assert log.waiting == 3

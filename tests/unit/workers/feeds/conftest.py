"""Reads a feed that a test writes, in blocks of any size."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Struct

from workers.feeds.read import read_feed
from workers.feeds.types import FeedFault, FeedReport, FeedRow

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Reading(Struct):
    """Everything that one feed gave."""

    rows: list[FeedRow]
    faults: list[FeedFault]
    report: FeedReport

    @property
    def items(self) -> list[dict[str, Any]]:
        return [row.item for row in self.rows]

    @property
    def ids(self) -> list[object]:
        return [row.item["id"] for row in self.rows]

    @property
    def codes(self) -> list[str]:
        return [fault.code for fault in self.faults]

    @property
    def item(self) -> dict[str, Any]:
        (row,) = self.rows
        return row.item

    @property
    def fault(self) -> FeedFault:
        (fault,) = self.faults
        return fault


def read_all(
    data: bytes | str, format: Any = "auto", *, currency: str = "USD", file_name: str | None = None, stream: Any = None
) -> Reading:
    report = FeedReport()
    reading = Reading(rows=[], faults=[], report=report)
    found = read_feed(
        stream or io.BytesIO(data.encode() if isinstance(data, str) else data),
        format=format,
        file_name=file_name,
        default_currency=currency,
        report=report,
        now=NOW,
    )
    for one in found:
        if isinstance(one, FeedRow):
            reading.rows.append(one)
        else:
            reading.faults.append(one)
    return reading


@pytest.fixture(scope="session")
def read() -> Callable[..., Reading]:
    return read_all

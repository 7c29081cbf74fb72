"""Which bytes of a file a request asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.problems import RangeNotSatisfiable
from api.ranges import parse_range


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("items=0-1", None),
        ("bytes=0-1,4-5", None),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=٣-", None),
        ("bytes=1.5-2", None),
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("Bytes = 3-99999999", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-400", (0, 10)),
        ("bytes=9-", (9, 10)),
    ],
)
def test_what_a_range_means(header: str | None, part: tuple[int, int] | None) -> None:
    """Of a file of ten bytes; what is no range of ours is the whole file (RFC 9110, 14.2)."""
    assert parse_range(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=999999999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(header: str) -> None:
    """416."""
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 10)


@given(st.text(), st.integers(0, 1000))
def test_any_header_gives_a_part_of_the_file_or_an_answer(header: str, size: int) -> None:
    """Never another error, and never a byte beyond the file."""
    for spelled in (header, f"bytes={header}"):
        try:
            part = parse_range(spelled, size)
        except RangeNotSatisfiable:
            continue
        if part is not None:
            assert 0 <= part[0] < part[1] <= size

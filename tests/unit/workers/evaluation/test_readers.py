"""Files of interactions in the usual layouts."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.evaluation.readers import BadInteractions, read_interactions

_EVENTS = [("u1", "a", 4.0, 1_600_000_000), ("u2", "b", 1.0, 1_600_000_100), ("u1", "c", 5.0, 1_600_000_200)]


def _write(folder: Path, text: str, name: str = "log.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|", "::", " "])
@pytest.mark.parametrize("header", ["", "user_id item_id rating timestamp", "userId movieId rating timestamp"])
def test_any_separator_with_and_without_a_header(tmp_path: Path, separator: str, header: str) -> None:
    """One event per line reads the same however it is written."""
    lines = [separator.join(map(str, event)) for event in _EVENTS]
    if header:
        lines.insert(0, separator.join(header.split()))
    (read,) = read_interactions([_write(tmp_path, "\n".join(lines))])
    found = zip(read.log.shopper, read.log.item, read.log.weight, read.log.ts, strict=True)
    assert [(read.shoppers[s], read.items[i], w, t) for s, i, w, t in found] == _EVENTS
    assert read.timed


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("1600000000", 1_600_000_000),
        ("1600000000123", 1_600_000_000),
        ("1.6e9", 1_600_000_000),
        ("2020-09-13T12:26:40Z", 1_600_000_000),
        ("2020-09-13 12:26:40", 1_600_000_000),
        ("2020-09-13T14:26:40+02:00", 1_600_000_000),
    ],
)
def test_times_in_seconds_milliseconds_and_words(tmp_path: Path, cell: str, seconds: int) -> None:
    """All become seconds since 1970."""
    (read,) = read_interactions([_write(tmp_path, f"user,item,rating,timestamp\nu,i,1,{cell}\n")])
    assert read.log.ts.tolist() == [seconds]


def test_columns_are_found_by_name_and_others_left_alone(tmp_path: Path) -> None:
    """A shop's own export: quoted commas, returns and buyers without a name, baskets."""
    text = (
        'invoice,stock_code,description,quantity,ts,price,customer_id\n1,A,"red, large",2,2020-01-01 10:00:00,1.5,7\n'
        "C2,A,red,-2,2020-01-02 10:00:00,1.5,7\n3,B,blue,1,2020-01-03 10:00:00,1.5,\n"
        "1,B,blue,1,2020-01-01 10:00:00,2,7\n"
    )
    (read,) = read_interactions([_write(tmp_path, text)])
    assert [read.items[i] for i in read.log.item] == ["A", "B"]
    assert read.log.group is not None
    assert len(set(read.log.group.tolist())) == 1
    assert read.dropped == {"returns": 1, "no shopper": 1}


def test_one_shopper_per_line(tmp_path: Path) -> None:
    """`user item item …`: order is kept, times there are none, shoppers without items are counted."""
    (read,) = read_interactions([_write(tmp_path, "0 5 6 7 8 9\n1 5\n2\n")])
    assert read.log.shopper.tolist() == [0] * 5 + [1]
    assert [read.items[i] for i in read.log.item] == ["5", "6", "7", "8", "9", "5"]
    assert not read.timed
    assert read.dropped == {"shoppers without items": 1}


def test_both_halves_of_a_split_share_their_numbers(tmp_path: Path) -> None:
    """An item of the test that training lacks has a number in both."""
    train, test = read_interactions(
        [_write(tmp_path, "0 1 2 3 4 5\n1 2\n", "train.txt"), _write(tmp_path, "1 9 1 2 3 4\n", "test.txt")]
    )
    assert train.items == test.items == ["1", "2", "3", "4", "5", "9"]
    assert test.log.shopper.tolist() == [1] * 5


def test_gzip_and_a_byte_order_mark_are_undone(tmp_path: Path) -> None:
    """As exports often are."""
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress("\ufeffuser,item\nu,i\n".encode()))
    assert read_interactions([path])[0].shoppers == ["u"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "user,item\n",
        "lonely\n",
        "u,i,1,2\nu,i,1,yesterday\n",
        "user,item,rating\nu,i,nan\n",
        "user,item,ts\nu,i,inf\n",
        "a\0b",
        "user,item,rating\nu\n",
        "item,ts\na,100\n",
        "user,price\na,100\n",
        "a,b,c\nu,i,nice\n",
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, text: str) -> None:
    """By an error that names the file, never a traceback."""
    with pytest.raises(BadInteractions, match=r"log\.txt"):
        read_interactions([_write(tmp_path, text)])


def test_a_header_without_a_shopper_says_which_column_is_missing(tmp_path: Path) -> None:
    """Rather than that the file has no times, or that a word is no number."""
    with pytest.raises(BadInteractions, match="no column for the shopper among item, ts"):
        read_interactions([_write(tmp_path, "item,ts\na,100\n")])


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Either events or the one error."""
    path = tmp_path_factory.mktemp("bytes") / "log.txt"
    path.write_bytes(data)
    try:
        (read,) = read_interactions([path])
    except BadInteractions:
        return
    assert len(read.log) > 0
    assert np.isfinite(read.log.weight).all()

"""Reads interactions from files in the layouts in which data sets are published."""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from infra.errors import Invalid
from workers.training.behaviour.interactions import Interactions


class BadInteractions(Invalid):
    """A file of interactions cannot be read; the detail names the line."""

    code = "bad_interactions"
    title = "The interactions cannot be read"


class Read(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a file holds. `log` numbers shoppers and items by their place in `shoppers` and `items`.

    `timed` is False where the layout has no times (then `ts` is the place in the file, so that order is kept);
    `dropped` counts rows left out, by reason.
    """

    log: Interactions
    shoppers: list[str]
    items: list[str]
    timed: bool
    dropped: dict[str, int]


_NAMES: Final = {
    kind: tuple(names.split())
    for kind, names in {
        "shopper": "user userid customer customerid shopper shopperid visitor visitorid household householdid "
        "reviewerid uid sessionid session",
        "item": "item itemid product productid stockcode asin parentasin movie movieid sku iid article articleid "
        "bookid isbn",
        "weight": "rating weight score overall stars",
        "quantity": "quantity qty",
        "ts": "timestamp ts time date datetime unixreviewtime transactiontimestamp createdat invoicedate tdat",
        "group": "basket basketid invoice invoiceno order orderid transactionid",
    }.items()
}
"""Usual names of columns, letters only, the surest first."""

_SEPARATORS: Final = ("::", "\t", ",", ";", "|")


def read_interactions(paths: Sequence[Path]) -> list[Read]:
    """Read files that share one numbering of shoppers and items, as the halves of a given split do.

    Understood are, told apart by looking: one event per line with any of tab, comma, semicolon, `|`, `::` or blanks
    between `user item [rating [timestamp]]`, with a header (columns found by their usual names, more columns allowed,
    quoted as in CSV) or without; and `user item item …` per line. Gzip is undone. Times are seconds or milliseconds
    since 1970, or ISO 8601 (UTC where no zone is given). Raises BadInteractions.
    """
    shoppers: dict[str, int] = {}
    items: dict[str, int] = {}
    groups: dict[str, int] = {}
    parts = [_read(path, shoppers, items, groups) for path in paths]
    return [
        Read(log=log, shoppers=list(shoppers), items=list(items), timed=timed, dropped=dropped)
        for log, timed, dropped in parts
    ]


def _read(
    path: Path, shoppers: dict[str, int], items: dict[str, int], groups: dict[str, int]
) -> tuple[Interactions, bool, dict[str, int]]:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise BadInteractions(f"{path.name} cannot be read: {error}.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "\0" in text:
        raise BadInteractions(f"{path.name} is not text: it has NUL characters.")
    sample = [line for line in text[:65_536].splitlines()[:200] if line.strip()]
    if not sample:
        raise BadInteractions(f"{path.name} is empty.")
    separator = next((mark for mark in _SEPARATORS if mark in sample[0]), None)
    first = _cells(sample[:1], separator, quoted=True)[0]
    columns = _header(first)
    lacking = {"shopper", "item"} - (columns or {}).keys()
    if columns and lacking:
        raise BadInteractions(
            f"{path.name} has no column for the {' and the '.join(sorted(lacking))} among {', '.join(first)}; "
            "name them `user` and `item`."
        )
    if not columns and _is_adjacency(sample, separator):
        return _adjacency(path.name, text, shoppers, items)
    return _events(path.name, text, separator, columns, shoppers, items, groups)


def _cells(lines: Iterable[str], separator: str | None, *, quoted: bool) -> list[list[str]]:
    return list(_rows(lines, separator, quoted=quoted))


def _rows(lines: Iterable[str], separator: str | None, *, quoted: bool) -> Iterator[list[str]]:
    if separator is None or separator == "::":
        for line in lines:
            yield line.strip().split(separator)
    else:
        yield from csv.reader(
            lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=False
        )


def _header(cells: Sequence[str]) -> dict[str, int]:
    """Which column holds what, where the first line is a header; empty where it is none."""
    # RecBole writes `user_id:token`.
    names = [re.sub(r"[^a-z]", "", cell.partition(":")[0].lower()) for cell in cells]
    found: dict[str, int] = {}
    for kind, known in _NAMES.items():
        places = [(known.index(name), place) for place, name in enumerate(names) if name in known]
        if places:
            found[kind] = min(places)[1]
    return {} if any(_is_number(cell) for cell in cells) else found


def _is_adjacency(sample: Sequence[str], separator: str | None) -> bool:
    """`user item item …`: lines of different lengths, or longer than any event."""
    if separator is not None and separator not in {"\t"}:
        return False
    sizes = {len(line.split()) for line in sample}
    return max(sizes) > 4 or len(sizes) > 1


def _adjacency(
    name: str, text: str, shoppers: dict[str, int], items: dict[str, int]
) -> tuple[Interactions, bool, dict[str, int]]:
    rows: list[int] = []
    columns: list[int] = []
    empty = 0
    for line in text.splitlines():
        cells = line.split()
        if not cells:
            continue
        shopper = shoppers.setdefault(cells[0], len(shoppers))
        empty += len(cells) == 1
        rows += [shopper] * (len(cells) - 1)
        columns += [items.setdefault(cell, len(items)) for cell in cells[1:]]
    if not rows:
        raise BadInteractions(f"{name} names shoppers but no items.")
    log = Interactions(
        shopper=np.array(rows, np.int64),
        item=np.array(columns, np.int32),
        weight=np.ones(len(rows), np.float32),
        ts=np.arange(len(rows), dtype=np.int64),
    )
    return log, False, {"shoppers without items": empty} if empty else {}


def _events(
    name: str,
    text: str,
    separator: str | None,
    header: dict[str, int],
    shoppers: dict[str, int],
    items: dict[str, int],
    groups: dict[str, int],
) -> tuple[Interactions, bool, dict[str, int]]:
    lines: Iterable[str] = io.StringIO(text)
    columns = header
    rows = _rows(lines, separator, quoted=bool(header))
    shopper: list[int] = []
    item: list[int] = []
    weight: list[float] = []
    ts: list[int] = []
    group: list[int] = []
    dropped: dict[str, int] = {}
    for number, cells in enumerate(rows, 1):
        if not cells or (number == 1 and header):
            continue
        if not columns:
            if len(cells) < 2:
                raise BadInteractions(f"{name}, line {number}: {len(cells)} column; user and item are needed.")
            columns = dict(zip(("shopper", "item", "weight", "ts"), range(len(cells)), strict=False))
            if number == 1 and len(cells) > 2 and not _is_number(cells[2]):
                continue  # a header with names of its own
        try:
            who, what = cells[columns["shopper"]].strip(), cells[columns["item"]].strip()
            value = _number(cells[columns["weight"]], "rating") if "weight" in columns else 1.0
            many = _number(cells[columns["quantity"]], "quantity") if "quantity" in columns else 1.0
            when = _seconds(cells[columns["ts"]]) if "ts" in columns else number
        except (IndexError, ValueError) as error:
            raise BadInteractions(f"{name}, line {number}: {_reason(error, cells)}.") from error
        reason = "no shopper" if not who else "no item" if not what else "returns" if many <= 0 else None
        if reason is not None:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        shopper.append(shoppers.setdefault(who, len(shoppers)))
        item.append(items.setdefault(what, len(items)))
        weight.append(value)
        ts.append(when)
        if "group" in columns:
            group.append(groups.setdefault(cells[columns["group"]], len(groups)))
    if not shopper:
        raise BadInteractions(f"{name} has no events.")
    log = Interactions(
        shopper=np.array(shopper, np.int64),
        item=np.array(item, np.int32),
        weight=np.array(weight, np.float32),
        ts=np.array(ts, np.int64),
        group=np.array(group, np.int64) if "group" in columns else None,
    )
    if not np.isfinite(log.weight).all():
        raise BadInteractions(f"{name} has a rating that is not a finite number.")
    return log, "ts" in columns, dropped


def _reason(error: Exception, cells: Sequence[str]) -> str:
    if isinstance(error, IndexError):
        return f"only {len(cells)} columns"
    return str(error)[:200]


def _number(cell: str, what: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(
            f"the {what} is {cell[:80]!r}, not a number; without a header the columns are user, item, rating, timestamp"
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _seconds(cell: str) -> int:
    """Seconds since 1970. Numbers above 10¹¹ are milliseconds. Raises ValueError."""
    try:
        number = float(cell)
    except ValueError:
        try:
            moment = datetime.fromisoformat(cell.strip())
        except ValueError:
            raise ValueError(f"{cell[:80]!r} is not a time; seconds since 1970 or ISO 8601 is") from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return int(moment.timestamp())
    if not abs(number) < 1e17:
        raise ValueError(f"{cell!r} is not a time")
    return int(number / 1000) if abs(number) > 1e11 else int(number)

"""What a feed reader yields: items, faults, and a report of what became of each column."""

from typing import Literal, get_args

from msgspec import Struct, field

FeedFormat = Literal["ndjson", "csv", "google_merchant", "shopify_csv", "woocommerce_csv", "yml"]
FORMATS: tuple[FeedFormat, ...] = get_args(FeedFormat)

MAX_RECORD_BYTES = 1_000_000
"""A line, CSV record, JSON element or XML element above this is skipped with a fault."""

MAX_COLUMNS_REPORTED = 1_000
"""A feed may invent a new key in every line, and the report must not grow with it."""


class FeedRow(Struct, frozen=True, kw_only=True):
    """One item of the feed, with API.md's field names and types.

    ``line`` is the 1-based line where the record begins. ``item`` is JSON-able: money is an integer in minor
    units, times are RFC 3339 with an offset. ``local_images`` holds the photo names that are not addresses, in
    the feed's order: relative paths with ``/``, without ``..``, to be looked up in the shop's own folder.
    """

    line: int
    item: dict[str, object]
    local_images: list[str] = field(default_factory=list)


class FeedFault(Struct, frozen=True, kw_only=True):
    """One thing wrong with the feed, told to the shop owner.

    ``severity`` is ``error`` where a row (or the rest of the feed) was not taken and ``warning`` where only a
    value was left out or cut. ``pointer`` is a JSON pointer (RFC 6901) to the column as the feed names it; it is empty
    where the fault is of the whole line. ``line`` is 1-based; 0 where the fault is of the whole file. ``item_id``
    names the row's item where the id could be read: a row that was refused still names its item, which a full import
    must not remove for it.
    """

    line: int
    code: str
    pointer: str
    message: str
    severity: Literal["error", "warning"]
    item_id: str | None = None


class ColumnUse(Struct, frozen=True, kw_only=True):
    """What became of one column: ``field`` names our field or attribute, ``reason`` says why it was dropped."""

    use: Literal["field", "attribute", "dropped"]
    field: str | None = None
    reason: str | None = None


class FeedReport(Struct, kw_only=True):
    """Counters that a reader keeps up to date while it runs, so a progress bar may read them at any time.

    ``rows`` counts the records that should have become an item: ``rows == converted + rejected`` always.
    ``warnings`` counts the faults of that severity, ``faults`` those of each code.
    """

    format: FeedFormat | None = None
    encoding: str | None = None
    delimiter: str | None = None
    rows: int = 0
    converted: int = 0
    rejected: int = 0
    warnings: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    columns: dict[str, ColumnUse] = field(default_factory=dict)

    def map(self, column: str, to_field: str) -> None:
        """Notes that ``column`` feeds our field ``to_field``."""
        self._note(column, ColumnUse(use="field", field=to_field))

    def keep(self, column: str, attribute: str) -> None:
        """Notes that ``column`` is kept as ``attributes[attribute]``."""
        self._note(column, ColumnUse(use="attribute", field=attribute))

    def drop(self, column: str, reason: str) -> bool:
        """Notes that ``column`` is not taken; true at its first mention, which is when to warn about it."""
        return self._note(column, ColumnUse(use="dropped", reason=reason))

    def count(self, fault: FeedFault) -> None:
        """Adds one fault to the counters."""
        self.faults[fault.code] = self.faults.get(fault.code, 0) + 1
        if fault.severity == "warning":
            self.warnings += 1

    def _note(self, column: str, use: ColumnUse) -> bool:
        column = column[:200]
        known = self.columns.get(column)
        if known is not None and known.use == use.use:
            return False
        if known is None and len(self.columns) >= MAX_COLUMNS_REPORTED:
            return False
        # A column that was of use in one row is not called dropped because of another.
        if known is None or known.use == "dropped":
            self.columns[column] = use
        return known is None


def pointer(column: str) -> str:
    """The JSON pointer of a top-level column name, cut to a length that is fit to show."""
    return "/" + column[:200].replace("~", "~0").replace("/", "~1") if column else ""


def error(line: int, code: str, message: str, column: str = "") -> FeedFault:
    """A fault that cost a row, or the rest of the feed."""
    return FeedFault(line=line, code=code, pointer=pointer(column), message=message, severity="error")


def warning(line: int, code: str, message: str, column: str = "") -> FeedFault:
    """A fault that cost a value, or its end, only."""
    return FeedFault(line=line, code=code, pointer=pointer(column), message=message, severity="warning")


def show(value: object) -> str:
    """A value as a fault may quote it: short, on one line, control characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'

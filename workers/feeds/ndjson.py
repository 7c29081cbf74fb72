"""JSON feeds: one object per line, or one array of objects (also inside an object)."""

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from workers.feeds.build import ItemBuilder, Raw, Style
from workers.feeds.encoding import UTF8_BOM, sniff_wide, to_utf8
from workers.feeds.fields import Plan, add_pair, plan_columns
from workers.feeds.json_array import ArrayElements
from workers.feeds.lines import BadLine, iter_lines
from workers.feeds.source import Source
from workers.feeds.types import MAX_RECORD_BYTES, FeedFault, FeedRow, error, warning

STYLE = Style(whole_numbers_are_minor=True)
MAX_PLANS = 512
MAX_TOLD = 1_000

_ARRAY = re.compile(rb"\s*\[")
_WRAPPED = re.compile(rb'\s*\{\s*"[^"\\]{1,100}"\s*:\s*\[\s*[\{\]]')
_DECIMAL_PRICE = re.compile(rb'"[^"]{0,20}price"\s*:\s*-?\d+(?:\.\d|[eE])')


def read_ndjson(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    """Items of a JSON feed.

    Money: a text, or a number where the beginning of the feed has prices with decimals, is in major units; else a
    whole number is in minor units, as the API writes it, and one with decimals in major units.
    """
    head = source.head.removeprefix(UTF8_BOM)
    wide, mark = sniff_wide(head)
    if wide is not None:
        head = head[mark:].decode(wide, "replace").encode()
    if _DECIMAL_PRICE.search(head):
        builder.style = msgspec.structs.replace(builder.style, whole_numbers_are_minor=False)
    reader = _Reader(builder)
    first_line = head.lstrip().split(b"\n", 1)[0]
    if _ARRAY.match(head):
        yield from reader.read_array(source, 1)
    elif _WRAPPED.match(head) and not _is_object(first_line):
        yield from reader.read_array(source, 2)
    else:
        yield from reader.read_lines(source)


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _Reader:
    def __init__(self, builder: ItemBuilder) -> None:
        self._builder = builder
        self._report = builder.report
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._told: set[str] = set()
        self._kept: set[str] = set()

    def read_lines(self, source: Source) -> Iterator[FeedRow | FeedFault]:
        number = 0
        for line in iter_lines(source, self._report, any_newline=False, guess=False):
            number += 1
            if isinstance(line, BadLine):
                yield self._builder.reject(error(number, line.code, line.message))
                continue
            if not line.strip():
                continue
            if not line.endswith("\n") and source.broken is not None:
                # Nobody knows how much of the last line is missing.
                return
            yield from self._record(number, line, cut=not line.endswith("\n"))

    def read_array(self, source: Source, depth: int) -> Iterator[FeedRow | FeedFault]:
        """The elements of the array that opens at nesting ``depth``."""
        wide, mark = sniff_wide(source.head)
        self._report.encoding = wide or "utf-8"
        blocks = source.blocks()
        if wide is not None:
            blocks = to_utf8(blocks, wide, mark)
        elements = ArrayElements(blocks, depth)
        for element in elements:
            if element.text is not None:
                yield from self._record(element.line, element.text, cut=False)
            elif element.too_large:
                yield self._builder.reject(
                    error(element.line, "record_too_large", f"The item is above {MAX_RECORD_BYTES:,} bytes.")
                )
            elif source.broken is None:
                yield self._builder.reject(
                    error(element.line, "malformed_json", "The item that begins here is never closed.")
                )
        if not elements.closed and source.broken is None:
            yield error(0, "truncated", "The file stops before its array is closed. Send it whole.")

    def _record(self, line: int, text: str | bytes, *, cut: bool) -> Iterator[FeedRow | FeedFault]:
        try:
            found = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            yield self._builder.reject(self._malformed(line, problem, cut=cut))
            return
        if not isinstance(found, dict):
            yield self._builder.reject(
                error(line, "not_an_object", 'The line is no JSON object; write one item as {"id": …} per line.')
            )
            return
        escaped = "\\u0000" in text if isinstance(text, str) else b"\\u0000" in text
        if escaped and (column := _nul_in(found)) is not None:
            yield self._builder.reject(
                error(line, "nul_byte", f'The column "{column}" holds a NUL character, which no text may have.', column)
            )
            return
        plan = self._plan(found)
        raw, dropped = self._raw(plan, list(found.values()))
        for index in dropped:
            column = tuple(found)[index]
            self._report.drop(column, "it holds objects, which no attribute can")
            if column not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(column)
                yield warning(
                    line,
                    "dropped_column",
                    f'The column "{column[:100]}" holds objects, which no attribute can; it is left out in all rows.',
                    column,
                )
        row, faults = self._builder.build(line, raw, plan.columns, size=len(text))
        yield from faults
        if row is not None:
            yield row

    def _malformed(self, line: int, problem: Exception, *, cut: bool) -> FeedFault:
        if cut:
            return error(line, "truncated", "The file stops within this line. Send it whole.")
        if isinstance(problem, UnicodeDecodeError):
            return error(line, "bad_encoding", "The line is not UTF-8; save the file as UTF-8.")
        if isinstance(problem, RecursionError):
            return error(line, "malformed_json", "The line nests too deeply.")
        return error(line, "malformed_json", f"The line is not valid JSON: {problem}.")

    def _plan(self, found: dict[str, object]) -> Plan:
        names = tuple(found)
        plan = self._plans.get(names)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[names] = plan_columns(names, self._report, note_attributes=False)
        return plan

    def _keep(self, name: str) -> None:
        if len(self._kept) < MAX_TOLD:
            self._kept.add(name)
            self._report.keep(name, name)

    def _raw(self, plan: Plan, values: Sequence[object]) -> tuple[Raw, list[int]]:
        """The values of one object by our fields, and the places of those that nothing can hold."""
        raw: Raw = {field: values[index] for index, field in plan.scalars}
        for index, field in plan.lists:
            value = values[index]
            if value is None or value == "":
                continue
            if field in raw:
                raw[field] = [*_listed(raw[field]), *_listed(value)]
            else:
                raw[field] = value
        attributes, dropped = self._attributes(plan, values)
        if attributes:
            raw["attributes"] = attributes
        if plan.prices:
            prices = {currency: value for index, currency in plan.prices if (value := values[index]) is not None}
            if prices:
                raw["prices"] = prices
        return raw, dropped

    def _attributes(self, plan: Plan, values: Sequence[object]) -> tuple[dict[str, object], list[int]]:
        attributes: dict[str, object] = {}
        dropped: list[int] = []
        for index, name in plan.attributes:
            value = values[index]
            if isinstance(value, dict):
                if not all(isinstance(part, _SCALARS) for part in value.values()):
                    dropped.append(index)
                    continue
                attributes.update({f"{name}.{key}": part for key, part in value.items()})
                self._keep(name)
            elif isinstance(value, list) and value and not any(isinstance(part, (str, int, float)) for part in value):
                dropped.append(index)
            else:
                attributes[name] = value
                if name not in self._kept:
                    self._keep(name)
        for index in plan.containers:
            value = values[index]
            if isinstance(value, dict):
                attributes.update(value)
            elif value is not None:
                dropped.append(index)
        for name_at, value_at in plan.pairs:
            add_pair(attributes, str(values[name_at] or ""), str(values[value_at] or ""))
        return attributes, dropped


_SCALARS = (str, int, float, bool, type(None))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _nul_in(value: object, name: str = "") -> str | None:
    """The first key below which a text holds a NUL."""
    if isinstance(value, str):
        return name if "\0" in value else None
    parts: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = (("", part) for part in value)
    for key, part in parts:
        if "\0" in key or (found := _nul_in(part, name or key)) is not None:
            return name or (key if "\0" in key else found or key)
    return None

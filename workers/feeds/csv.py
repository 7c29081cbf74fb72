"""Generic CSV: any header whose names are known or become attributes."""

from collections.abc import Iterator, Sequence

from workers.feeds.build import ItemBuilder, Raw, Style
from workers.feeds.delimited import DelimitedReader
from workers.feeds.fields import Plan, add_pair, plan_columns
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedRow, error

STYLE = Style()


def read_csv(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    """Items of a file with a header, one per record."""
    reader = DelimitedReader(source, builder.report)
    fault = reader.read_header()
    if fault is not None:
        yield fault
        return
    plan = plan_columns(reader.header, builder.report)
    if "id" not in plan.columns:
        yield missing_id_column(reader.header, "id, sku or product_id")
        return
    for record in reader.records():
        if isinstance(record, FeedFault):
            yield record
            continue
        line, cells = record
        row, faults = builder.build(line, raw_of(plan, cells), plan.columns, size=sum(map(len, cells)))
        yield from faults
        if row is not None:
            yield row


def missing_id_column(header: Sequence[str], wanted: str) -> FeedFault:
    """The fault of a file none of whose rows could be told apart."""
    shown = ", ".join(header[:20])[:300]
    return error(1, "missing_id_column", f"No column holds the items' ids; name one {wanted}. Columns seen: {shown}.")


def raw_of(plan: Plan, cells: Sequence[str]) -> Raw:
    """The cells of one record by our fields, blanks at their ends taken off."""
    raw: Raw = {}
    for index, field in plan.scalars:
        cell = cells[index].strip()
        if cell:
            raw[field] = cell
    for index, field in plan.lists:
        cell = cells[index].strip()
        if cell:
            before = raw.get(field)
            # Several columns of one list are joined by the separator that every list understands.
            raw[field] = f"{before}|{cell}" if before else cell
    attributes: dict[str, object] = {}
    for index, name in plan.attributes:
        cell = cells[index].strip()
        if cell:
            attributes[name] = cell
    for name_at, value_at in plan.pairs:
        add_pair(attributes, cells[name_at].strip(), cells[value_at].strip())
    if attributes:
        raw["attributes"] = attributes
    if plan.prices:
        prices = {currency: cell for index, currency in plan.prices if (cell := cells[index].strip())}
        if prices:
            raw["prices"] = prices
    return raw

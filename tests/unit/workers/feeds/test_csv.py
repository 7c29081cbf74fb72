"""Generic CSV: any header whose names are known or become attributes."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = st.text("abcäßжщ日本 09.-+!?()", max_size=12).map(lambda text: " ".join(text.split())).filter(bool)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"id": st.from_regex(r"[a-zA-Z0-9_:/.-]{1,40}", fullmatch=True)},
        optional={
            "group_id": st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True),
            "title": WORDS,
            "brand": WORDS,
            "price": st.integers(1, 10**9),
            "availability": st.sampled_from(["in_stock", "out_of_stock", "preorder", "backorder"]),
            "hidden": st.booleans(),
            "categories": st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" > ".join), min_size=1, unique=True),
            "tags": st.lists(WORDS, min_size=1, unique=True),
            "images": st.lists(
                st.integers(0, 999).map("https://cdn.example/{}.jpg".format), min_size=1, max_size=10, unique=True
            ),
            "attributes": st.fixed_dictionaries({"colour": WORDS}),
        },
    ),
    min_size=1,
    max_size=8,
)


def written(items: list[dict[str, Any]], delimiter: str, newline: str) -> str:
    names = [
        "id",
        "group_id",
        "title",
        "brand",
        "price",
        "availability",
        "hidden",
        "categories",
        "tags",
        "images",
        "colour",
    ]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for item in items:
        flat = {**item, **item.get("attributes", {})}
        for name in ("categories", "tags", "images"):
            if name in flat:
                flat[name] = "|".join(flat[name])
        if "price" in flat:
            flat["price"] = f"{flat['price'] / 100:.2f}"
        writer.writerow([flat.get(name, "") for name in names])
    return out.getvalue()


@settings(max_examples=30, deadline=None)
@given(
    ITEMS,
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_written_items_read_back(
    read: Callable[..., Any], items: list[dict[str, Any]], delimiter: str, newline: str, encoding: str
) -> None:
    """Items written as CSV are the same items when read, whatever the delimiter, line end and encoding."""
    reading = read(written(items, delimiter, newline).encode(encoding), "csv")
    expected = [{**item, "currency": "USD"} if "price" in item else item for item in items]
    assert reading.faults == []
    assert reading.items == expected


def test_columns_are_known_by_many_names(read: Callable[..., Any]) -> None:
    """Headers as shops write them, in any case, lead to our fields."""
    item = read(
        "SKU,Product Name,Цена,Vendor,Category,Image URL,Qty,Link\nA1,Lamp,19.90,Acme,Home/Lamps,a.jpg,3,https://s.example/a\n"
    ).item
    assert item == {
        "id": "A1",
        "title": "Lamp",
        "url": "https://s.example/a",
        "brand": "Acme",
        "categories": ["Home > Lamps"],
        "price": 1990,
        "currency": "USD",
        "availability": "in_stock",
    }


def test_photo_names_that_are_no_addresses_are_kept_apart(read: Callable[..., Any]) -> None:
    """Names of files are looked up in the shop's folder; only addresses are photos of the item."""
    (row,) = read("id,image 1,image 2,image 3\n1,b.jpg,https://cdn.example/x.jpg,./dir/a.jpg\n").rows
    assert row.item["images"] == ["https://cdn.example/x.jpg"]
    assert row.local_images == ["b.jpg", "dir/a.jpg"]


def test_a_photo_name_that_climbs_is_left_out(read: Callable[..., Any]) -> None:
    """A name with two points for a folder is dropped with a warning, the item stays."""
    reading = read("id,image\n1,../../etc/passwd\n")
    assert reading.ids == ["1"]
    assert reading.rows[0].local_images == []
    assert reading.codes == ["bad_photo"]


def test_several_photos_in_one_cell(read: Callable[..., Any]) -> None:
    """Commas part addresses only before another address."""
    item = read('id,images\n1,"https://c.example/a,b.jpg, https://c.example/c.jpg"\n').item
    assert item["images"] == ["https://c.example/a,b.jpg", "https://c.example/c.jpg"]


def test_the_eleventh_photo_is_left_out(read: Callable[..., Any]) -> None:
    """An item keeps its first ten photos, and a warning says how many went."""
    urls = "|".join(f"https://c.example/{n}.jpg" for n in range(11))
    reading = read(f"id,images\n1,{urls}\n")
    assert len(reading.item["images"]) == 10
    assert reading.codes == ["too_many_images"]


def test_unknown_columns_become_attributes(read: Callable[..., Any]) -> None:
    """A column that means nothing to us is kept under its own name, as text."""
    reading = read("id,Colour,Shoe size\n1,red,042\n2,,\n")
    assert reading.items == [{"id": "1", "attributes": {"Colour": "red", "Shoe size": "042"}}, {"id": "2"}]
    assert reading.report.columns["Colour"].use == "attribute"


def test_cost_never_leaves_the_feed(read: Callable[..., Any]) -> None:
    """What a shop pays is dropped, and the report says why."""
    reading = read("id,price,Cost price\n1,10,4\n")
    assert "attributes" not in reading.item
    assert reading.report.columns["Cost price"].use == "dropped"
    assert "own cost" in reading.report.columns["Cost price"].reason


def test_prices_by_currency_take_the_shops_own(read: Callable[..., Any]) -> None:
    """Of several price columns the tenant's currency is read."""
    item = read("id,Price EUR,Price USD\n1,9.50,11.00\n").item
    assert (item["price"], item["currency"]) == (1100, "USD")


def test_options_in_pairs_of_cells_become_attributes(read: Callable[..., Any]) -> None:
    """A name in one cell and its value in the next make an attribute."""
    item = read("id,Option 1 Name,Option 1 Value,Option 2 Name,Option 2 Value\n1,Size,L,,\n").item
    assert item["attributes"] == {"Size": "L"}


def test_rows_of_variants_are_grouped_by_product(read: Callable[..., Any]) -> None:
    """An export with a row per variant names the product's id as the group."""
    reading = read("Product Id,Variant Id,Product Title\np1,v1,Shirt\np1,v2,Shirt\n")
    assert [(item["id"], item["group_id"]) for item in reading.items] == [("v1", "p1"), ("v2", "p1")]


def test_a_draft_is_hidden(read: Callable[..., Any]) -> None:
    """A status column keeps unpublished products from shoppers."""
    reading = read("id,product status\n1,draft\n2,published\n")
    assert [item["hidden"] for item in reading.items] == [True, False]


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        ("1,abc,in stock,", "bad_price", "/price"),
        ("1,-5,in stock,", "bad_price", "/price"),
        ("1,9.99,perhaps,", "bad_availability", "/availability"),
        (",9.99,in stock,", "missing_id", "/id"),
        (f"{'x' * 129},9.99,in stock,", "bad_id", "/id"),
        ("1,9.99,in stock,maybe", "bad_boolean", "/hidden"),
    ],
)
def test_a_row_that_would_sell_wrongly_is_rejected(
    read: Callable[..., Any], cells: str, code: str, column: str
) -> None:
    """A bad id, price or availability costs its row, names line and column, and spares the next row."""
    reading = read(f"id,price,availability,hidden\n{cells}\n2,5,out of stock,no\n")
    assert reading.ids == ["2"]
    assert (reading.fault.code, reading.fault.pointer, reading.fault.line) == (code, column, 2)
    assert reading.fault.severity == "error"
    assert (reading.report.rows, reading.report.converted, reading.report.rejected) == (2, 1, 1)


def test_every_bad_value_of_a_row_is_named(read: Callable[..., Any]) -> None:
    """A shop mends a row once, not fault by fault."""
    reading = read("id,price,availability,gtin\n,x,perhaps,1\n")
    assert sorted(reading.codes) == ["bad_availability", "bad_gtin", "bad_price", "missing_id"]
    assert reading.report.rejected == 1


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("gtin", "123", "bad_gtin"),
        ("available_from", "soon", "bad_date"),
        ("expires_at", "01/02/2024", "bad_date"),
        ("url", "not a url", "bad_url"),
        ("language", "English!", "bad_language"),
        ("group_id", "x" * 200, "bad_id"),
    ],
)
def test_an_unreadable_optional_value_is_left_out(read: Callable[..., Any], column: str, value: str, code: str) -> None:
    """What no sale depends on is dropped with a warning."""
    reading = read(f"id,{column}\n1,{value}\n")
    assert reading.item == {"id": "1"}
    assert (reading.fault.code, reading.fault.severity, reading.fault.pointer) == (code, "warning", f"/{column}")
    assert reading.report.warnings == 1


def test_a_feed_without_ids_is_one_fault(read: Callable[..., Any]) -> None:
    """A million rows without an id are told once, with the columns seen."""
    reading = read("title,price\nLamp,1\nMug,2\n")
    assert reading.codes == ["missing_id_column"]
    assert "title, price" in reading.fault.message


def test_two_currencies_in_one_row_are_refused(read: Callable[..., Any]) -> None:
    """A price in euros in a row of dollars is a wrong price."""
    assert read("id,price,currency\n1,9.99 EUR,USD\n").codes == ["currency_conflict"]


def test_the_price_before_makes_a_sale(read: Callable[..., Any]) -> None:
    """A higher price before turns the price into the sale price."""
    item = read("id,price,old price\n1,8,10\n").item
    assert (item["price"], item["sale_price"]) == (1000, 800)


def test_a_sale_price_above_the_price_is_left_out(read: Callable[..., Any]) -> None:
    """A sale that costs more is a mistake; the price holds."""
    reading = read("id,price,sale price\n1,8,10\n")
    assert reading.item["price"] == 800
    assert "sale_price" not in reading.item
    assert reading.codes == ["sale_not_lower"]


def test_an_item_above_64_kb_is_rejected(read: Callable[..., Any]) -> None:
    """The API takes no item above 64 KB, so the feed gives none; an attribute is not cut for it."""
    reading = read(f"id,notes\n1,{'я' * 33_000}\n2,short\n")
    assert reading.ids == ["2"]
    assert reading.codes == ["item_too_large"]

"""WooCommerce's product export."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

from workers.feeds import woocommerce_csv

Read = Callable[..., Any]

HEADER = [
    "ID",
    "Type",
    "SKU",
    "Name",
    "Published",
    "Is featured?",
    "Visibility in catalog",
    "Short description",
    "Description",
    "Date sale price starts",
    "Date sale price ends",
    "In stock?",
    "Stock",
    "Backorders allowed?",
    "Sale price",
    "Regular price",
    "Categories",
    "Tags",
    "Images",
    "Parent",
    "Attribute 1 name",
    "Attribute 1 value(s)",
    "Attribute 1 visible",
    "Meta: _wpcom",
]


def woocommerce(*rows: dict[str, str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, HEADER, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


SIMPLE = {
    "ID": "44", "Type": "simple", "SKU": "woo-beanie", "Name": "Beanie", "Published": "1", "Is featured?": "0",
    "Visibility in catalog": "visible", "Short description": "Short.", "Description": "<p>Warm</p>\\nhat",
    "In stock?": "1", "Backorders allowed?": "0", "Sale price": "18", "Regular price": "20",
    "Categories": "Clothing, Clothing > Accessories", "Tags": "wool, winter",
    "Images": "https://s.example/a.jpg, https://s.example/b.jpg", "Attribute 1 name": "Colour",
    "Attribute 1 value(s)": "Red", "Attribute 1 visible": "1", "Meta: _wpcom": "x",
}  # fmt: skip
VARIABLE = {
    **SIMPLE,
    "ID": "50",
    "Type": "variable",
    "SKU": "hoodie",
    "Name": "Hoodie",
    "Sale price": "",
    "Regular price": "",
    "Attribute 1 value(s)": "Blue, Green\\, dark",
}
VARIATION = {
    "ID": "51",
    "Type": "variation",
    "SKU": "hoodie-blue",
    "Published": "1",
    "In stock?": "1",
    "Stock": "2",
    "Regular price": "45",
    "Parent": "id:50",
    "Attribute 1 name": "Colour",
    "Attribute 1 value(s)": "Blue",
}


def test_a_simple_product_is_mapped_field_by_field(read: Read) -> None:
    """WooCommerce's columns become ours; plugins' and shipping's do not travel."""
    reading = read(woocommerce(SIMPLE))
    assert reading.faults == []
    assert reading.item == {
        "id": "44",
        "title": "Beanie",
        "description": "Warm\nhat",
        "images": ["https://s.example/a.jpg", "https://s.example/b.jpg"],
        "categories": ["Clothing", "Clothing > Accessories"],
        "tags": ["wool", "winter"],
        "price": 2000,
        "currency": "USD",
        "sale_price": 1800,
        "availability": "in_stock",
        "hidden": False,
        "attributes": {"Colour": "Red"},
    }
    assert reading.report.format == "woocommerce_csv"
    assert reading.report.columns["Meta: _wpcom"].use == "dropped"


@pytest.mark.parametrize("parent", ["id:50", "hoodie"])
def test_a_variation_takes_from_its_parent_what_it_lacks(read: Read, parent: str) -> None:
    """Named by id or SKU, the parent lends title, texts, categories and photos, and gives the group."""
    first, second = read(woocommerce(VARIABLE, {**VARIATION, "Parent": parent})).items
    assert (first["id"], first["group_id"], first["attributes"]) == ("50", "50", {"Colour": ["Blue", "Green, dark"]})
    assert (second["id"], second["group_id"], second["title"]) == ("51", "50", "Hoodie")
    assert second["images"] == first["images"]
    assert second["attributes"] == {"Colour": "Blue"}
    assert second["price"] == 4500


def test_a_variation_of_an_unknown_parent_is_an_item(read: Read) -> None:
    """Its group is what it calls its parent."""
    assert read(woocommerce({**VARIATION, "Name": "Blue hoodie"})).item["group_id"] == "50"


def test_parents_are_remembered_within_bounds(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest parents are forgotten, so that a shop of any size fits into memory."""
    monkeypatch.setattr(woocommerce_csv, "PARENTS_CHARACTERS", 1000)
    parents = [{**VARIABLE, "ID": str(n), "SKU": f"s{n}", "Name": f"P{n}"} for n in range(20)]
    items = read(woocommerce(*parents, {**VARIATION, "Parent": "id:0"}, {**VARIATION, "Parent": "id:19"})).items
    assert "title" not in items[-2]
    assert items[-1]["title"] == "P19"


@pytest.mark.parametrize(
    ("change", "availability"),
    [
        ({"In stock?": "0"}, "out_of_stock"),
        ({"In stock?": "backorder"}, "backorder"),
        ({"In stock?": "1", "Stock": "0"}, "out_of_stock"),
        ({"In stock?": "1", "Stock": "-1", "Backorders allowed?": "notify"}, "backorder"),
        ({"In stock?": "1", "Stock": "parent"}, "in_stock"),
        ({"In stock?": "", "Stock": "7"}, "in_stock"),
        ({"In stock?": "", "Stock": ""}, None),
    ],
)
def test_stock_follows_its_three_columns(read: Read, change: dict[str, str], availability: str | None) -> None:
    """In stock?, Stock and Backorders allowed? make one word."""
    assert read(woocommerce({**SIMPLE, **change})).item.get("availability") == availability


@pytest.mark.parametrize(
    ("change", "hidden"),
    [({"Published": "0"}, True), ({"Published": "-1"}, True), ({"Visibility in catalog": "hidden"}, True), ({}, False)],
)
def test_what_the_shop_does_not_show_is_hidden(read: Read, change: dict[str, str], hidden: bool) -> None:
    """Private products, drafts and those hidden from the catalogue are hidden."""
    assert read(woocommerce({**SIMPLE, **change})).item["hidden"] is hidden


def test_a_sale_of_the_past_is_no_price(read: Read) -> None:
    """Sale dates are observed."""
    reading = read(woocommerce({**SIMPLE, "Date sale price ends": "2026-01-01"}))
    assert "sale_price" not in reading.item
    assert reading.codes == ["sale_not_running"]


def test_a_bad_stock_rejects_its_row(read: Read) -> None:
    """A word that means nothing is named with its column."""
    reading = read(woocommerce({**SIMPLE, "In stock?": "perhaps"}, {**SIMPLE, "ID": "45"}))
    assert reading.ids == ["45"]
    assert (reading.fault.code, reading.fault.pointer) == ("bad_availability", "/In stock?")

"""Shopify's product export."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

Read = Callable[..., Any]

HEADER = [
    "Handle",
    "Title",
    "Body (HTML)",
    "Vendor",
    "Type",
    "Tags",
    "Published",
    "Option1 Name",
    "Option1 Value",
    "Option2 Name",
    "Option2 Value",
    "Variant SKU",
    "Variant Inventory Tracker",
    "Variant Inventory Qty",
    "Variant Inventory Policy",
    "Variant Price",
    "Variant Compare At Price",
    "Variant Barcode",
    "Image Src",
    "Image Position",
    "Variant Image",
    "Status",
    "Product Category",
    "Cost per item",
    "Fabric (product.metafields.custom.fabric)",
]


def shopify(*rows: dict[str, str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, HEADER, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


FIRST = {
    "Handle": "t-shirt", "Title": "T-Shirt", "Body (HTML)": "<p>Soft &amp; warm</p>", "Vendor": "Acme",
    "Type": "Shirts", "Tags": "cotton, summer", "Published": "true", "Option1 Name": "Size", "Option1 Value": "S",
    "Option2 Name": "Colour", "Option2 Value": "Red", "Variant SKU": "TS-S",
    "Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "3",
    "Variant Inventory Policy": "deny", "Variant Price": "19.99", "Variant Compare At Price": "24.99",
    "Variant Barcode": "'4006381333931", "Image Src": "https://cdn.example/2.jpg", "Image Position": "2",
    "Status": "active", "Product Category": "Apparel > Shirts", "Cost per item": "3", HEADER[-1]: "cotton",
}  # fmt: skip
SECOND = {
    "Handle": "t-shirt", "Option1 Value": "M", "Option2 Value": "Blue", "Variant SKU": "TS-M",
    "Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "0", "Variant Inventory Policy": "continue",
    "Variant Price": "21.00", "Image Src": "https://cdn.example/1.jpg", "Image Position": "1",
    "Variant Image": "https://cdn.example/blue.jpg",
}  # fmt: skip
PHOTO = {"Handle": "t-shirt", "Image Src": "https://cdn.example/3.jpg", "Image Position": "3"}


def test_variants_share_what_stands_on_the_first_row(read: Read) -> None:
    """Each variant is an item with its own price, stock and options, grouped by the handle."""
    reading = read(shopify(FIRST, SECOND, PHOTO), currency="EUR")
    photos = [f"https://cdn.example/{n}.jpg" for n in (1, 2, 3)]
    common = {
        "group_id": "t-shirt",
        "title": "T-Shirt",
        "description": "Soft & warm",
        "url": "/products/t-shirt",
        "brand": "Acme",
        "categories": ["Apparel > Shirts", "Shirts"],
        "tags": ["cotton", "summer"],
        "currency": "EUR",
        "hidden": False,
    }
    assert reading.faults == []
    assert reading.items == [
        {
            **common,
            "id": "t-shirt/TS-S",
            "gtin": "4006381333931",
            "images": photos,
            "price": 2499,
            "sale_price": 1999,
            "availability": "in_stock",
            "attributes": {"Fabric": "cotton", "Size": "S", "Colour": "Red"},
        },
        {
            **common,
            "id": "t-shirt/TS-M",
            "images": ["https://cdn.example/blue.jpg", *photos],
            "price": 2100,
            "availability": "backorder",
            "attributes": {"Fabric": "cotton", "Size": "M", "Colour": "Blue"},
        },
    ]
    assert reading.report.columns["Cost per item"].use == "dropped"


def test_a_product_of_one_variant_is_known_by_its_handle(read: Read) -> None:
    """Without SKU and options the handle is the id."""
    row = {
        **FIRST,
        "Option1 Name": "Title",
        "Option1 Value": "Default Title",
        "Option2 Name": "",
        "Option2 Value": "",
        "Variant SKU": "",
    }
    item = read(shopify(row)).item
    assert item["id"] == "t-shirt"
    assert item["attributes"] == {"Fabric": "cotton"}


def test_variants_without_sku_are_told_apart_by_their_options(read: Read) -> None:
    """The option values stand in for the SKU."""
    ids = read(shopify({**FIRST, "Variant SKU": ""}, {**SECOND, "Variant SKU": ""})).ids
    assert ids == ["t-shirt/S Red", "t-shirt/M Blue"]


def test_long_options_make_an_id_of_128_characters(read: Read) -> None:
    """A long option is cut and told apart by a hash that stays the same."""
    rows = [{**FIRST, "Variant SKU": "", "Option1 Value": "x" * 200 + end} for end in "ab"]
    ids = read(shopify(*rows)).ids
    assert [len(i) for i in ids] == [128, 128]
    assert len(set(ids)) == 2
    assert ids == read(shopify(*rows)).ids


@pytest.mark.parametrize(
    ("change", "hidden"),
    [
        ({"Status": "draft"}, True),
        ({"Status": "archived"}, True),
        ({"Published": "false"}, True),
        ({"Status": ""}, False),
    ],
)
def test_what_the_shop_does_not_show_is_hidden(read: Read, change: dict[str, str], hidden: bool) -> None:
    """Drafts, archived and unpublished products are hidden."""
    assert read(shopify({**FIRST, **change})).item["hidden"] is hidden


@pytest.mark.parametrize(
    ("change", "availability"),
    [
        ({"Variant Inventory Qty": "0"}, "out_of_stock"),
        ({"Variant Inventory Qty": "-2"}, "out_of_stock"),
        ({"Variant Inventory Tracker": ""}, "in_stock"),
        ({"Variant Inventory Qty": ""}, None),
    ],
)
def test_stock_follows_quantity_and_policy(read: Read, change: dict[str, str], availability: str | None) -> None:
    """What is not tracked is in stock; an export without quantities does not say."""
    assert read(shopify({**FIRST, **change})).item.get("availability") == availability


def test_a_bad_variant_spares_its_siblings(read: Read) -> None:
    """The other variants of the product are items."""
    reading = read(shopify({**FIRST, "Variant Price": "free"}, SECOND))
    assert reading.ids == ["t-shirt/TS-M"]
    assert (reading.fault.code, reading.fault.line, reading.fault.pointer) == ("bad_price", 2, "/Variant Price")


def test_scattered_rows_of_a_product_are_warned_of(read: Read) -> None:
    """Rows that do not follow each other lose the title, and that is said."""
    other = {**FIRST, "Handle": "mug", "Variant SKU": "MUG"}
    reading = read(shopify(FIRST, other, SECOND))
    assert reading.ids == ["t-shirt/TS-S", "mug/MUG", "t-shirt/TS-M"]
    assert reading.codes == ["missing_title"]


def test_rows_without_a_handle_are_rejected(read: Read) -> None:
    """Nobody knows whose variant they are."""
    reading = read(shopify({**FIRST, "Handle": ""}, {**FIRST, "Handle": "mug"}))
    assert reading.ids == ["mug/TS-S"]
    assert reading.codes == ["missing_id"]


def test_the_present_template_is_read(read: Read) -> None:
    """Shopify renamed its columns; both templates are known."""
    reading = read(
        "URL handle,Title,Description,Vendor,SKU,Price,Compare-at price,Inventory quantity,Inventory tracker,"
        "Continue selling when out of stock,Product image URL,Option1 name,Option1 value\n"
        "mug,Mug,Blue,Acme,M1,5.00,,0,shopify,DENY,https://c.example/m.jpg,Size,L\n"
    )
    assert reading.report.format == "shopify_csv"
    assert reading.item["id"] == "mug/M1"
    assert reading.item["availability"] == "out_of_stock"
    assert reading.item["attributes"] == {"Size": "L"}

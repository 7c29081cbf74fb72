"""Google Merchant Center feeds."""

from collections.abc import Callable
from typing import Any

import pytest

Read = Callable[..., Any]

RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item>{}</item>
<item><g:id>last</g:id></item>
</channel></rss>"""

WATCH = """<g:id>w1</g:id><title>Analog watch</title><description>&lt;p&gt;Matte &amp;amp; black&lt;/p&gt;</description>
<link>https://shop.example/w?a=1&amp;b=2</link><g:price>105.29 USD</g:price><g:sale_price>99 USD</g:sale_price>
<g:availability>in stock</g:availability><g:image_link>https://shop.example/1.png</g:image_link>
<g:additional_image_link>https://shop.example/2.png</g:additional_image_link>
<g:additional_image_link>https://shop.example/3.png</g:additional_image_link>
<g:tax><g:country>US</g:country><g:rate>7.25</g:rate></g:tax>
<g:google_product_category>Apparel &amp; Accessories &gt; Watches</g:google_product_category>
<g:product_type>accessories &gt; watches</g:product_type><g:item_group_id>dz1</g:item_group_id>
<g:color>White&#47;Yellow</g:color><g:size>44mm</g:size><g:brand>Diesel</g:brand><g:gtin>4006381333931</g:gtin>
<g:product_detail><g:section_name>General</g:section_name><g:attribute_name>Strap</g:attribute_name>
<g:attribute_value>Silicone</g:attribute_value></g:product_detail><g:cost_of_goods_sold>20 USD</g:cost_of_goods_sold>"""


def test_an_rss_item_is_mapped_field_by_field(read: Read) -> None:
    """Google's names become ours; delivery, tax and cost do not travel."""
    reading = read(RSS.format(WATCH))
    assert reading.faults == []
    assert reading.items[0] == {
        "id": "w1",
        "group_id": "dz1",
        "title": "Analog watch",
        "description": "Matte & black",
        "url": "https://shop.example/w?a=1&b=2",
        "brand": "Diesel",
        "gtin": "4006381333931",
        "images": [f"https://shop.example/{n}.png" for n in (1, 2, 3)],
        "categories": ["accessories > watches", "Apparel & Accessories > Watches"],
        "price": 10529,
        "currency": "USD",
        "sale_price": 9900,
        "availability": "in_stock",
        "attributes": {"color": "White/Yellow", "size": "44mm", "Strap": "Silicone"},
    }
    assert reading.report.columns["g:tax"].use == "dropped"


def test_an_atom_entry_is_read(read: Read) -> None:
    """Atom gives the page's address in an attribute."""
    feed = (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><entry>'
        '<g:id>1</g:id><title>Lamp</title><link href="https://shop.example/1"/></entry></feed>'
    )
    assert read(feed).item == {"id": "1", "title": "Lamp", "url": "https://shop.example/1"}


@pytest.mark.parametrize(
    ("dates", "runs"),
    [
        ("2026-05-01T00:00-0800/2026-07-01T00:00-0800", True),
        ("2026-01-01T00:00Z/2026-02-01T00:00Z", False),
        ("2026-07-01T00:00Z/2026-08-01T00:00Z", False),
    ],
)
def test_a_sale_price_holds_within_its_dates(read: Read, dates: str, runs: bool) -> None:
    """A past or coming sale is no price of today."""
    item = (
        "<g:id>1</g:id><g:price>10 USD</g:price><g:sale_price>8 USD</g:sale_price>"
        f"<g:sale_price_effective_date>{dates}</g:sale_price_effective_date>"
    )
    reading = read(RSS.format(item))
    assert ("sale_price" in reading.items[0]) == runs
    assert reading.codes == ([] if runs else ["sale_not_running"])


def test_a_bad_price_rejects_its_item_only(read: Read) -> None:
    """The fault names line, tag and what to write."""
    reading = read(RSS.format("<g:id>1</g:id><g:price>a lot</g:price>"))
    assert reading.ids == ["last"]
    assert (reading.fault.code, reading.fault.line, reading.fault.pointer) == ("bad_price", 3, "/g:price")


def test_an_ampersand_left_bare_costs_its_item_only(read: Read) -> None:
    """The fault says how to write it."""
    reading = read(RSS.format("<g:id>1</g:id><title>Salt & pepper</title>"))
    assert reading.ids == ["last"]
    assert "&amp;" in reading.fault.message


def test_a_number_of_googles_taxonomy_is_no_category(read: Read) -> None:
    """A bare number is kept as an attribute."""
    item = read(RSS.format("<g:id>1</g:id><g:google_product_category>1604</g:google_product_category>")).items[0]
    assert item == {"id": "1", "attributes": {"google_product_category": "1604"}}


def test_control_characters_cost_their_item_only(read: Read) -> None:
    """A NUL in one item does not end the feed."""
    reading = read(RSS.format("<g:id>1</g:id><title>a\x00b</title>"))
    assert reading.ids == ["last"]
    assert reading.codes == ["nul_byte"]


def test_bytes_of_another_alphabet_cost_their_item_only(read: Read) -> None:
    """An item pasted from elsewhere is a fault of its own."""
    reading = read(RSS.format("<g:id>1</g:id><title>@</title>").encode().replace(b"@", b"\xcb\xe0"))
    assert reading.ids == ["last"]
    assert reading.codes == ["bad_encoding"]


def test_a_tab_separated_feed_is_read(read: Read) -> None:
    """Names with blanks, several photos in one cell and details in one cell are Google's own ways."""
    header = [
        "id",
        "title",
        "link",
        "image link",
        "additional image link",
        "price",
        "availability",
        "product detail",
        "shipping(country:price)",
    ]
    row = [
        "1",
        "Lamp",
        "https://s.example/1",
        "https://s.example/1.jpg",
        "https://s.example/2.jpg,https://s.example/3.jpg",
        "9.99 EUR",
        "out of stock",
        "General:Socket:E27",
        "US:0",
    ]
    reading = read("\t".join(header) + "\n" + "\t".join(row) + "\n")
    assert reading.report.format == "google_merchant"
    assert reading.item == {
        "id": "1",
        "title": "Lamp",
        "url": "https://s.example/1",
        "images": [f"https://s.example/{n}.jpg" for n in (1, 2, 3)],
        "currency": "EUR",
        "price": 999,
        "availability": "out_of_stock",
        "attributes": {"Socket": "E27"},
    }


def test_a_document_without_items_is_empty(read: Read) -> None:
    """A feed of no items is told, not taken in silence."""
    assert read('<rss xmlns:g="http://base.google.com/ns/1.0"><channel/></rss>').codes == ["empty_feed"]

"""Yandex YML."""

from collections.abc import Callable
from typing import Any

import pytest

Read = Callable[..., Any]

YML = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE yml_catalog SYSTEM "shops.dtd">
<yml_catalog date="2026-01-01"><shop><name>Магазин</name>
<currencies><currency id="RUR" rate="1"/></currencies>
<categories><category id="1">Все товары</category><category id="101" parentId="1">Электроника</category>
<category id="7" parentId="8">Кольцо</category><category id="8" parentId="7">Замкнуто</category></categories>
<offers>
<offer id="10" {attributes}>{offer}</offer>
<offer id="last"><name>Последний</name></offer>
</offers></shop></yml_catalog>"""


def yml(offer: str, attributes: str = "", encoding: str = "utf-8") -> bytes:
    return YML.format(offer=offer, attributes=attributes, encoding=encoding).encode(encoding)


LAMP = """<name>Умная лампочка</name><url>https://shop.example/l</url><price>1490</price><oldprice>1990</oldprice>
<currencyId>RUR</currencyId><categoryId>101</categoryId><vendor>Яндекс</vendor><vendorCode>YNDX-00017</vendorCode>
<picture>https://shop.example/1.jpeg</picture><picture>https://shop.example/2.jpeg</picture>
<description><![CDATA[<p>Умный свет</p><p>для дома & сада</p>]]></description><delivery>true</delivery>
<delivery-options><option cost="300" days="1"/></delivery-options><param name="Мощность" unit="Вт">4.8</param>
<param name="Цвет">белый</param><param name="Цвет">красный</param><barcode>4670028540947</barcode>
<condition type="preowned"><quality>good</quality></condition><purchase_price>900</purchase_price>"""


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251"])
def test_an_offer_is_mapped_field_by_field(read: Read, encoding: str) -> None:
    """Categories become paths, oldprice the price before, params attributes, RUR the rouble of today."""
    reading = read(yml(LAMP, 'available="false" group_id="g1"', encoding))
    assert reading.faults == []
    assert reading.items[0] == {
        "id": "10",
        "group_id": "g1",
        "title": "Умная лампочка",
        "description": "Умный свет\nдля дома & сада",
        "url": "https://shop.example/l",
        "brand": "Яндекс",
        "gtin": "4670028540947",
        "images": ["https://shop.example/1.jpeg", "https://shop.example/2.jpeg"],
        "categories": ["Все товары > Электроника"],
        "currency": "RUB",
        "price": 199000,
        "sale_price": 149000,
        "availability": "out_of_stock",
        "attributes": {
            "vendorCode": "YNDX-00017",
            "Мощность, Вт": 4.8,
            "Цвет": ["белый", "красный"],
            "condition": "preowned",
        },
    }


@pytest.mark.parametrize(
    ("parts", "title"),
    [
        ("<typePrefix>Лампа</typePrefix><vendor>Acme</vendor><model>E14</model>", "Лампа Acme E14"),
        ("<typePrefix>Лампа</typePrefix><vendor>Acme</vendor><model>Acme E14</model>", "Лампа Acme E14"),
        ("<vendor>Acme</vendor><model>E14</model><name>Имя</name>", "Имя"),
        ("<author>Толстой</author><title>Война и мир</title>", "Толстой: Война и мир"),
    ],
)
def test_a_title_is_put_together(read: Read, parts: str, title: str) -> None:
    """vendor.model offers have no name; their parts make one, the vendor only once."""
    assert read(yml(parts)).items[0]["title"] == title


def test_an_unknown_category_costs_no_offer(read: Read) -> None:
    """The offer is taken without it, and a warning names it."""
    reading = read(yml("<categoryId>999</categoryId>"))
    assert reading.ids == ["10", "last"]
    assert reading.codes == ["unknown_category"]


def test_a_ring_of_categories_ends(read: Read) -> None:
    """Two categories that are each other's parent make a path of two levels."""
    assert read(yml("<categoryId>7</categoryId>")).items[0]["categories"] == ["Замкнуто > Кольцо"]


def test_a_bad_price_rejects_its_offer_only(read: Read) -> None:
    """The other offers are items."""
    reading = read(yml("<price>дорого</price>"))
    assert reading.ids == ["last"]
    assert reading.codes == ["bad_price"]


def test_a_feed_that_stops_half_way_is_told_once(read: Read) -> None:
    """Offers before the break are items."""
    whole = yml(LAMP)
    reading = read(whole[: whole.index(b'<offer id="last">') + 30])
    assert reading.ids == ["10"]
    assert reading.codes == ["truncated"]


def test_a_hidden_offer_and_its_stock(read: Read) -> None:
    """disabled hides, and a count of zero is out of stock."""
    item = read(yml("<disabled>true</disabled><count>0</count>")).items[0]
    assert (item["hidden"], item["availability"]) == (True, "out_of_stock")


def test_a_catalogue_without_offers_is_empty(read: Read) -> None:
    """A file of categories only is told as empty."""
    assert read("<yml_catalog><shop><categories/></shop></yml_catalog>").codes == ["empty_feed"]

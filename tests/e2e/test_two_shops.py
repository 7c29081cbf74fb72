"""Two shops in one installation, from their feeds to their answers, with overlapping ids."""

import csv
import json
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image, ImageDraw

from tests.installation import Installation, Shop, ids

_COLOURS: Final = {"red": (196, 30, 36), "green": (24, 140, 70), "blue": (30, 70, 190), "yellow": (240, 200, 40)}
_SHAPES: Final = ("lamp", "mug", "bag")


def draw(shape: str, colour: str, *, inset: int = 0) -> bytes:
    """A JPEG of a plain thing on white."""
    image = Image.new("RGB", (160, 160), "white")
    pen = ImageDraw.Draw(image)
    fill = _COLOURS[colour]
    low, high = 20 + inset, 140 - inset
    if shape == "lamp":
        pen.polygon([(80, low), (low, 90), (high, 90)], fill=fill)
        pen.rectangle((74, 90, 86, high), fill=(90, 90, 90))
    elif shape == "mug":
        pen.rectangle((low, low + 10, high - 30, high), fill=fill)
        pen.ellipse((high - 45, 60, high, 110), outline=fill, width=10)
    else:
        pen.ellipse((50, low, 110, 90), outline=fill, width=6)
        pen.rounded_rectangle((low, 65, high, high), radius=12, fill=fill)
    out = BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def lamp_items() -> list[dict[str, Any]]:
    """Twelve things of the first shop: three kinds in four colours; the mugs are one group."""
    items = []
    for shape in _SHAPES:
        for colour in _COLOURS:
            number = len(items) + 1
            items.append(
                {
                    "id": str(number),
                    "title": f"{colour.title()} {shape} of the harbour workshop",
                    "description": f"A {shape} in {colour}, made by hand.",
                    "categories": [f"Home > {shape.title()}s"],
                    "brand": "Harbour" if number % 2 else "Quay",
                    "price": 1000 * number,
                    "language": "en",
                    "attributes": {"colour": colour},
                    "images": [f"photos/{number}.jpg"],
                    **({"group_id": "mug"} if shape == "mug" else {}),
                }
            )
    return items


_TEAS: Final = [
    ("1", "Чай чёрный с бергамотом", "Чай чёрный", 450),
    ("2", "Чай чёрный цейлонский крупнолистовой", "Чай чёрный", 520),
    ("3", "Чай зелёный с жасмином", "Чай зелёный", 610),
    ("4", "Чай зелёный молочный улун", "Чай зелёный", 780),
    ("5", "Кофе в зёрнах арабика", "Кофе", 990),
]


def write_yml(file: Path) -> None:
    """The second shop's feed, as Yandex has it."""
    names = list(dict.fromkeys(tea[2] for tea in _TEAS))
    categories = "".join(f'<category id="{i}">{name}</category>' for i, name in enumerate(names, 1))
    offers = "".join(
        f'<offer id="{i}" available="true"><name>{title}</name><price>{price}</price><currencyId>RUR</currencyId>'
        f"<categoryId>{names.index(category) + 1}</categoryId><vendor>Самовар</vendor></offer>"
        for i, title, category, price in _TEAS
    )
    file.write_text(
        f'<?xml version="1.0" encoding="windows-1251"?><yml_catalog date="2026-01-15 12:00"><shop><name>Самовар</name>'
        f"<categories>{categories}</categories><offers>{offers}</offers></shop></yml_catalog>",
        encoding="windows-1251",
    )


class Shops:
    """The two shops, loaded and encoded."""

    def __init__(self, harbour: Shop, samovar: Shop) -> None:
        self.harbour = harbour
        self.samovar = samovar


@pytest.fixture(scope="module")
def shops(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    """A shop of NDJSON with photos of its own, and a shop of YML in windows-1251 that a CSV adds to."""
    folder = tmp_path_factory.mktemp("feeds")
    (folder / "photos").mkdir()
    feed = folder / "items.jsonl"
    with feed.open("w") as lines:
        for item in lamp_items():
            shape, colour = item["title"].split()[1], item["attributes"]["colour"]
            (folder / item["images"][0]).write_bytes(draw(shape, colour))
            lines.write(json.dumps(item) + "\n")
    write_yml(folder / "shop.yml")
    with (folder / "more.csv").open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerows([["id", "название", "цена", "Вес"], ["6", "Кофе молотый робуста", "12,50", "250 г"]])

    harbour = installation.make_shop("harbour")
    samovar = installation.make_shop("samovar", "--currency", "RUB")
    load = ("import", "--server", installation.url, "--key")
    installation.kindred(*load, harbour.secret_key, str(feed), "--images-dir", str(folder))
    installation.kindred(*load, samovar.secret_key, str(folder / "shop.yml"))
    installation.kindred(*load, samovar.secret_key, str(folder / "more.csv"))
    harbour.wait_until_encoded()
    samovar.wait_until_encoded()
    yield Shops(harbour, samovar)
    harbour.client.close()
    samovar.client.close()


def test_one_id_means_each_shop_s_own_item(shops: Shops) -> None:
    """The ids 1 to 6 exist in both shops, with nothing in common."""
    for item in lamp_items()[:6]:
        assert shops.harbour.item(item["id"])["title"] == item["title"]
    for tea, title, category, price in _TEAS:
        shown = shops.samovar.item(tea)
        assert (shown["title"], shown["categories"], shown["price"]) == (title, [category], price * 100)


def test_a_csv_adds_to_what_another_feed_brought(shops: Shops) -> None:
    """Decimal comma, Russian names of columns, a byte order mark: the row is an item, the unknown column kept."""
    shown = shops.samovar.item("6")
    assert (shown["title"], shown["price"]) == ("Кофе молотый робуста", 1250)
    assert shown["attributes"] == {"Вес": "250 г"}


def test_everything_is_encoded(shops: Shops) -> None:
    """Every text and every photo is done; a shop without photos has them absent, not failed."""
    harbour = shops.harbour.wait_until_encoded()
    assert (harbour["text"]["done"], harbour["image"]["done"]) == (12, 12)
    samovar = shops.samovar.wait_until_encoded()
    assert (samovar["text"]["done"], samovar["image"]["absent"]) == (6, 6)


def test_similar_items_are_of_the_same_kind(shops: Shops) -> None:
    """Nothing but texts and photos is known, and the lamps come first for a lamp."""
    answer = shops.harbour.recommend(strategy="similar", item_ids=["1"], count=3)
    assert set(ids(answer)) == {"2", "3", "4"}
    assert not answer["fallback_used"]


def test_similar_works_in_a_language_that_the_text_pack_does_not_cover(shops: Shops) -> None:
    """A black tea for a black tea, in Russian, without one photo."""
    assert ids(shops.samovar.recommend(strategy="similar", item_ids=["1"], count=1)) == ["2"]
    assert ids(shops.samovar.recommend(strategy="similar", item_ids=["3"], count=1)) == ["4"]


def test_looks_similar_is_by_the_photo_alone(shops: Shops) -> None:
    """The nearest look of a red bag is a bag or red; never a lamp in another colour, however it is described."""
    answer = shops.harbour.recommend(strategy="visually_similar", item_ids=["9"], count=1)
    assert answer["items"][0]["id"] in {"1", "5", "10", "11", "12"}
    assert answer["items"][0]["source"] == "visually_similar"


def test_the_newest_come_first(shops: Shops) -> None:
    """`new`, the answer to having nothing to go by."""
    assert ids(shops.samovar.recommend(strategy="new", count=1)) == ["6"]


def test_nothing_of_another_shop_is_ever_in_a_list(shops: Shops) -> None:
    """A list longer than the shop holds the shop and no more."""
    listed = ids(shops.samovar.recommend(strategy="similar", item_ids=["1"], count=100))
    assert sorted(listed) == ["2", "3", "4", "5", "6"]
    found = shops.samovar.search(query="lamp", count=100, fields=["title"])
    assert not any("lamp" in item["fields"]["title"] for item in found["items"])


def test_search_by_words(shops: Shops) -> None:
    """An item's own title finds it first, in each shop's language."""
    assert ids(shops.harbour.search(query="green bag of the harbour workshop", count=1)) == ["10"]
    assert ids(shops.samovar.search(query="зелёный чай с жасмином", count=1)) == ["3"]
    assert not shops.harbour.search(query="something warm to read by", count=1)["fallback_used"]


def test_search_by_photo(shops: Shops) -> None:
    """Another photo of the same thing, in base64, finds the thing."""
    photo = b64encode(draw("bag", "blue", inset=4)).decode()
    answer = shops.harbour.search(image=photo, count=3)
    assert answer["items"][0]["id"] == "11"


def test_of_one_group_one_is_shown(shops: Shops) -> None:
    """The four mugs are variants of one product, and its seed's group is not recommended to itself."""
    listed = ids(shops.harbour.recommend(strategy="new", count=100))
    assert len(set(listed) & {"5", "6", "7", "8"}) == 1
    assert len(listed) == 9
    assert not set(ids(shops.harbour.recommend(strategy="similar", item_ids=["5"], count=100))) & {"5", "6", "7", "8"}


def test_a_filter_keeps_the_list_full(shops: Shops) -> None:
    """As many items as match, each of which matches."""
    tree = {"and": [{"lte": ["price", 9000]}, {"eq": ["attributes.colour", "red"]}]}
    answer = shops.harbour.recommend(strategy="similar", item_ids=["2"], filter=tree, count=10, fallback="none")
    assert sorted(ids(answer)) == ["1", "5", "9"]


def test_max_per_and_fields(shops: Shops) -> None:
    """One item a brand, and of each only what was asked for."""
    asked = ["brand", "price", "attributes.colour"]
    answer = shops.harbour.recommend(strategy="similar", item_ids=["1"], max_per={"brand": 1}, fields=asked, count=10)
    assert sorted(item["fields"]["brand"] for item in answer["items"]) == ["Harbour", "Quay"]
    assert all(set(item["fields"]) <= {"brand", "price", "attributes", "attributes.colour"} for item in answer["items"])


def test_the_parts_of_a_score_add_up(shops: Shops) -> None:
    """`explain` says how much the text and the photo gave."""
    answer = shops.harbour.recommend(strategy="similar", item_ids=["1"], explain=True, count=3)
    for item in answer["items"]:
        parts = item["explain"]
        assert item["score"] == pytest.approx(parts["text"] + parts["image"], abs=2e-3)


def test_pages_repeat_nothing_and_leave_nothing_out(shops: Shops) -> None:
    """The cursor leads through the whole list."""
    seen: list[str] = []
    cursor = None
    while True:
        page = {"cursor": cursor} if cursor else {}
        answer = shops.harbour.recommend(strategy="similar", item_ids=["1"], count=4, **page)
        seen += ids(answer)
        cursor = answer.get("cursor")
        if not cursor:
            break
    whole = ids(shops.harbour.recommend(strategy="similar", item_ids=["1"], count=100))
    assert sorted(seen) == sorted(whole)
    assert len(seen) == len(set(seen))


def test_a_change_is_in_the_next_answer(shops: Shops) -> None:
    """Price, hidden, back again, deleted: each is seen by the answer that follows it."""
    shop = shops.harbour
    shop.client.put("/v1/items/passing", json={"title": "Copper kettle", "price": 5000}).raise_for_status()

    def kettle() -> list[Any]:
        answer = shop.search(query="copper kettle", fields=["title", "price"])
        return [item["fields"]["price"] for item in answer["items"] if item["id"] == "passing"]

    assert kettle() == [5000]
    shop.client.patch("/v1/items/passing", json={"price": 4000}).raise_for_status()
    assert kettle() == [4000]
    shop.client.patch("/v1/items/passing", json={"hidden": True}).raise_for_status()
    assert kettle() == []
    shop.client.patch("/v1/items/passing", json={"hidden": None, "availability": "out_of_stock"}).raise_for_status()
    assert kettle() == []
    shop.client.patch("/v1/items/passing", json={"availability": "in_stock"}).raise_for_status()
    assert kettle() == [4000]
    shop.client.delete("/v1/items/passing").raise_for_status()
    assert kettle() == []


def test_a_key_opens_its_own_shop_only(installation: Installation, shops: Shops) -> None:
    """The publishable key may recommend, and read nothing else."""
    headers = {"Authorization": f"Bearer {shops.samovar.publishable_key}"}
    answer = shops.harbour.client.post("/v1/recommend", headers=headers, json={"strategy": "new", "fields": ["brand"]})
    assert {item["fields"].get("brand") for item in answer.json()["items"]} <= {"Самовар", None}
    assert shops.harbour.client.get("/v1/items/1", headers=headers).status_code == 403

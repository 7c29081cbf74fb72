import io
import itertools
from collections import Counter

import pytest
from PIL import Image

from infra.demo.catalogue import SELLERS, Planned, demo_items, plan

FIELDS = {
    "id", "group_id", "title", "description", "url", "categories", "brand", "seller_id", "price", "sale_price",
    "currency", "availability", "language", "tags", "attributes",
}  # fmt: skip


@pytest.fixture(scope="module")
def products() -> list[Planned]:
    return plan()


def test_the_shop_has_at_least_320_products(products: list[Planned]) -> None:
    """The demo is large enough to look like a shop, and every id is used once."""
    ids = [product.item["id"] for product in products]
    assert len(ids) >= 320
    assert len(set(ids)) == len(ids)


def test_every_language_has_a_fair_share(products: list[Planned]) -> None:
    """Five languages, none of them a token one."""
    counts = Counter(product.item["language"] for product in products)
    assert set(counts) == {"en", "de", "fr", "es", "ru"}
    assert min(counts.values()) >= 40


def test_every_seller_sells_in_its_own_language(products: list[Planned]) -> None:
    """A seller's items are all in the seller's language, and each seller has some."""
    languages = {seller.id: seller.language for seller in SELLERS}
    assert {str(product.item["seller_id"]) for product in products} == set(languages)
    assert all(languages[str(product.item["seller_id"])] == product.item["language"] for product in products)


def test_items_keep_the_limits_of_the_api(products: list[Planned]) -> None:
    """Every item has only known fields, with the types and bounds that the API accepts."""
    for item in (product.item for product in products):
        assert set(item) <= FIELDS
        assert isinstance(item["id"], str)
        assert 1 <= len(item["id"]) <= 128
        assert item["id"].isprintable()
        assert isinstance(item["title"], str)
        assert 0 < len(item["title"]) <= 200
        assert isinstance(item["price"], int)
        assert item["price"] > 0
        sale = item.get("sale_price")
        assert sale is None or (isinstance(sale, int) and 0 < sale < item["price"])
        assert item["currency"] == "EUR"
        assert item["availability"] in ("in_stock", "out_of_stock", "preorder")


def test_texts_are_whole_sentences(products: list[Planned]) -> None:
    """No template hole, doubled blank or lower-case start is left in a title or description."""
    for item in (product.item for product in products):
        title, description = str(item["title"]), str(item["description"])
        assert title[0].isupper()
        assert description.endswith(".")
        for text in (title, description):
            assert "{" not in text
            assert "_" not in text
            assert "  " not in text
            assert " ," not in text


def test_some_items_are_on_sale_sold_out_or_in_groups(products: list[Planned]) -> None:
    """The shop has the cases that filters, badges and grouping need."""
    items = [product.item for product in products]
    assert sum("sale_price" in item for item in items) >= 20
    assert 3 <= sum(item["availability"] == "out_of_stock" for item in items) <= 30
    groups = Counter(item["group_id"] for item in items if "group_id" in item)
    assert len(groups) >= 20
    assert min(groups.values()) >= 2


def test_variants_of_a_group_differ_in_colour_only(products: list[Planned]) -> None:
    """One group is one design in several colours."""
    groups: dict[object, list[Planned]] = {}
    for product in products:
        if "group_id" in product.item:
            groups.setdefault(product.item["group_id"], []).append(product)
    for members in groups.values():
        assert len({member.look.colour for member in members}) == len(members)
        assert len({(m.look.kind, m.look.cut, m.look.pattern, m.look.material) for m in members}) == 1


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Texts and photos are a function of the seed."""
    first, second = (list(itertools.islice(demo_items(7), 12)) for _ in range(2))
    assert first == second


def test_another_seed_gives_another_shop() -> None:
    """The seed matters."""
    assert [p.item for p in plan(1)] != [p.item for p in plan(2)]


def test_photos_decode_and_report_progress() -> None:
    """Every kind's photos are RGB JPEGs of 384 x 384, and progress counts the products."""
    seen: list[tuple[int, int]] = []
    products = list(itertools.islice(demo_items(progress=lambda done, total: seen.append((done, total))), 40))
    assert [done for done, _ in seen] == list(range(1, 40))
    assert any(len(product.photos) == 2 for product in products)
    for photo in (photo for product in products for photo in product.photos):
        image = Image.open(io.BytesIO(photo))
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (384, 384))

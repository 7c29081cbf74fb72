"""Which of our fields a column means, by the names that shops give their columns."""

import re
from collections.abc import Sequence

from msgspec import Struct

from workers.feeds.types import FeedReport

# Best name first: where several columns mean one field, the first of these is taken and the others are kept as
# attributes. Names are compared in lower case with everything but letters and digits taken as one space.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "id": ("id", "item id", "variant id", "offer id", "variant sku", "product id", "sku", "product sku", "article",
           "article number", "product code", "code", "артикул", "код", "uuid", "asin", "handle", "product handle"),
    "group_id": ("group id", "item group id", "parent id", "parent sku", "parent", "variant group",
                 "product group id"),
    "title": ("title", "product title", "name", "product name", "item name", "название", "наименование",
              "nombre", "titulo", "título", "nama", "nom", "bezeichnung"),
    "description": ("description", "product description", "long description", "body html", "body",
                    "full description", "описание", "descripcion", "descripción", "deskripsi", "beschreibung",
                    "short description"),
    "url": ("url", "link", "product url", "product link", "item url", "page url", "deeplink", "permalink", "ссылка"),
    "brand": ("brand", "brand name", "vendor", "manufacturer", "producer", "бренд", "производитель", "marca", "merk"),
    "seller_id": ("seller id", "seller", "merchant id", "shop id", "store id", "external seller id", "продавец"),
    "price": ("price", "regular price", "product price", "unit price", "variant price", "price amount", "amount",
              "цена", "precio", "preço", "harga", "prix", "preis"),
    "sale_price": ("sale price", "special price", "discount price", "discounted price", "promo price",
                   "цена со скидкой"),
    "compare_at": ("compare at price", "variant compare at price", "old price", "oldprice", "list price", "msrp",
                   "rrp", "original price", "was price", "старая цена"),
    "currency": ("currency", "currency code", "price currency", "currency id", "валюта", "moneda"),
    "availability": ("availability", "in stock", "stock status", "available", "is available", "is in stock",
                     "наличие", "disponibilidad"),
    "quantity": ("quantity", "qty", "stock", "stock quantity", "stock qty", "inventory", "inventory quantity",
                 "variant inventory qty", "variant inventory quantity", "количество", "остаток", "stok"),
    "gtin": ("gtin", "ean", "ean13", "barcode", "upc", "isbn", "gtin13", "gtin12", "gtin14", "variant ean",
             "variant upc", "variant barcode", "штрихкод", "штрих код"),
    "language": ("language", "lang", "locale", "content language"),
    "available_from": ("available from", "publish at", "published at", "start date", "available date"),
    "expires_at": ("expires at", "expiration date", "expiry date", "valid until", "end date"),
    "hidden": ("hidden", "is hidden", "disabled"),
    "published": ("published", "is published", "visible", "enabled", "is visible", "is active", "active",
                  "product status"),
    "prices": ("prices",),
    "sale_from": ("sale price from", "sale start", "special price from", "special from date"),
    "sale_until": ("sale price until", "sale end", "special price to", "special to date"),
}  # fmt: skip
LISTS: dict[str, tuple[str, ...]] = {
    "images": ("image", "image url", "image link", "main image", "thumbnail", "product thumbnail", "picture",
               "picture url", "photo", "image src", "img", "base image", "фото", "картинка", "imagen", "gambar",
               "images", "image urls", "pictures", "photos", "photo urls", "additional images",
               "additional image link", "additional image urls", "gallery", "product image", "изображение",
               "изображения"),
    "categories": ("categories", "category", "category path", "product category", "product type path", "category name",
                   "категория", "категории", "categoria", "categoría", "kategori", "catégorie"),
    "tags": ("tags", "tag", "labels", "keywords", "product tags", "product tag", "теги", "метки"),
}  # fmt: skip
PRIVATE = frozenset((
    "cost", "cost price", "cost per item", "purchase price", "wholesale price", "supplier price", "margin", "markup",
    "cost of goods sold", "cofinance price", "additional expenses", "закупочная цена", "себестоимость",
))  # fmt: skip
"""What a shop pays is nobody's business, least of all a shopper's browser's."""

_SHOWN_AS = {
    "compare_at": "price", "prices": "price", "quantity": "availability", "published": "hidden",
    "sale_from": "sale_price", "sale_until": "sale_price",
}  # fmt: skip
MAX_NAME_CHARACTERS = 200
WHY_PRIVATE = "it is the shop's own cost, which must not reach shoppers"

_SCALARS = {name: (field, rank) for field, names in SYNONYMS.items() for rank, name in enumerate(names)}
_LISTS = {name: (field, rank) for field, names in LISTS.items() for rank, name in enumerate(names)}
_NOT_WORDS = re.compile(r"[\W_]+")
_PRICED = re.compile(r"(.*\bprice|цена)\s([a-z]{3})")
_NUMBERED = re.compile(r"(.*?)\s?\d{1,3}(?:\surl)?")
_OPTION = re.compile(r"(.*\b(?:option|attribute|property))\s?(\d{1,3})\s(name|value)s?")
_ATTRIBUTE_PREFIX = re.compile(r"(?:attributes?|attr|params?|param|property)\s*[.:/\[]\s*(.+?)\]?", re.IGNORECASE)


class Plan(Struct, frozen=True, kw_only=True):
    """Where each column of one header goes, as positions in the record."""

    scalars: list[tuple[int, str]]
    lists: list[tuple[int, str]]
    attributes: list[tuple[int, str]]
    pairs: list[tuple[int, int]]
    """Positions of an attribute's name and value that travel in two cells."""
    containers: list[int]
    """Columns that hold attributes by name (JSON feeds)."""
    prices: list[tuple[int, str]]
    """Prices by currency."""
    columns: dict[str, str]
    """Our field -> the feed's name for it."""


def normalised(name: str) -> str:
    """A column's name in lower case, its words parted by one space."""
    return _NOT_WORDS.sub(" ", name.casefold()).strip()


def plan_columns(names: Sequence[str], report: FeedReport, *, note_attributes: bool = True) -> Plan:
    """Finds our fields in a header, and notes in ``report`` what becomes of every column.

    A name that is no synonym of ours becomes an attribute. Numbered names (``Image 2``, ``Option 1 Name``), prices by
    currency (``Price USD``) and ``attributes.colour`` are understood. The second column of one name is not taken.
    Without ``note_attributes`` the caller notes those, where only the values tell whether they can be kept.
    """
    plan = Plan(scalars=[], lists=[], attributes=[], pairs=[], containers=[], prices=[], columns={})
    words = [normalised(name) for name in names]
    chosen = _choose(words)
    ranked: dict[str, list[tuple[int, int]]] = {}
    options: dict[tuple[str, str], dict[str, int]] = {}
    seen: set[str] = set()
    for index, (name, word) in enumerate(zip(names, words, strict=True)):
        why_not = _why_not(name, word, seen)
        if why_not is not None:
            report.drop(name, why_not)
            continue
        seen.add(word)
        field = chosen.get(index)
        listed = _list_field(word)
        if field is not None:
            plan.scalars.append((index, field))
            plan.columns[field] = name
            report.map(name, _SHOWN_AS.get(field, field))
        elif listed is not None:
            ranked.setdefault(listed[0], []).append((listed[1], index))
            plan.columns.setdefault(listed[0], name)
            report.map(name, listed[0])
        elif option := _OPTION.fullmatch(word):
            options.setdefault((option[1], option[2]), {})[option[3]] = index
        elif priced := _PRICED.fullmatch(word):
            plan.prices.append((index, priced[2].upper()))
            plan.columns.setdefault("price", name)
            report.map(name, "price")
        elif word in {"attributes", "attrs", "params", "properties", "options"}:
            plan.containers.append(index)
            report.map(name, "attributes")
        else:
            prefixed = _ATTRIBUTE_PREFIX.fullmatch(name.strip())
            attribute = prefixed[1] if prefixed else name.strip()
            plan.attributes.append((index, attribute))
            if note_attributes:
                report.keep(name, attribute)
    for field, places in ranked.items():
        plan.lists.extend((index, field) for _, index in sorted(places))
    for halves in options.values():
        _pair(plan, halves, names, report)
    return plan


def _why_not(name: str, word: str, seen: set[str]) -> str | None:
    if not word:
        return "it has no name"
    if word in PRIVATE:
        return WHY_PRIVATE
    if len(name) > MAX_NAME_CHARACTERS:
        return "its name is too long"
    return "another column has the same name" if word in seen else None


def _choose(words: Sequence[str]) -> dict[int, str]:
    """Column -> field for the fields that take one column, the best name first."""
    best: dict[str, tuple[int, int]] = {}
    for index, word in enumerate(words):
        found = _SCALARS.get(word)
        if found is not None and (found[0] not in best or found[1] < best[found[0]][0]):
            best[found[0]] = (found[1], index)
    chosen = {index: field for field, (_, index) in best.items()}
    # Exports with one row per variant name the product as well: that is the group.
    by_variant = "id" in best and words[best["id"][1]] in {"variant id", "variant sku"}
    if by_variant and "group_id" not in best:
        for name in ("product id", "product handle", "handle"):
            if name in words:
                chosen[words.index(name)] = "group_id"
                break
    return chosen


def _list_field(word: str) -> tuple[str, int] | None:
    found = _LISTS.get(word)
    if found is not None:
        return found
    numbered = _NUMBERED.fullmatch(word)
    return _LISTS.get(numbered[1]) if numbered else None


def _pair(plan: Plan, halves: dict[str, int], names: Sequence[str], report: FeedReport) -> None:
    value = halves.get("value")
    name = halves.get("name")
    if value is None or name is None:
        for index in halves.values():
            plan.attributes.append((index, names[index].strip()))
            report.keep(names[index], names[index].strip())
        return
    plan.pairs.append((name, value))
    for index in (name, value):
        report.map(names[index], "attributes")


def add_pair(attributes: dict[str, object], name: str, value: str) -> None:
    """Adds an attribute whose name is in the data; a name that occurs again makes a list."""
    if not name or not value:
        return
    before = attributes.get(name)
    if before is None:
        attributes[name] = value
    elif isinstance(before, list):
        before.append(value)
    elif before != value:
        attributes[name] = [before, value]

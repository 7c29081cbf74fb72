"""HTML of a product description as the text that a shopper would read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.feeds.html import html_to_text


def test_paragraphs_and_items_become_lines() -> None:
    """What a browser would break, breaks."""
    assert html_to_text("<p>One <b>two</b></p><ul><li>three</li><li>four</li></ul>") == "One two\nthree\nfour"


def test_scripts_and_styles_are_not_text() -> None:
    """What a shopper never sees is left out."""
    assert html_to_text("<style>p{}</style>Shown<script>var a = '<p>'</script>") == "Shown"


def test_entities_become_characters() -> None:
    """Named and numbered references are undone once."""
    assert html_to_text("5&nbsp;&lt;&nbsp;6 &#8364; &amp;amp;") == "5 < 6 € &amp;"


def test_table_cells_are_parted_by_a_blank() -> None:
    """A size table stays readable."""
    assert html_to_text("<table><tr><td>S</td><td>36</td></tr><tr><td>M</td><td>38</td></tr></table>") == "S 36\nM 38"


def test_a_greater_than_within_quotes_ends_no_tag() -> None:
    """Attributes may hold any sign."""
    assert html_to_text('<a title="a > b">Link</a>') == "Link"


def test_comments_and_sections_are_no_text() -> None:
    """A comment is left out whole, the text of a CDATA section stays."""
    assert html_to_text("a<!-- <p>x</p> -->b <![CDATA[c]]>") == "ab c"


def test_a_reference_of_thousands_of_digits_is_no_number() -> None:
    """Python would refuse to read it."""
    assert html_to_text("<p>&#" + "9" * 5000 + ";x</p>") == "\ufffdx"


@pytest.mark.parametrize(
    "piece", ["<!", "<a", "</", "<![CDATA[", "<!--", "&#", "<a b=", '<p a="', "<script>", "<?", '<a "', "<svg><"]
)
def test_broken_html_takes_linear_work(piece: str) -> None:
    """A hundred kilobytes of what a parser would look for again and again are read at once."""
    assert isinstance(html_to_text(piece * (100_000 // len(piece))), str)


@given(st.text(alphabet="<>&;!-[]/ab\"'= \n#xp", max_size=80))
def test_broken_html_never_raises(text: str) -> None:
    """Any soup of tags gives some text."""
    assert isinstance(html_to_text(text), str)

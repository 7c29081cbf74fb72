"""HTML of a product description as the text that a shopper would read."""

from hypothesis import given
from hypothesis import strategies as st

from workers.feeds.html import MAX_PARSED_CHARACTERS, html_to_text


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


def test_very_long_html_only_loses_its_tags() -> None:
    """A text beyond the parser's limit is still freed of markup."""
    long = "<p>" + "word &amp; " * (MAX_PARSED_CHARACTERS // 5) + "</p>"
    plain = html_to_text(long)
    assert plain.startswith("word & word")
    assert "<" not in plain


@given(st.text(alphabet="<>&;!-[]/ab\"'= \n#xp", max_size=80))
def test_broken_html_never_raises(text: str) -> None:
    """Any soup of tags gives some text."""
    assert isinstance(html_to_text(text), str)

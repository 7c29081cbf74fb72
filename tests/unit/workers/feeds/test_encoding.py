"""Which alphabet the bytes of a feed are written in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.feeds.encoding import UnknownEncodingError, declared_in_xml, guess_narrow, sniff_wide, to_utf8


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("id".encode("utf-8-sig"), ("utf-8", 3)),
        ("id".encode("utf-16"), ("utf-16-le", 2)),
        (b"\xfe\xff" + "id".encode("utf-16-be"), ("utf-16-be", 2)),
        ("id".encode("utf-32"), ("utf-32-le", 4)),
        ("id,title\n1,x\n".encode("utf-16-le"), ("utf-16-le", 0)),
        ("id,title\n1,x\n".encode("utf-16-be"), ("utf-16-be", 0)),
        (b"id,title\n1,\x00\n", (None, 0)),
        (b"", (None, 0)),
    ],
)
def test_wide_letters_show_by_mark_or_zeros(data: bytes, found: tuple[str | None, int]) -> None:
    """A byte order mark names the encoding; zeros at every other place do as well, a stray NUL does not."""
    assert sniff_wide(data) == found


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        ("Умная лампочка", "utf-8", "utf-8"),
        ("Умная лампочка", "cp1251", "windows-1251"),
        ("ООО", "cp1251", "windows-1251"),
        ("Café crème brûlée", "cp1252", "windows-1252"),
        ("Größe", "cp1252", "windows-1252"),
        ("naïve", "utf-8", "utf-8"),
        ("日本", "utf-8", "utf-8"),
    ],
)
def test_narrow_alphabets_are_told_apart(text: str, encoding: str, guess: str) -> None:
    """Runs of high bytes are Cyrillic, single ones are accents."""
    assert guess_narrow(text.encode(encoding)) == guess


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        (b'<?xml version="1.0" encoding="windows-1251"?><a/>', "cp1251"),
        (b"<?xml version='1.0' encoding='KOI8-R'?>", "koi8-r"),
        (b"<a/>", "utf-8"),
        (b'<?xml version="1.0" encoding="utf-16"?>', "utf-8"),
        ('<?xml version="1.0" encoding="utf-16"?>'.encode("utf-16"), "utf-16-le"),
    ],
)
def test_an_xml_declaration_is_believed(head: bytes, codec: str) -> None:
    """The mark comes first, then the declaration, then UTF-8."""
    assert declared_in_xml(head) == codec


@pytest.mark.parametrize("name", ["zip", "rot13", "idna", "unicode_escape", "utf-7", "martian"])
def test_no_other_codec_is_opened(name: str) -> None:
    """A declaration may not call Python's packers and ciphers."""
    with pytest.raises(UnknownEncodingError):
        declared_in_xml(f'<?xml version="1.0" encoding="{name}"?>'.encode())


@given(st.text(), st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le"]), st.integers(1, 7))
def test_wide_text_becomes_utf_8_in_any_blocks(text: str, codec: str, step: int) -> None:
    """Letters cut by the end of a block are put together again."""
    data = b"MM" + text.encode(codec)
    blocks = (data[i : i + step] for i in range(0, len(data), step))
    assert b"".join(to_utf8(blocks, codec, 2)).decode() == text

"""Which alphabet the bytes of a feed are written in, and those bytes as UTF-8."""

import codecs
import re
from collections.abc import Iterator

UTF8_BOM = codecs.BOM_UTF8

_BOMS = (
    # UTF-32's mark begins with UTF-16's, so it is asked for first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
# Python's codec names include packers ("zip") and ciphers: only alphabets are let through.
_ALPHABETS = re.compile(
    r"(utf-?8|utf-?16(-?[lb]e)?|(us-)?ascii|iso-?8859-?\d{1,2}|latin-?1|windows-?125[0-8]|cp125[0-8]|cp866|koi8-?[ru]"
    r"|gb2312|gbk|gb18030|big5|shift[_-]?jis|euc-?(jp|kr))",
    re.IGNORECASE,
)
_WIDE_SAMPLE = 512


class UnknownEncodingError(ValueError):
    """The feed declares an encoding that we do not read."""


def sniff_wide(head: bytes) -> tuple[str | None, int]:
    """The UTF that ``head`` shows by its byte order mark or its zero bytes, and the length of the mark.

    ``(None, 0)`` where nothing shows: then it is UTF-8 or an alphabet of one byte per letter.
    """
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name, len(mark)
    sample = head[:_WIDE_SAMPLE]
    if len(sample) >= 4 and b"\0" in sample:
        half = len(sample) // 2
        # Latin text in UTF-16 has every other byte zero; the odd NUL in a plain file is a fault of its line.
        if sample[1::2].count(0) > 0.6 * half and sample[::2].count(0) < 0.1 * half:
            return "utf-16-le", 0
        if sample[::2].count(0) > 0.6 * half and sample[1::2].count(0) < 0.1 * half:
            return "utf-16-be", 0
    return None, 0


def declared_in_xml(head: bytes) -> str:
    """The codec of an XML document: its mark, else its declaration, else UTF-8.

    Raises:
        UnknownEncodingError: the declaration names none that we read.
    """
    wide, mark = sniff_wide(head)
    if wide is not None:
        return wide
    found = _DECLARED.match(head[mark:])
    if found is None:
        return "utf-8"
    name = found.group(1).decode("ascii")
    if _ALPHABETS.fullmatch(name) is None:
        raise UnknownEncodingError(name)
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        raise UnknownEncodingError(name) from None
    # A document whose declaration can be read byte by byte is not UTF-16, whatever it says (XML 1.0, F.1).
    return "utf-8" if codec.startswith("utf-16") else codec


def guess_narrow(sample: bytes) -> str:
    """``utf-8``, ``windows-1251`` or ``windows-1252``, for bytes that are not all ASCII.

    UTF-8 wins where more of its sequences are whole than broken: text of the other two hardly ever is. Cyrillic
    letters come in long runs of high bytes; the accents of Western languages stand alone or in twos.
    """
    whole = len(_UTF8_SEQUENCE.findall(sample))
    rest = _UTF8_SEQUENCE.sub(b"", sample)
    broken = len(_HIGH.findall(rest))
    if whole > broken:
        return "utf-8"
    runs = sum(len(run) for run in _HIGH_RUN.findall(sample))
    alone = sum(map(len, _HIGH.findall(sample))) - runs
    return "windows-1251" if runs > alone else "windows-1252"


_UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_HIGH = re.compile(rb"[\x80-\xff]+")
_HIGH_RUN = re.compile(rb"[\x80-\xff]{3,}")


def to_utf8(blocks: Iterator[bytes], codec: str, mark: int) -> Iterator[bytes]:
    """``blocks`` in UTF-8, without the ``mark`` bytes at the beginning.

    Bytes that ``codec`` cannot read become lone surrogates, which are no UTF-8: whoever decodes the line strictly
    finds it, and the other lines are whole.
    """
    if codec == "utf-8":
        for block in blocks:
            head, mark = block[mark:], max(0, mark - len(block))
            if head:
                yield head
        return
    decoder = codecs.getincrementaldecoder(codec)(errors="replace" if codec.startswith("utf-32") else "surrogatepass")
    for block in blocks:
        head, mark = block[mark:], max(0, mark - len(block))
        text = decoder.decode(head)
        if text:
            yield text.encode("utf-8", "surrogatepass")
    # Half a letter at the end is no letter; its line is cut short anyway.
    decoder.reset()

"""Chosen elements of an XML feed, streamed, safe against entity bombs and against one bad element."""

import codecs
import re
from collections.abc import Collection, Iterator
from html.entities import html5
from xml.parsers import expat

from workers.feeds.encoding import UnknownEncodingError, declared_in_xml, sniff_wide
from workers.feeds.source import Source
from workers.feeds.types import MAX_RECORD_BYTES, FeedFault, FeedReport, error

CHUNK_CHARACTERS = 64 * 1024
MAX_DEPTH = 100
# expat keeps an unfinished tag or comment whole.
MAX_UNFINISHED_BYTES = 4 * MAX_RECORD_BYTES

# What XML may not hold stands in for the bytes and characters that were there, so that only their element is lost.
UNREADABLE = "\ufdd0"
CONTROL = "\ufdd1"
_ROOT = b"<resumed>"
_LONGEST_START = 64
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class Element:
    """One element: its tag with the prefix as written, its attributes, text (without its children's) and children."""

    __slots__ = ("attributes", "children", "line", "parts", "tag")

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.line = line
        self.parts: list[str] = []
        self.children: list[Element] = []

    @property
    def text(self) -> str:
        """The text without blanks at its ends."""
        return "".join(self.parts).strip()


Found = tuple[int, Element] | FeedFault


class _RefusedError(Exception):
    """The document wants something that no feed needs."""

    def __init__(self, fault: FeedFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _TooDeepError(Exception):
    """Elements nest deeper than any feed's."""


class _Parse:
    """One run of expat, from the document's beginning or from the start tag at which it is resumed."""

    def __init__(self, wanted: Collection[str], first_line: int, *, resumed: bool) -> None:
        self.found: list[tuple[int, Element | None]] = []
        """Finished elements; None where one is too large."""
        self.resumed = resumed
        self._wanted = wanted
        self._first_line = first_line
        self._depth = 0
        self._open: list[Element] = []
        self._size = 0
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.buffer_size = 64 * 1024
        # With a DTD that is never read, names such as &nbsp; are handed to us instead of being an error.
        parser.UseForeignDTD(True)
        parser.SkippedEntityHandler = self._named_character
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._entity
        if resumed:
            parser.Parse(_ROOT, False)

    @property
    def within(self) -> Element | None:
        """The wanted element that is being read."""
        return self._open[0] if self._open else None

    @property
    def line(self) -> int:
        """The document's line that expat has come to."""
        return self._parser.CurrentLineNumber + self._first_line - 1

    @property
    def index(self) -> int:
        """How many of the bytes fed are done with."""
        return max(0, self._parser.CurrentByteIndex)

    @property
    def error_line(self) -> int:
        """The document's line at which expat gave up."""
        return self._parser.ErrorLineNumber + self._first_line - 1

    @property
    def error_index(self) -> int:
        """The byte fed at which expat gave up."""
        return max(0, self._parser.ErrorByteIndex)

    def feed(self, text: bytes | memoryview, *, last: bool = False) -> None:
        """Parses on; ``found`` grows.

        Raises:
            expat.ExpatError: not well-formed.
            _TooDeepError: nested beyond ``MAX_DEPTH``.
            _RefusedError: declares entities.
        """
        self._parser.Parse(text, last)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeepError(f"elements nest deeper than {MAX_DEPTH} levels")
        if not self._open:
            if tag not in self._wanted:
                return
            self._size = 0
        element = Element(tag, attributes, self.line)
        self._size += len(tag) + 64 + sum(len(name) + len(value) for name, value in attributes.items())
        if self._open and self._size <= MAX_RECORD_BYTES:
            self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._depth -= 1
        if self._open:
            element = self._open.pop()
            if not self._open:
                self.found.append((element.line, None if self._size > MAX_RECORD_BYTES else element))

    def _text(self, text: str) -> None:
        if self._open:
            self._size += len(text)
            if self._size <= MAX_RECORD_BYTES:
                self._open[-1].parts.append(text)

    def _named_character(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self._text(html5.get(f"{name};", ""))

    def _entity(self, *_: object) -> None:
        raise _RefusedError(
            error(self.line, "unsafe_xml", "The file defines entities of its own, which no feed needs; remove them.")
        )


def read_elements(source: Source, report: FeedReport, wanted: Collection[str]) -> Iterator[Found]:
    """The elements whose tag is ``wanted``, in order, and a fault for each that cannot be used.

    The encoding is the declared one. A document that is not well-formed is taken up again at the next start tag of
    a wanted element. No external file is ever opened; a document that declares entities is refused from there on.
    Elements given as an error are counted as rejected.
    """
    try:
        codec = declared_in_xml(source.head)
    except UnknownEncodingError as problem:
        yield error(1, "unknown_encoding", f"The encoding {problem} is not known; save the file as UTF-8.")
        return
    report.encoding = codec
    reader = _Reader(source, report, wanted)
    try:
        for text in _decoded(source, codec):
            yield from reader.feed(text)
        yield from reader.end()
    except _RefusedError as refused:
        yield from reader.drain()
        yield refused.fault


def _decoded(source: Source, codec: str) -> Iterator[str]:
    """The document as text that expat takes, unreadable bytes and forbidden characters marked."""
    wide = codec.startswith(("utf-16", "utf-32"))
    mark = sniff_wide(source.head)[1]
    decoder = codecs.getincrementaldecoder(codec)(errors="replace" if wide else "surrogateescape")
    for block in source.blocks():
        rest, mark = block[mark:], max(0, mark - len(block))
        text = decoder.decode(rest)
        if not text.isascii():
            text = _LONE_SURROGATES.sub(UNREADABLE, text)
        if text:
            yield _CONTROLS.sub(CONTROL, text)


class _Reader:
    """Feeds expat chunk by chunk, and looks for the next start tag where it gives up."""

    def __init__(self, source: Source, report: FeedReport, wanted: Collection[str]) -> None:
        self._source = source
        self._report = report
        self._wanted = wanted
        self._starts = re.compile(("<(?:" + "|".join(map(re.escape, wanted)) + r")[\s>]").encode())
        self._parse = _Parse(wanted, 1, resumed=False)
        self._fed = 0
        self._line = 1
        # While a start tag is being looked for: the last bytes seen, in which one may have begun.
        self._tail: bytes | None = None

    def feed(self, text: str) -> Iterator[Found]:
        for begin in range(0, len(text), CHUNK_CHARACTERS):
            yield from self._chunk(text[begin : begin + CHUNK_CHARACTERS].encode("utf-8", "replace"))

    def end(self) -> Iterator[Found]:
        """The document's end: what is still open was cut off."""
        if self._tail is not None:
            return
        try:
            self._parse.feed(b"", last=True)
        except (expat.ExpatError, _TooDeepError):
            yield from self.drain()
            within = self._parse.within
            if self._source.broken is None and (within is not None or not self._parse.resumed):
                line = within.line if within is not None else self._parse.error_line
                fault = error(line, "truncated", "The file stops before its elements are closed. Send it whole.")
                yield self._rejected(fault) if within is not None else fault
            return
        yield from self.drain()

    def drain(self) -> Iterator[Found]:
        """What has been finished since the last time."""
        found, self._parse.found = self._parse.found, []
        for line, element in found:
            if element is None:
                yield self._rejected(
                    error(line, "record_too_large", f"The element is above {MAX_RECORD_BYTES:,} characters.")
                )
            else:
                yield line, element

    def _rejected(self, fault: FeedFault) -> FeedFault:
        self._report.rows += 1
        self._report.rejected += 1
        return fault

    def _chunk(self, chunk: bytes) -> Iterator[Found]:
        line, at = self._line, 0
        self._line += chunk.count(b"\n")
        if self._tail is not None:
            line -= self._tail.count(b"\n")
            chunk = self._tail + chunk
        view = memoryview(chunk)
        while True:
            if self._tail is not None:
                start = self._starts.search(chunk, at)
                if start is None:
                    self._tail = chunk[max(at, len(chunk) - _LONGEST_START) :]
                    return
                at = start.start()
                self._parse = _Parse(self._wanted, line + chunk.count(b"\n", 0, at), resumed=True)
                self._fed, self._tail = len(_ROOT), None
            before = self._fed
            self._fed += len(chunk) - at
            try:
                self._parse.feed(view[at:])
            except (expat.ExpatError, _TooDeepError) as problem:
                yield from self.drain()
                yield from self._broken(problem)
                at += max(0, self._parse.error_index - before) + 1
                self._tail = b""
                continue
            yield from self.drain()
            if self._fed - self._parse.index > MAX_UNFINISHED_BYTES:
                raise _RefusedError(error(self._parse.line, "record_too_large", "A tag or comment has no end."))
            return

    def _broken(self, problem: Exception) -> Iterator[FeedFault]:
        within = self._parse.within
        if within is None and self._parse.resumed:
            # The elements around the wanted ones are closed here; nothing of them is missed.
            return
        where = self._parse.error_line
        fault = error(
            within.line if within is not None else where,
            "malformed_xml",
            f"The XML is not well-formed at line {where}: {_reason(problem)}. Write & as &amp; and < as &lt;.",
        )
        yield self._rejected(fault) if within is not None else fault


def _reason(problem: Exception) -> str:
    if isinstance(problem, expat.ExpatError):
        return expat.ErrorString(problem.code)
    return str(problem)


def unreadable(line: int, element: Element) -> FeedFault | None:
    """The fault of an element that holds bytes outside the feed's encoding, or characters that no text may have."""
    stack = [element]
    while stack:
        one = stack.pop()
        texts = [*one.parts, *one.attributes.values()]
        if any(UNREADABLE in text for text in texts):
            message = f"<{one.tag}> is not of the encoding that the file declares; save the file as UTF-8."
            return error(line, "bad_encoding", message, one.tag)
        if any(CONTROL in text for text in texts):
            return error(line, "nul_byte", f"<{one.tag}> holds a NUL or another control character.", one.tag)
        stack.extend(one.children)
    return None

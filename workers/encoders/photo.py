"""Bytes that claim to be a photo -> `uint8[h, w, 3]`, or a sentence that the shop's owner understands.

The bytes are hostile until proven otherwise: the kind is told by the first bytes alone (never by a name or
a Content-Type), the declared size is read before any pixel is decoded, and only the five decoders that we
offer are ever reached. What is decoded is upright, opaque (transparency over white, as shops show it) and at
most `side` long.
"""

import struct
import threading
import warnings
from contextlib import nullcontext
from io import BytesIO
from typing import Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

# The plug-ins are imported by name because `Image.open(formats=…)` only finds registered ones, and Pillow's
# own registration of WebP and AVIF would load its other forty decoders as well.
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    features,
)

from infra.errors import Invalid

Photo: TypeAlias = npt.NDArray[np.uint8]
"""A decoded photo: RGB, `uint8[h, w, 3]`, upright, h and w at least 1."""

Reason = Literal["empty", "not_a_photo", "unsupported_format", "too_many_bytes", "too_many_pixels", "broken"]

MAX_BYTES: Final = 10 * 1024 * 1024
MAX_PIXELS: Final = 50_000_000
SIDE: Final = 512

# A progressive photo has about ten scans. Each may cost a pass over all pixels for a handful of bytes, so a
# 10 MB file can hold hours of work (libjpeg-turbo's own fuzzers stop at 500).
_MAX_SCANS: Final = 100
# A WebP of 50 megapixels needs 800 MB while it is decoded (measured), so those wait for each other.
_GIANT_PIXELS: Final = 16_000_000
_one_giant: Final = threading.Lock()
# Pixels converted at a time, so that a 50-megapixel PNG costs its decoded self and not three copies of it.
_STRIP_PIXELS: Final = 2_000_000

_DECODERS: Final = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    AvifImagePlugin.AvifImageFile,
)
FORMATS: Final = tuple(decoder.format for decoder in _DECODERS)
_OFFERED = "JPEG, PNG, WebP, GIF or AVIF"
_HEIC: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_OTHERS: Final = (
    (b"II*\0", "a TIFF or camera raw file"),
    (b"MM\0*", "a TIFF or camera raw file"),
    (b"BM", "a BMP file"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF-", "a PDF document"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
)
# EXIF orientation (TIFF tag 274) -> what makes the photo upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Pillow warns of broken EXIF and of sizes above its limit, both dealt with below. Filtered once for
# the process, because `catch_warnings` around a call is not safe between threads.
for _category in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_category, module=r"PIL\.")


class BadPhoto(Invalid):
    """The bytes cannot be used as a photo; `detail` says why in the shop's words, `reason` in ours."""

    code: ClassVar[str] = "bad_photo"
    title: ClassVar[str] = "The photo cannot be used"

    def __init__(self, detail: str, *, reason: Reason) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


def decode_photo(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, side: int = SIDE) -> Photo:
    """Decode a JPEG, PNG, WebP, GIF or AVIF file to RGB `uint8[h, w, 3]` with `max(h, w) <= side`.

    The first frame of an animation is taken, EXIF orientation is applied, transparency is laid over white,
    and a smaller photo is not enlarged. `max_pixels` is checked against the size that the header declares,
    before anything of that size is allocated; it cannot exceed Pillow's own `Image.MAX_IMAGE_PIXELS`.
    Colour profiles are not applied. Safe to call from several threads; of photos above 16 megapixels other
    than JPEG one is decoded at a time, for such a one needs up to 16 bytes a pixel. Raises `BadPhoto`.
    """
    if not data:
        raise BadPhoto("The photo is empty (0 bytes). Upload it again.", reason="empty")
    if len(data) > max_bytes:
        raise BadPhoto(
            f"The photo has {len(data):,} bytes; the limit is {max_bytes:,}. Save it smaller.",
            reason="too_many_bytes",
        )
    kind = _kind(data)
    if Image.MAX_IMAGE_PIXELS is not None:
        max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS)
    declared = _declared_size(kind, data)
    if declared is not None:
        _check_size(*declared, max_pixels)
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:
        raise BadPhoto(
            "The photo is a JPEG made of an unreasonable number of passes. Save it again as a normal JPEG.",
            reason="broken",
        )
    try:
        return _decode(kind, data, max_pixels, side)
    except (BadPhoto, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow warns or raises only above its own limit, which is never below ours.
        raise BadPhoto(_too_many_pixels(max_pixels), reason="too_many_pixels") from None
    except Exception as error:
        # Decoders answer hostile bytes with anything: OSError, SyntaxError, struct.error, IndexError… All of
        # them say the same to the shop.
        raise BadPhoto(_broken(kind, error), reason="broken") from error


def _kind(data: bytes) -> str:
    """The file's format by its first bytes, one of `FORMATS`."""
    head = data[:64]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[16:]):
        if not features.check("avif"):
            raise BadPhoto(
                "The photo is an AVIF file, which this installation cannot read. Use JPEG, PNG, WebP or GIF.",
                reason="unsupported_format",
            )
        return "AVIF"
    other = _other_kind(data)
    if other is not None:
        raise BadPhoto(f"The photo is {other}. Use {_OFFERED}.", reason="unsupported_format")
    raise BadPhoto(f"{_not_a_photo(data)} Use a link or a file that is {_OFFERED} itself.", reason="not_a_photo")


def _other_kind(data: bytes) -> str | None:
    """Names the picture formats that shops do send and that we do not read."""
    if data[4:8] == b"ftyp":
        return "a HEIC file (as iPhones save them)" if data[8:12] in _HEIC else "a video"
    return next((name for magic, name in _OTHERS if data.startswith(magic)), None)


def _not_a_photo(data: bytes) -> str:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--", b"<body", b"<script")) or b"<html" in start:
        return "This is a web page (HTML), not a photo."
    if b"<svg" in start:
        return "This is an SVG drawing, not a photo."
    if start.startswith(b"<"):
        return "This is an XML document, not a photo."
    if start.startswith((b"{", b"[")):
        return "This is a JSON document, not a photo."
    if data[:2] == b"\x1f\x8b" or data[:4] == b"PK\x03\x04":
        return "This is a compressed archive, not a photo."
    return "This is not a photo."


def _declared_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """(width, height) where the format has them at a fixed place; None leaves the reading to Pillow.

    Needed before `Image.open` for WebP, whose decoder allocates the canvas while opening; for PNG and GIF it
    lets the message name the size. JPEG and AVIF are opened by Pillow without any allocation of that size.
    """
    try:
        if kind == "PNG":
            width, height = struct.unpack_from(">II", data, 16)
        elif kind == "GIF":
            width, height = struct.unpack_from("<HH", data, 6)
        elif kind == "WEBP":
            return _webp_size(data)
        else:
            return None
    except struct.error:
        raise BadPhoto(_cut_short(kind), reason="broken") from None
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """RFC 9649: the canvas of VP8X, else the only frame's size."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        (across,), (down,) = struct.unpack_from("<I", data, 24), struct.unpack_from("<I", data, 26)
        return (across & 0xFFFFFF) + 1, (down >> 8) + 1
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise BadPhoto("The WEBP file is damaged: it holds no picture. Save it again.", reason="broken")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadPhoto("The photo is broken: it declares no pixels. Save it again.", reason="broken")
    if width * height > max_pixels:
        raise BadPhoto(f"{_too_many_pixels(max_pixels)} It has {width} × {height}.", reason="too_many_pixels")


def _decode(kind: str, data: bytes, max_pixels: int, side: int) -> Photo:
    with Image.open(BytesIO(data), formats=(kind,)) as picture:
        # Again, because a GIF's first frame may be larger than the screen that its header declares.
        _check_size(*picture.size, max_pixels)
        turn = _UPRIGHT.get(_orientation(picture))
        target = _target(*picture.size, side)
        if kind == "JPEG":
            # libjpeg leaves out the high frequencies: scaled by a power of two, never below the target.
            picture.draft(None, target)
        giant = kind != "JPEG" and picture.width * picture.height > _GIANT_PIXELS
        with _one_giant if giant else nullcontext():
            picture.load()
            small = _opaque_and_small(picture, target)
    if turn is not None:
        small = small.transpose(turn)
    # A copy: the array must own its memory and be writable.
    return np.array(small, dtype=np.uint8)


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1…8, 1 when absent; broken EXIF is common and no reason to refuse a photo."""
    try:
        return int(picture.getexif().get(274, 1))
    except MemoryError:
        raise
    except Exception:
        return 1


def _target(width: int, height: int, side: int) -> tuple[int, int]:
    longest = max(width, height)
    if longest <= side:
        return width, height
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def _opaque_and_small(picture: Image.Image, target: tuple[int, int]) -> Image.Image:
    """RGB of exactly `target` size, by strips: lay over white, shrink by a whole factor; then resample."""
    width, height = picture.size
    # Twice the target is left for the last, better filter (the same gap as Pillow's own thumbnail()).
    factor_x = max(1, width // (2 * target[0]))
    factor_y = max(1, height // (2 * target[1]))
    rows = max(1, _STRIP_PIXELS // (width * factor_y)) * factor_y
    reduced = Image.new("RGB", (-(-width // factor_x), -(-height // factor_y)))
    for top in range(0, height, rows):
        strip = picture if rows >= height else picture.crop((0, top, width, min(top + rows, height)))
        flat = _opaque(strip, picture.info.get("transparency"))
        if (factor_x, factor_y) != (1, 1):
            flat = flat.reduce((factor_x, factor_y))
        reduced.paste(flat, (0, top // factor_y))
    if reduced.size == target:
        return reduced
    # The last column and row may stand for less than a whole factor; `box` keeps the geometry.
    box = (0.0, 0.0, width / factor_x, height / factor_y)
    return reduced.resize(target, Image.Resampling.BICUBIC, box=box)


def _opaque(picture: Image.Image, transparency: Any) -> Image.Image:
    """RGB over white, of any mode that the five decoders give."""
    if picture.mode.startswith("I"):
        # Sixteen-bit grey. Pillow's own conversion from "I" clips at 255 instead of scaling.
        grey = np.asarray(picture).astype(np.uint32)
        return Image.fromarray((np.minimum(grey, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        try:
            layer = picture.convert("RGBA")
        except (ValueError, TypeError, OverflowError):
            # A transparent colour given in sixteen bits (PNG tRNS) does not fit the eight that were decoded.
            picture = picture.copy()
            picture.info.pop("transparency", None)
            return picture.convert("RGB")
        white = Image.new("RGB", layer.size, (255, 255, 255))
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _too_many_pixels(max_pixels: int) -> str:
    return f"The photo has too many pixels: the limit is {max_pixels / 1e6:g} megapixels. Save it smaller."


def _cut_short(kind: str) -> str:
    return f"The {kind} file ends too early: it was cut off while being saved or sent. Upload it again."


def _broken(kind: str, error: Exception) -> str:
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return _cut_short(kind)
    return f"The {kind} file is damaged and cannot be read. Open it in a photo editor and save it again."

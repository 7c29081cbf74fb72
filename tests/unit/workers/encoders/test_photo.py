"""decode_photo: every kind of picture a shop sends, and every kind of file that is none; all made here."""

import contextlib
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from workers.encoders.photo import BadPhoto, Photo, decode_photo

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 160, 40), (30, 40, 200), (255, 255, 255)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", pytest.param("AVIF", marks=pytest.mark.skipif(
    not features.check("avif"), reason="this Pillow has no AVIF"))]  # fmt: skip


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(width: int = 64, height: int = 48) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = Image.new("RGB", (width, height), WHITE)
    half = (width // 2, height // 2)
    picture.paste(RED, (0, 0, *half))
    picture.paste(GREEN, (half[0], 0, width, half[1]))
    picture.paste(BLUE, (0, half[1], half[0], height))
    return picture


def is_colour(photo: Photo, row: int, column: int, colour: tuple[int, int, int], within: int = 24) -> bool:
    return bool(np.abs(photo[row, column].astype(int) - colour).max() <= within)


def png(width: int, height: int, body: bytes, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format(kind: str) -> None:
    """JPEG, PNG, WebP, GIF and AVIF all come out as upright RGB of the same picture."""
    photo = decode_photo(saved(corners(), kind))
    assert photo.dtype == np.uint8
    assert photo.shape == (48, 64, 3)
    assert is_colour(photo, 8, 8, RED)
    assert is_colour(photo, 8, 56, GREEN)
    assert is_colour(photo, 40, 8, BLUE)
    assert is_colour(photo, 40, 56, WHITE)


def test_the_array_is_the_callers_own() -> None:
    """The array owns its memory and may be written to."""
    photo = decode_photo(saved(corners(), "PNG"))
    photo[0, 0] = 7
    assert photo.flags.owndata
    assert photo.flags.c_contiguous


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("size", "expected"), [((900, 600), (341, 512)), ((601, 899), (512, 342))])
def test_a_large_photo_is_scaled_down(kind: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    """The longer side becomes `side`, the proportions stay, and the corners stay where they were."""
    photo = decode_photo(saved(corners(*size), kind))
    assert photo.shape == (*expected, 3)
    bottom, right = expected[0] - 20, expected[1] - 20
    assert is_colour(photo, 20, 20, RED)
    assert is_colour(photo, 20, right, GREEN)
    assert is_colour(photo, bottom, 20, BLUE)
    assert is_colour(photo, bottom, right, WHITE)


def test_a_small_photo_is_not_enlarged() -> None:
    """A photo below `side` keeps its size."""
    assert decode_photo(saved(corners(20, 10), "PNG")).shape == (10, 20, 3)


def test_a_sliver_keeps_a_pixel() -> None:
    """A 1 × 5000 line is scaled to 1 × side, never to nothing."""
    assert decode_photo(saved(Image.new("RGB", (1, 5000), RED), "PNG"), side=100).shape == (100, 1, 3)


@pytest.mark.parametrize("size", [(1031, 777), (2500, 1900), (4000, 500), (513, 512)])
def test_strips_do_not_show(size: tuple[int, int]) -> None:
    """Scaling by strips differs from scaling the whole picture at once by less than the eye sees."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    picture = coarse.resize(size, Image.Resampling.BICUBIC)
    photo = decode_photo(saved(picture, "PNG", compress_level=1), side=128)
    whole = np.asarray(picture.resize((photo.shape[1], photo.shape[0]), Image.Resampling.BICUBIC))
    assert np.abs(photo.astype(int) - whole.astype(int)).mean() < 2.0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    """However the camera was held, the photo comes out upright."""
    undo: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[274] = orientation
    photo = decode_photo(saved(undo[orientation](corners()), kind, exif=exif.tobytes()))
    assert photo.shape == (48, 64, 3)
    assert is_colour(photo, 8, 8, RED)
    assert is_colour(photo, 8, 56, GREEN)
    assert is_colour(photo, 40, 8, BLUE)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_ignored() -> None:
    """EXIF that cannot be read does not lose the photo."""
    data = saved(corners(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x01" * 40)
    assert decode_photo(data).shape == (48, 64, 3)


def test_grey() -> None:
    """A greyscale photo becomes RGB with three equal channels."""
    photo = decode_photo(saved(Image.new("L", (9, 7), 77), "PNG"))
    assert (photo == 77).all()


def test_one_bit() -> None:
    """A one-bit drawing becomes black and white."""
    photo = decode_photo(saved(Image.new("1", (9, 7), 1), "PNG"))
    assert (photo == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    """Sixteen-bit grey of 0x8000 is mid-grey, not white."""
    values = np.full((6, 5), 0x8000, dtype=np.uint16)
    photo = decode_photo(saved(Image.fromarray(values), "PNG"))
    assert (photo == 0x80).all()


def test_sixteen_bit_colour() -> None:
    """Sixteen-bit RGB keeps its high bytes."""
    row = b"\0" + struct.pack(">HHH", 0x4000, 0x8000, 0xC000) * 3
    photo = decode_photo(png(3, 2, zlib.compress(row * 2), depth=16))
    assert photo[0, 0].tolist() == [0x40, 0x80, 0xC0]


def test_sixteen_bit_transparent_colour() -> None:
    """A transparent colour given in sixteen bits does not fail the photo."""
    row = b"\0" + struct.pack(">HHH", 0x4000, 0x8000, 0xC000) * 3
    body = struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)
    trns = struct.pack(">I", 6) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    photo = decode_photo(png(3, 2, zlib.compress(row * 2), depth=16, extra=trns))
    assert photo[0, 0].tolist() == [0x40, 0x80, 0xC0]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    """Fully transparent becomes white whatever colour hides beneath; half transparent is mixed with white."""
    pixels = Image.new(mode, (2, 1), (0,) * len(mode))
    pixels.putpixel((1, 0), (*((0,) * (len(mode) - 1)), 128))
    photo = decode_photo(saved(pixels, "PNG"))
    assert photo[0, 0].tolist() == [255, 255, 255]
    assert photo[0, 1].tolist() == [127, 127, 127]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind: str) -> None:
    """The transparent entry of a palette becomes white, the others keep their colour."""
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([*BLUE, *RED])
    picture.putpixel((0, 0), 0)
    photo = decode_photo(saved(picture, kind, transparency=0))
    assert photo[0, 0].tolist() == [255, 255, 255]
    assert photo[2, 2].tolist() == list(RED)


def test_palette_transparency_of_several_levels() -> None:
    """A PNG palette with an alpha per entry is mixed with white."""
    picture = Image.new("P", (2, 1), 1)
    picture.putpalette([0, 0, 0, 0, 0, 0])
    picture.putpixel((0, 0), 0)
    photo = decode_photo(saved(picture, "PNG", transparency=bytes([0, 128])))
    assert photo[0, :, 0].tolist() == [255, 127]


def test_cmyk_as_photoshop_saves_it() -> None:
    """An Adobe CMYK JPEG (inverted inks) shows its colours, not their negative."""
    photo = decode_photo(saved(corners().convert("CMYK"), "JPEG", quality=95))
    assert is_colour(photo, 8, 8, RED)
    assert is_colour(photo, 40, 56, WHITE)


def test_cmyk_without_the_adobe_marker() -> None:
    """A CMYK JPEG without Adobe's marker is read as browsers read it: inverted all the same."""
    data = saved(Image.new("CMYK", (32, 32), (255, 255, 255, 255)), "JPEG")
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    photo = decode_photo(data[:start] + data[start + 2 + length :])
    assert is_colour(photo, 16, 16, (0, 0, 0))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    """An animation is its first frame."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    photo = decode_photo(saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=80))
    assert photo.shape == (10, 20, 3)
    assert is_colour(photo, 5, 5, RED)


def test_two_pictures_in_one_jpeg() -> None:
    """The multi-picture JPEG of some phones gives its first picture."""
    data = saved(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48), BLUE)])
    assert is_colour(decode_photo(data), 8, 8, RED)


def test_progressive_jpeg() -> None:
    """A progressive JPEG is read like any other, scaled down too."""
    assert decode_photo(saved(corners(1600, 1200), "JPEG", progressive=True)).shape == (384, 512, 3)


def refusal(data: bytes, **limits: int) -> BadPhoto:
    with pytest.raises(BadPhoto) as caught:
        decode_photo(data, **limits)
    return caught.value


@pytest.mark.parametrize(
    "head",
    [
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\xef\xbb\xbf \r\n<html lang=ru><svg></svg>",
        b"<!-- saved --><script>",
    ],
)
def test_a_web_page(head: bytes) -> None:
    """An HTML page served under a photo's name is called a web page."""
    error = refusal(head)
    assert error.reason == "not_a_photo"
    assert "web page" in error.detail


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "not found"}', "JSON"),
        (b"\x1f\x8b\x08rest", "archive"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"just words", "not a photo"),
        (b"\xff", "not a photo"),
        (bytes(100), "not a photo"),
    ],
)
def test_other_files(data: bytes, word: str) -> None:
    """What is no photo at all is named where it can be."""
    error = refusal(data)
    assert error.reason == "not_a_photo"
    assert word in error.detail


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"BM" + bytes(60), "BMP"),
        (b"II*\0" + bytes(60), "TIFF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_formats_that_we_do_not_read(data: bytes, word: str) -> None:
    """A picture of another format is named, with the formats to use instead."""
    error = refusal(data)
    assert error.reason == "unsupported_format"
    assert word in error.detail
    assert "JPEG" in error.detail


def test_the_name_of_a_format_is_no_proof() -> None:
    """A TIFF is refused although Pillow could read it: only the five decoders are reachable."""
    assert refusal(saved(corners(), "TIFF")).reason == "unsupported_format"


def test_no_bytes() -> None:
    """An empty file is called empty."""
    assert refusal(b"").reason == "empty"


def test_one_byte_too_many() -> None:
    """`max_bytes` is inclusive; one byte more is refused."""
    data = saved(corners(), "PNG")
    assert decode_photo(data, max_bytes=len(data)).shape == (48, 64, 3)
    assert refusal(data, max_bytes=len(data) - 1).reason == "too_many_bytes"


@pytest.mark.parametrize("kind", FORMATS)
def test_one_pixel_too_many(kind: str) -> None:
    """`max_pixels` is inclusive in every format; one pixel more is refused."""
    data = saved(corners(50, 40), kind)
    assert decode_photo(data, max_pixels=2000).shape == (40, 50, 3)
    assert refusal(data, max_pixels=1999).reason == "too_many_pixels"


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"save_all": True}])
def test_one_pixel_too_many_in_each_webp(options: dict[str, Any]) -> None:
    """The three WebP headers (VP8, VP8L, VP8X) are all measured before the decoder is opened."""
    picture = corners(50, 40)
    if "save_all" in options:
        options = {"save_all": True, "append_images": [Image.new("RGB", (50, 40), RED)]}
    data = saved(picture, "WEBP", **options)
    assert decode_photo(data, max_pixels=2000).shape == (40, 50, 3)
    assert refusal(data, max_pixels=1999).reason == "too_many_pixels"


def test_a_huge_png_is_refused_by_its_header() -> None:
    """A 30,000 × 30,000 PNG of a few hundred kilobytes is refused without allocating its 2.7 GB."""
    body = zlib.compress(bytes(2_000_000), 9)
    tracemalloc.start()
    try:
        error = refusal(png(30_000, 30_000, body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.reason == "too_many_pixels"
    assert "30000 × 30000" in error.detail
    assert peak < 1_000_000


def test_a_huge_jpeg_is_refused_by_its_header() -> None:
    """A JPEG whose frame header says 65,500 × 65,500 is refused, with Pillow's own guard left on."""
    data = bytearray(saved(corners(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    assert refusal(bytes(data)).reason == "too_many_pixels"


def test_a_jpeg_between_our_limit_and_pillows() -> None:
    """A JPEG that Pillow only warns about (100 megapixels) is refused by us, with or without the warning."""
    data = bytearray(saved(corners(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 10_000, 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert refusal(bytes(data)).reason == "too_many_pixels"
    assert refusal(bytes(data)).reason == "too_many_pixels"


def test_a_gif_whose_frame_exceeds_its_screen() -> None:
    """A GIF with a 1 × 1 screen and a 60,000 × 60,000 first frame is refused by the frame."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x4c\x01\x00;"
    assert refusal(screen + frame).reason == "too_many_pixels"


def test_a_png_with_a_bomb_in_its_text() -> None:
    """A compressed text chunk that would swell to 64 MB neither fails nor allocates that much."""
    body = b"Comment\0\0" + zlib.compress(bytes(64_000_000), 9)
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = png(2, 2, zlib.compress(bytes(14)), extra=text)
    tracemalloc.start()
    try:
        with pytest.raises(BadPhoto):
            decode_photo(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_png_whose_pixels_go_on_for_ever() -> None:
    """Pixel data that would swell far beyond the declared 2 × 2 is read no further than the picture."""
    data = png(2, 2, zlib.compress(bytes(50_000_000), 9))
    tracemalloc.start()
    try:
        assert decode_photo(data).shape == (2, 2, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_jpeg_of_a_thousand_scans() -> None:
    """A progressive JPEG with an absurd number of passes is refused before any is decoded."""
    data = saved(corners(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert refusal(data[:-2] + data[last:-2] * 200 + b"\xff\xd9").reason == "broken"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short(kind: str, share: float) -> None:
    """A file that stops half-way is called broken, never returned half grey."""
    rng = np.random.default_rng(1)
    data = saved(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    assert refusal(data[: int(len(data) * share)]).reason == "broken"


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff"])
def test_nothing_but_a_magic(head: bytes) -> None:
    """The first bytes alone are no photo."""
    assert refusal(head).reason == "broken"


def test_a_picture_of_no_pixels() -> None:
    """A PNG that declares no width is broken."""
    assert refusal(png(0, 10, zlib.compress(b""))).reason == "broken"


SEEDS = [
    saved(corners(16, 12), "JPEG"),
    saved(corners(16, 12), "JPEG", progressive=True),
    saved(corners(16, 12), "PNG"),
    saved(corners(16, 12).quantize(4), "PNG", transparency=1),
    saved(corners(16, 12), "GIF"),
    saved(corners(16, 12), "WEBP"),
    saved(corners(16, 12), "WEBP", lossless=True),
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 400),
)
def test_any_damage(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever is done to a file, the answer is a photo of at most 512 pixels or a BadPhoto, nothing else."""
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    if cut < 60:
        del data[len(data) - cut :]
    with contextlib.suppress(BadPhoto):
        photo = decode_photo(bytes(data), max_pixels=1_000_000)
        assert photo.ndim == 3
        assert max(photo.shape[:2]) <= 512


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=100, deadline=None)
@given(
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"]),
    tail=st.binary(max_size=200),
)
def test_any_bytes(head: bytes, tail: bytes) -> None:
    """Random bytes, with a true magic or without, never raise anything but BadPhoto."""
    with contextlib.suppress(BadPhoto):
        decode_photo(head + tail, max_pixels=1_000_000)

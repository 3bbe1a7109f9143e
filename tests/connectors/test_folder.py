"""Reading image files: expected pixels by hand for each kind, and one sentence for the rest."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from connectors import folder
from connectors.folder import FolderSource
from connectors.memory import MemorySource
from ssl_core.errors import ImageError
from tests.connectors import laws

# pytest undoes the filter that `connectors.folder` sets; a test below looks at a real terminal
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp"}
GREY = np.array([[0, 50, 100], [150, 200, 255]], dtype=np.uint8)
COLOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], dtype=np.uint8)


def folder_of(root: Path, images: dict[str, np.ndarray]) -> FolderSource:
    for path, image in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / path)
    return FolderSource(root)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read_bytes(tmp_path: Path, data: bytes, name: str = "x.png") -> np.ndarray:
    (tmp_path / name).write_bytes(data)
    return FolderSource(tmp_path).read(name)


def refusal(tmp_path: Path, data: bytes, name: str = "x.png") -> str:
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path, data, name)
    message = str(caught.value)
    assert repr(name) in message
    assert str(tmp_path) not in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, dtype=np.uint8)[:, :, None], 3, axis=2)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand; `rows` holds the filter byte of each row too."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    chunks = [chunk(one[:4], one[4:]) for one in extra]
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + chunk(b"IEND", b"")


def tiff(width, height, bits, pixels: bytes, *, photometric=1, kind=1, order="<") -> bytes:
    """An uncompressed grey TIFF written by hand: one strip, sample format `kind`."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(pixels), 339: kind}
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    return head + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


# --- the laws ---------------------------------------------------------------------------------


def test_folder_obeys_the_laws(tmp_path):
    roots = (tmp_path / name for name in ("first", "second"))
    laws.check_source(lambda images: folder_of(next(roots), images))


def test_memory_obeys_the_laws():
    laws.check_source(MemorySource)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((0, 2, 3), np.uint8),
    ],
)
def test_memory_takes_plain_rgb_only(image):
    with pytest.raises(ValueError, match="'x'"):
        MemorySource({"x": image})


# --- what each kind of file becomes -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_8_bit_colour_is_exact(tmp_path, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(COLOUR), kind, **options)
    np.testing.assert_array_equal(read_bytes(tmp_path, data), COLOUR)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_8_bit_grey_is_exact(tmp_path, kind):
    pixels = read_bytes(tmp_path, encoded(Image.fromarray(GREY), kind))
    np.testing.assert_array_equal(pixels, as_rgb(GREY))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_tiff_compressions(tmp_path, compression):
    data = encoded(Image.fromarray(COLOUR), "TIFF", compression=compression)
    np.testing.assert_array_equal(read_bytes(tmp_path, data), COLOUR)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_near(tmp_path, mode):
    flat = Image.new("RGB", (16, 8), (200, 60, 60) if mode == "RGB" else (90, 90, 90))
    pixels = read_bytes(tmp_path, encoded(flat.convert(mode), "JPEG", quality=95))
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels.astype(int) - np.asarray(flat)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_1_bit_is_black_and_white(tmp_path, kind):
    image = Image.fromarray(GREY > 120)
    expected = as_rgb([[0, 0, 0], [255, 255, 255]])
    np.testing.assert_array_equal(read_bytes(tmp_path, encoded(image, kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_gives_its_colours(tmp_path, kind):
    image = Image.new("P", (3, 1))
    image.putpalette([1, 2, 3, 40, 50, 60, 255, 0, 9] + [0] * 759)
    image.putdata([2, 0, 1])
    expected = [[[255, 0, 9], [1, 2, 3], [40, 50, 60]]]
    np.testing.assert_array_equal(read_bytes(tmp_path, encoded(image, kind)), expected)


def test_transparency_is_composited_on_black(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 51, 51]]], np.uint8)
    expected = [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]  # 51 / 255 is a fifth
    for kind in ("PNG", "TIFF"):
        pixels = read_bytes(tmp_path, encoded(Image.fromarray(rgba), kind))
        np.testing.assert_array_equal(pixels, expected)
    la = Image.fromarray(np.array([[[200, 255], [200, 0], [200, 51]]], np.uint8))
    pixels = read_bytes(tmp_path, encoded(la, "PNG"))
    np.testing.assert_array_equal(pixels, as_rgb([[200, 0, 40]]))


def test_transparent_colours_are_black_too(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([90, 80, 70, 9, 9, 9] + [0] * 762)
    palette.putdata([0, 1])
    data = encoded(palette, "PNG", transparency=0)
    np.testing.assert_array_equal(read_bytes(tmp_path, data), [[[0, 0, 0], [9, 9, 9]]])
    data = encoded(palette, "PNG", transparency=bytes([51, 255]))
    np.testing.assert_array_equal(read_bytes(tmp_path, data), [[[18, 16, 14], [9, 9, 9]]])
    grey = png(3, 1, 8, 0, bytes([0, 7, 90, 200]), b"tRNS" + struct.pack(">H", 90))
    np.testing.assert_array_equal(read_bytes(tmp_path, grey), as_rgb([[7, 0, 200]]))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(tmp_path, kind):
    inks = {(0, 0, 0, 0): (255, 255, 255), (0, 0, 0, 255): (0, 0, 0), (255, 0, 0, 0): (0, 255, 255)}
    for ink, colour in inks.items():
        pixels = read_bytes(tmp_path, encoded(Image.new("CMYK", (8, 8), ink), kind))
        assert np.abs(pixels.astype(int) - colour).max() <= (3 if kind == "JPEG" else 0)


WIDE = np.array([[1000, 2000], [3000, 4000]])
STRETCHED = as_rgb([[0, 85], [170, 255]])


def test_16_bit_grey_png_is_stretched_from_its_own_minimum_to_maximum(tmp_path):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in WIDE)
    np.testing.assert_array_equal(read_bytes(tmp_path, png(2, 2, 16, 0, rows)), STRETCHED)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("<u2", 1),
        (">u2", 1),
        ("<i2", 2),
        (">i2", 2),
        ("<i4", 2),
        ("<f4", 3),
        (">f4", 3),
    ],
)
def test_wide_grey_tiff_is_stretched(tmp_path, dtype, kind):
    values = (WIDE - (2500 if kind > 1 else 0)).astype(dtype)
    bits = 8 * values.itemsize
    data = tiff(2, 2, bits, values.tobytes(), kind=kind, order=">" if dtype[0] == ">" else "<")
    np.testing.assert_array_equal(read_bytes(tmp_path, data), STRETCHED)


def test_64_bit_tiff_is_refused(tmp_path):
    refusal(tmp_path, tiff(2, 2, 64, WIDE.astype("<f8").tobytes(), kind=3))


def test_stretching_rounds_to_the_nearest(tmp_path):
    values = np.array([[-1, 0, 0.5, 1]], "<f4")  # 0, 127.5, 191.25, 255
    pixels = read_bytes(tmp_path, tiff(4, 1, 32, values.tobytes(), kind=3))
    np.testing.assert_array_equal(pixels, as_rgb([[0, 128, 191, 255]]))
    huge = np.array([[-3e38, 0, 3e38]], "<f4")  # the range overflows single precision
    pixels = read_bytes(tmp_path, tiff(3, 1, 32, huge.tobytes(), kind=3))
    np.testing.assert_array_equal(pixels, as_rgb([[0, 128, 255]]))


@pytest.mark.parametrize(("dtype", "kind"), [("<u1", 1), ("<u2", 1), ("<f4", 3)])
def test_white_is_zero_is_turned_round_at_any_depth(tmp_path, dtype, kind):
    values = np.array([[0, 85, 255]], dtype)
    data = tiff(3, 1, 8 * values.itemsize, values.tobytes(), photometric=0, kind=kind)
    np.testing.assert_array_equal(read_bytes(tmp_path, data), as_rgb([[255, 170, 0]]))


def test_constant_wide_grey_is_black(tmp_path):
    values = np.full((2, 2), 40000, "<u2")
    pixels = read_bytes(tmp_path, tiff(2, 2, 16, values.tobytes()))
    np.testing.assert_array_equal(pixels, np.zeros((2, 2, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_pixels_are_refused(tmp_path, bad):
    values = np.array([[0, bad, 1]], "<f4")
    assert "not finite" in refusal(tmp_path, tiff(3, 1, 32, values.tobytes(), kind=3))


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    row = struct.pack(">6H", 0xFFFF, 0x1234, 0x00FF, 0, 0x8000, 0x7FFF)
    pixels = read_bytes(tmp_path, png(2, 1, 16, 2, b"\0" + row))
    np.testing.assert_array_equal(pixels, [[[255, 0x12, 0], [0, 0x80, 0x7F]]])


UPRIGHT = {  # EXIF 2.3, 4.6.4: where the stored row 0 and column 0 belong
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.T, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation_is_honoured(tmp_path, kind, orientation):
    stored = np.kron(GREY, np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = encoded(Image.fromarray(stored), kind, exif=exif, **options)
    pixels = read_bytes(tmp_path, data).astype(int)
    expected = as_rgb(UPRIGHT[orientation](stored))
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= (6 if kind == "JPEG" else 0)


def test_16_bit_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(WIDE.astype(np.uint16))
    image = image if image.mode == "I;16" else image.convert("I;16")
    pixels = read_bytes(tmp_path, encoded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, np.rot90(STRETCHED, -1))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_unreadable_metadata_does_not_cost_the_picture(tmp_path, exif):
    data = encoded(Image.fromarray(COLOUR), "PNG", exif=exif)
    np.testing.assert_array_equal(read_bytes(tmp_path, data), COLOUR)


def test_the_name_does_not_decide_the_kind(tmp_path):
    data = encoded(Image.fromarray(COLOUR), "PNG")
    np.testing.assert_array_equal(read_bytes(tmp_path, data, "scan.jpeg"), COLOUR)
    np.testing.assert_array_equal(read_bytes(tmp_path, data, "no extension"), COLOUR)


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_are_fine(tmp_path, size):
    pixels = read_bytes(tmp_path, encoded(Image.new("L", size, 9), "PNG"))
    np.testing.assert_array_equal(pixels, np.full((size[1], size[0], 3), 9))


def test_multi_picture_jpeg_gives_its_first(tmp_path):
    first, second = Image.new("L", (8, 8), 90), Image.new("L", (8, 8), 10)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert abs(int(read_bytes(tmp_path, data)[0, 0, 0]) - 90) <= 3


def test_digest_is_of_the_bytes(tmp_path):
    (tmp_path / "x.png").write_bytes(b"any bytes at all")
    expected = hashlib.sha256(b"any bytes at all").hexdigest()[:32]
    assert FolderSource(tmp_path).digest("x.png") == expected


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../x.png",
        "a/../../x.png",
        "a/..",
        "/x.png",
        "//host/x.png",
        "..\\x.png",
        "a\\..\\..\\x.png",
        "\\x.png",
        "\\\\host\\x.png",
        "link-out.png",
        "folder-out/x.png",
        "link-loop-out/x.png",
    ],
)
def test_a_path_that_leaves_is_refused(tmp_path, path):
    root = tmp_path / "images"
    root.mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "x.png")
    (root / "link-out.png").symlink_to(tmp_path / "x.png")
    (root / "folder-out").symlink_to(tmp_path)
    (root / "link-loop-out").symlink_to(root / "folder-out")
    for method in (FolderSource(root).read, FolderSource(root).digest):
        with pytest.raises(ImageError, match="leaves the image folder") as caught:
            method(path)
        assert repr(path) in str(caught.value)


def test_links_that_stay_inside_are_read(tmp_path):
    real = tmp_path / "real"
    source = folder_of(real, {"a/x.png": COLOUR})
    (real / "link.png").symlink_to("a/x.png")
    (tmp_path / "root link").symlink_to(real)
    np.testing.assert_array_equal(source.read("link.png"), COLOUR)
    np.testing.assert_array_equal(FolderSource(tmp_path / "root link").read("a/x.png"), COLOUR)


def test_a_relative_root_survives_a_change_of_directory(tmp_path, monkeypatch):
    folder_of(tmp_path / "images", {"x.png": COLOUR})
    monkeypatch.chdir(tmp_path)
    source = FolderSource(Path("images"))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(source.read("x.png"), COLOUR)


def test_things_that_are_no_files(tmp_path):
    source = folder_of(tmp_path, {"a/x.png": COLOUR})
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.png").symlink_to("nothing.png")
    for path, reason in {
        "a": "is a folder",
        "": "is a folder",
        "pipe.png": "is not in the image folder",
        "dangling.png": "is not in the image folder",
        "none.png": "is not in the image folder",
        "a/x.png/y.png": "",
        "loop.png": "",
        "x" * 5000: "cannot be opened",
        "a/x.png\0": "cannot be opened",
    }.items():
        for method in (source.read, source.digest):
            with pytest.raises(ImageError, match=reason):
                method(path)


@given(st.text())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80
)
def test_any_path_is_one_error(tmp_path, path):
    with pytest.raises(ImageError):
        FolderSource(tmp_path).read(path)


# --- hostile files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"GIF89a" + bytes(40), b"%PDF-1.4\n", b"%!PS-Adobe-3.0 EPSF", b"x"]
)
def test_other_kinds_are_refused(tmp_path, data):
    assert "cannot be read as a PNG" in refusal(tmp_path, data)


def test_an_empty_file_is_refused(tmp_path):
    assert "is an empty file" in refusal(tmp_path, b"")


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_a_truncated_file_is_refused(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for share in (0.1, 0.5, 0.9):
        refusal(tmp_path, data[: int(len(data) * share)], f"cut.{EXTENSIONS[kind]}")


SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE + chunk(b"IHDR", bytes(5)),  # ValueError in Pillow
        png(2, 2, 8, 0, bytes(6), b"zTXt" + b"a\0\0" + zlib.compress(bytes(10_000_000))),
        png(2, 2, 8, 0, bytes(4)).replace(b"IEND", b"\0\0\0\0"),  # SyntaxError in Pillow
    ],
)
def test_whatever_pillow_raises_is_one_error(tmp_path, data):
    assert "is damaged and cannot be decoded (" in refusal(tmp_path, data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(tmp_path, kind):
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 90, 180)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert "several frames" in refusal(tmp_path, data)


def vp8x(width: int, height: int) -> bytes:
    def small(number: int) -> bytes:
        return struct.pack("<I", number - 1)[:3]

    pixels = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(5)
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + small(width) + small(height)
    body += b"VP8L" + struct.pack("<I", len(pixels)) + pixels
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 60, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def jpeg(width: int, height: int) -> bytes:
    data = encoded(Image.new("L", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    "data",
    [
        png(60_000, 60_000, 8, 0, b"\0"),
        png(10_001, 10_000, 8, 0, b"\0"),  # Pillow itself would only warn
        png(1, 100_000_001, 1, 0, b"\0"),
        tiff(60_000, 60_000, 8, b"\0"),
        tiff(10_001, 10_000, 16, b"\0"),
        bmp(60_000, 60_000),
        jpeg(60_000, 60_000),
        jpeg(10_001, 10_000),
        vp8x(16_383, 16_383),
        vp8x(10_001, 10_000),
    ],
)
def test_decompression_bombs_are_refused_from_the_header(tmp_path, data):
    assert len(data) < 1000
    assert "claims more than 100,000,000 pixels" in refusal(tmp_path, data)


@pytest.mark.parametrize("data", [png(0, 5, 8, 0, b""), tiff(0, 5, 8, b""), bmp(0, 5), jpeg(0, 0)])
def test_no_pixels_are_refused(tmp_path, data):
    refusal(tmp_path, data)


SEEDS = {
    kind: encoded(Image.fromarray(np.tile(COLOUR, (8, 8, 1))), kind) for kind in EXTENSIONS
} | {
    "TIFF LZW": encoded(
        Image.fromarray(np.tile(COLOUR, (8, 8, 1))), "TIFF", compression="tiff_lzw"
    ),
    "TIFF wide": tiff(2, 2, 16, bytes(8)),
    "PNG palette": encoded(Image.fromarray(GREY).convert("P"), "PNG", transparency=bytes([9, 99])),
    "PNG 16": png(2, 2, 16, 0, bytes(10)),
    "APNG": encoded(
        Image.new("L", (2, 2)), "PNG", save_all=True, append_images=[Image.new("L", (2, 2), 9)]
    ),
    "EXIF": encoded(
        Image.fromarray(GREY),
        "JPEG",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    ),
}


def reads_or_refuses(root: Path, data: bytes) -> None:
    (root / "fuzz").write_bytes(data)
    try:
        pixels, message = FolderSource(root).read("fuzz"), "'fuzz'"
    except ImageError as error:
        pixels, message = COLOUR, str(error)
    assert "'fuzz'" in message
    assert "\n" not in message
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size > 0


fuzzing = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80
)


@given(data=st.binary(min_size=1, max_size=200), start=st.sampled_from([b"", *SEEDS.values()]))
@fuzzing
def test_any_bytes_are_read_or_refused(tmp_path, data, start):
    reads_or_refuses(tmp_path, start[:16] + data)


@pytest.mark.parametrize("kind", SEEDS)
@given(data=st.data())
@fuzzing
def test_damaged_files_are_read_or_refused(tmp_path, kind, data):
    damaged = bytearray(SEEDS[kind])
    places = st.integers(0, len(damaged) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    cut = data.draw(st.none() | st.integers(1, len(damaged)))
    limit, folder.MAX_PIXELS = folder.MAX_PIXELS, 1_000_000  # a large claim would only cost time
    try:
        reads_or_refuses(tmp_path, bytes(damaged[:cut]))
    finally:
        folder.MAX_PIXELS = limit


def test_nothing_else_is_written_to_the_terminal(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    lzw = bytearray(encoded(Image.fromarray(noise), "TIFF", compression="tiff_lzw"))
    lzw[200:260] = b"\xff" * 60  # libtiff would complain from C
    tag = struct.pack("<HHII", 282, 5, 1, 10_000_000)  # Pillow would warn of data beyond the end
    files = {
        "lzw.tif": bytes(lzw),
        "tag.tif": tiff(2, 2, 8, bytes(4)).replace(struct.pack("<HHII", 339, 4, 1, 1), tag),
        "samples.tif": tiff(2, 2, 8, bytes(4)).replace(  # Pillow would log an error
            struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 1, 999)
        ),
        "bomb.png": png(10_001, 10_000, 8, 0, b"\0"),
        "exif.jpg": SEEDS["EXIF"].replace(b"\0\x01\x01\x12", b"\0\x09\x01\x12"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, pathlib; from connectors.folder import FolderSource; "
        "from ssl_core.errors import ImageError\n"
        "for name in sys.argv[2:]:\n"
        "    try: FolderSource(pathlib.Path(sys.argv[1])).read(name)\n"
        "    except ImageError as error: print(error)\n"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path), *files]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "'lzw.tif' is damaged" in done.stdout
    assert "'samples.tif' cannot be read" in done.stdout
    assert "'bomb.png' claims" in done.stdout


# --- real files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"), [("kermany", (224, 224)), ("nih", (256, 256)), ("ham10000", (150, 200))]
)
def test_real_files_are_read(name, size):
    root = Path(os.environ.get("READLOOP_DATA", "../shared/data")) / name
    if not root.is_dir():
        pytest.skip(f"no real data: set READLOOP_DATA to the folder that holds {name}")
    source = FolderSource(root)
    kinds = {".jpeg", ".jpg", ".png"}
    paths = sorted(path for path in root.rglob("*") if path.suffix in kinds)[:10]
    assert paths
    for path in paths:
        assert source.read(path.relative_to(root).as_posix()).shape == (*size, 3)


def test_a_name_without_its_ending_finds_the_only_image_of_that_name(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.2.840.png")
    source = FolderSource(tmp_path)
    np.testing.assert_array_equal(source.read("1.2.840"), pixels)
    assert source.digest("1.2.840") == source.digest("1.2.840.png")
    Image.fromarray(pixels).save(tmp_path / "1.2.840.bmp")
    with pytest.raises(ImageError, match="fits several images"):
        source.read("1.2.840")


def test_an_ending_does_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ImageError, match="leaves the image folder"):
        FolderSource(tmp_path / "in").read("link")

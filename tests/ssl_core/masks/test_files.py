"""Masks on the disk: exact round trips, damaged files, and masks that cannot be taken."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from connectors.label_studio.masks import decode_mask, encode_mask
from ssl_core.errors import ImportRefusedError, WorkspaceError
from ssl_core.images import fit_image
from ssl_core.masks.files import digest_of, fit_mask, keep, load, read_mask, unfit_mask
from ssl_core.masks.overlap import iou

QUICK = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def some_mask(height, width, seed):
    rng = np.random.default_rng(seed)
    return rng.random((height, width)) < rng.choice([0.0, 0.2, 0.9, 1.0])


def write(path, values, **options):
    Image.fromarray(np.asarray(values)).save(path, **options)
    return path


# --- kept masks --------------------------------------------------------------------------------


@QUICK
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_disk_and_label_studio_give_back_the_very_pixels(tmp_path, height, width, seed):
    mask = some_mask(height, width, seed)
    digest = keep(tmp_path, mask)
    loaded = load(tmp_path, digest)
    assert loaded.dtype == np.bool_
    np.testing.assert_array_equal(loaded, mask)
    back = decode_mask(encode_mask(loaded.astype(np.uint8)), width, height) == 1
    assert keep(tmp_path, back) == digest


def test_the_digest_knows_size_and_pixels_alone(tmp_path):
    zeros = np.zeros((2, 8), bool)
    assert len({digest_of(m) for m in (zeros, zeros.T, np.zeros((4, 4), bool), ~zeros)}) == 4
    # another packing of the same pixels, read as the same mask
    mask = some_mask(9, 7, 4)
    digest = keep(tmp_path, mask)
    write(tmp_path / f"{digest}.png", mask, compress_level=0)
    np.testing.assert_array_equal(load(tmp_path, digest), mask)


def test_a_mask_is_written_once_and_leaves_no_scratch(tmp_path):
    mask = some_mask(9, 7, 1)
    digest = keep(tmp_path / "new", mask)
    (path,) = (tmp_path / "new").iterdir()
    assert path.name == f"{digest}.png"
    before = path.stat().st_mtime_ns
    assert keep(tmp_path / "new", mask.copy()) == digest
    assert path.stat().st_mtime_ns == before


def test_damaged_and_missing_masks_are_refused_and_can_be_kept_again(tmp_path):
    mask = some_mask(30, 20, 2) | np.eye(30, 20, dtype=bool)
    digest = keep(tmp_path, mask)
    path = tmp_path / f"{digest}.png"
    whole = path.read_bytes()
    changed = mask.copy()
    changed[3, 4] ^= True
    for spoil in (
        lambda: path.write_bytes(whole[: len(whole) // 2]),
        lambda: path.write_bytes(b"no picture"),
        lambda: write(path, changed),
        lambda: write(path, mask.astype(np.uint8)),
    ):
        spoil()
        with pytest.raises(WorkspaceError, match="is damaged: put it back") as caught:
            load(tmp_path, digest)
        assert digest in str(caught.value)
    assert keep(tmp_path, mask) == digest
    np.testing.assert_array_equal(load(tmp_path, digest), mask)
    path.unlink()
    with pytest.raises(WorkspaceError, match="is missing"):
        load(tmp_path, digest)
    with pytest.raises(WorkspaceError, match="not the digest"):
        load(tmp_path, "../secret")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        keep(tmp_path / "file", np.ones((2, 2), bool))


@pytest.mark.parametrize(
    "wrong", [np.ones((2, 2)), np.ones((2, 2, 1), bool), np.ones((0, 2), bool)]
)
def test_what_is_no_mask_is_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="a mask must be"):
        keep(tmp_path, wrong)


# --- masks that a user brings ------------------------------------------------------------------

MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)


@pytest.mark.parametrize(
    "values",
    [
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(np.uint8) * 255,
        MASK.astype(np.uint16) * 60_000,
        np.repeat(MASK[..., None].astype(np.uint8) * 255, 3, axis=2),
        np.dstack([MASK.astype(np.uint8) * 9] * 3 + [np.full(MASK.shape, 255, np.uint8)]),
    ],
    ids=["bits", "ones", "white", "deep", "colour", "opaque"],
)
def test_every_way_to_save_two_values_is_read(values, tmp_path):
    found = read_mask(write(tmp_path / "m.png", values), (2, 3))
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, MASK)


def test_palettes_are_read_by_their_colours(tmp_path):
    image = Image.fromarray(MASK.astype(np.uint8) * 255).convert("P")
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (2, 3)), MASK)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 2), np.uint8), r"is 2 × 3 pixels and its image is 3 × 2"),
        (np.array([[0, 1, 2], [0, 0, 0]], np.uint8), r"holds 3 values \(0, 1, 2\)"),
        (np.arange(6, dtype=np.uint8).reshape(2, 3), r"holds 6 values \(0, 1, 2, 3, 4, …\)"),
        (np.array([[7, 8, 8], [8, 8, 8]], np.uint8), r"holds 2 values \(7, 8\)"),
        (np.zeros((2, 3), np.uint8), "is all empty"),
        (np.dstack([MASK * np.uint8(255), np.zeros((2, 3, 2), np.uint8)]), "is in colour"),
        (np.dstack([np.zeros((2, 3, 3), np.uint8), MASK * np.uint8(255)]), "partly transparent"),
    ],
)
def test_bad_masks_get_one_sentence_that_names_the_file(values, message, tmp_path):
    path = write(tmp_path / "scan-7.png", values)
    with pytest.raises(ImportRefusedError, match=message) as caught:
        read_mask(path, (2, 3))
    assert "scan-7.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_masks_get_one_sentence(tmp_path):
    with pytest.raises(ImportRefusedError, match="is missing"):
        read_mask(tmp_path / "none.png", (2, 3))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImportRefusedError, match="cannot be read as a picture"):
        read_mask(tmp_path / "text.png", (2, 3))
    path = write(tmp_path / "cut.png", np.tile(MASK, (99, 99)))
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ImportRefusedError, match="cannot be read as a picture"):
        read_mask(path, (198, 297))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_mask_is_turned_as_its_image_is(suffix, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(MASK[::-1, ::-1].astype(np.uint8) * 255).save(path, exif=exif)
    np.testing.assert_array_equal(read_mask(path, (2, 3)), MASK)


def test_of_several_frames_none_is_chosen(tmp_path):
    first, second = (Image.fromarray(m.astype(np.uint8) * 255) for m in (MASK, ~MASK))
    first.save(tmp_path / "m.tiff", save_all=True, append_images=[second])
    with pytest.raises(ImportRefusedError, match=r"m\.tiff. holds 2 frames: save the one"):
        read_mask(tmp_path / "m.tiff", (2, 3))


def test_what_is_no_number_or_no_grey_is_refused(tmp_path):
    Image.fromarray(np.where(MASK, np.nan, 0).astype(np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(ImportRefusedError, match="values that are no numbers"):
        read_mask(tmp_path / "nan.tiff", (2, 3))
    Image.fromarray(MASK.astype(np.uint8) * 255).convert("CMYK").save(tmp_path / "ink.tiff")
    with pytest.raises(ImportRefusedError, match="is in colour"):
        read_mask(tmp_path / "ink.tiff", (2, 3))


def test_colours_of_sixteen_bits_are_refused(tmp_path):
    rows = b"".join(b"\0" + bytes([0, 1] * 9) for _ in range(2))  # each 1 of 65,535

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImportRefusedError, match=r"deep\.png. has colours of 16 bits: save"):
        read_mask(tmp_path / "deep.png", (2, 3), empty=True)


def test_an_empty_mask_may_mean_absent(tmp_path):
    path = write(tmp_path / "m.png", np.zeros((2, 3), np.uint8))
    assert not read_mask(path, (2, 3), empty=True).any()


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("shape", [(90, 120), (121, 64), (64, 64)])
def test_masks_are_fitted_where_their_images_are_and_come_back(fit, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = ((y - shape[0] * 0.4) / 25) ** 2 + ((x - shape[1] * 0.5) / 22) ** 2 < 1
    fitted = fit_mask(mask, 64, fit)
    image = fit_image(np.repeat(mask[..., None].astype(np.uint8) * 200, 3, 2), 64, fit, 1)[0]
    np.testing.assert_array_equal(fitted, image > 100)
    back = unfit_mask(fitted, shape, fit)
    assert back.shape == shape
    assert iou(back[None, None], mask[None, None])[0, 0] > 0.94
    if shape == (64, 64):
        np.testing.assert_array_equal(fitted, mask)
        np.testing.assert_array_equal(back, mask)

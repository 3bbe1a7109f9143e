"""DICOM files: real ones, and made ones whose pixels are known by hand."""

from __future__ import annotations

import logging
import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from connectors.dicom import is_dicom, read_dicom
from ssl_core.errors import ImageError

DATA = Path(os.environ.get("READLOOP_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
SECRET = "SECRET^PATIENT"


def dicom(pixels: np.ndarray, *, stored: int = 0, **more: object) -> Dataset:
    """A secondary capture with these pixels, `(H, W)` or `(H, W, 3)`."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    made.PatientName = SECRET
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = stored or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def written(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read(dataset: Dataset) -> np.ndarray:
    """The grey levels, once it is sure that red, green and blue are one."""
    rgb = read_dicom(written(dataset), "x.dcm")
    assert rgb.dtype == np.uint8
    assert (rgb == rgb[:, :, :1]).all()
    return rgb[:, :, 0]


def lut(entries: list[int], first: int, bits: int, *, signed: bool = False) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


EIGHT = np.array([[0, 100], [200, 255]], np.uint8)
WIDE = np.array([[1000, 1500], [2000, 3000]], np.uint16)


def test_eight_bits_without_a_window_keep_their_values():
    assert read(dicom(EIGHT)).tolist() == EIGHT.tolist()


def test_monochrome1_is_inverted():
    made = dicom(EIGHT, PhotometricInterpretation="MONOCHROME1")
    assert read(made).tolist() == (255 - EIGHT).tolist()


def test_wide_grey_without_a_window_is_stretched_over_its_own_range():
    assert read(dicom(WIDE, stored=12)).tolist() == [[0, 64], [128, 255]]
    flat = read(dicom(np.full((2, 2), 700, np.uint16)))
    assert not flat.any()


def test_the_window_by_hand():
    """PS3.3 C.11.2.1.2.1: c = 2000, w = 1001 reaches from 1499.5 to 2499.5."""
    made = dicom(WIDE, WindowCenter=2000, WindowWidth=1001)
    assert read(made).tolist() == [[0, 0], [128, 255]]
    made.VOILUTFunction = "LINEAR_EXACT"
    made.WindowWidth = 2000  # from 1000 to 3000
    assert read(made).tolist() == [[0, 64], [128, 255]]
    made.VOILUTFunction = "SIGMOID"
    made.WindowWidth = 4000
    expected = 255 / (1 + np.exp(-4 * (WIDE - 2000.0) / 4000))
    assert read(made).tolist() == np.rint(expected).astype(int).tolist()


def test_the_first_of_several_windows_counts_and_a_width_of_one_is_a_step():
    made = dicom(WIDE, WindowCenter=[2000, 40], WindowWidth=[1001, 80])
    assert read(made).tolist() == [[0, 0], [128, 255]]
    assert read(dicom(WIDE, WindowCenter=1500, WindowWidth=1)).tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_a_window_that_cannot_be_is_as_none(width):
    made = dicom(WIDE, WindowCenter=2000, WindowWidth=width)
    assert read(made).tolist() == [[0, 64], [128, 255]]


def test_the_window_is_in_rescaled_units():
    made = dicom(WIDE, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=2001)
    # 1000, 2000, 3000, 5000 in a window from 1999.5 to 3999.5
    assert read(made).tolist() == [[0, 0], [128, 255]]


def test_signed_pixels_and_a_slope_alone():
    signed = np.array([[-1000, 0], [1000, 3000]], np.int16)
    assert read(dicom(signed)).tolist() == [[0, 64], [128, 255]]
    assert read(dicom(signed, RescaleSlope=-1)).tolist() == [[255, 191], [128, 0]]


def test_a_voi_lut_comes_before_a_window():
    levels = np.array([[0, 1], [2, 9]], np.uint8)
    made = dicom(
        levels, WindowCenter=5, WindowWidth=5, VOILUTSequence=[lut([0, 65535, 257], 0, 16)]
    )
    assert read(made).tolist() == [[0, 255], [1, 1]]  # beyond the end: the last entry


def test_a_modality_lut_comes_before_the_window():
    levels = np.array([[4, 5], [6, 7]], np.uint16)
    table = lut([1000, 1500, 2000, 3000], 4, 16)
    made = dicom(levels, ModalityLUTSequence=[table], WindowCenter=2000, WindowWidth=1001)
    assert read(made).tolist() == [[0, 0], [128, 255]]


def test_padding_is_black_and_no_part_of_the_range():
    made = dicom(np.array([[65535, 1000], [2000, 3000]], np.uint16), PixelPaddingValue=65535)
    assert read(made).tolist() == [[0, 0], [128, 255]]
    made.PhotometricInterpretation = "MONOCHROME1"
    assert read(made).tolist() == [[0, 255], [128, 0]]
    made.PixelPaddingRangeLimit = 3000
    assert read(made).tolist() == [[0, 255], [0, 0]]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_comes_out_as_rgb(photometric):
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:, :2], rgb[:, 2:] = (200, 30, 60), (10, 90, 220)
    pixels = rgb
    if photometric != "RGB":
        pixels = np.array(Image.fromarray(rgb).convert("YCbCr"))
    made = dicom(pixels, PhotometricInterpretation=photometric)
    found = read_dicom(written(made), "x").astype(int)
    assert np.abs(found - rgb).max() <= (0 if photometric == "RGB" else 2)


def test_colour_of_sixteen_bits_keeps_its_high_byte():
    rgb = np.full((2, 2, 3), 0x1234, np.uint16)
    rgb[0, 0] = (0xFFFF, 0, 0x80FF)
    found = read_dicom(written(dicom(rgb)), "x")
    assert found[0, 0].tolist() == [255, 0, 0x80]
    assert (found[1] == 0x12).all()


def test_a_palette_is_looked_up():
    made = dicom(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in {"Red": (0, 0xFF00), "Green": (0x8000, 0), "Blue": (0, 0)}.items():
        key = f"{colour}PaletteColorLookupTable"
        made.add_new(f"{key}Descriptor", "US", [2, 0, 16])
        made.add_new(f"{key}Data", "OW", np.array(entries, "<u2").tobytes())
    assert read_dicom(written(made), "x").tolist() == [[[0, 0x80, 0], [255, 0, 0]]]


def compressed_jpeg(pixels: np.ndarray) -> Dataset:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    made = dicom(pixels)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([file.getvalue()])
    made["PixelData"].is_undefined_length = True
    return made


def test_jpeg_and_rle_are_decoded():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert np.abs(read(compressed_jpeg(ramp)).astype(int) - ramp).max() <= 3
    made = dicom(ramp)
    made.compress(RLELossless)
    assert read(made).tolist() == ramp.tolist()


def without(key: str, **more: object) -> Dataset:
    made = dicom(EIGHT, **more)
    del made[key]
    return made


def named_syntax(uid: str) -> Dataset:
    made = compressed_jpeg(np.zeros((8, 8), np.uint8))
    made.file_meta.TransferSyntaxUID = uid
    return made


def deflated() -> bytes:
    made = dicom(np.zeros((2000, 2000), np.uint8))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return written(made)


def huge() -> Dataset:
    made = compressed_jpeg(np.zeros((8, 8), np.uint8))
    made.Rows = made.Columns = 65535
    return made


def cut_jpeg() -> Dataset:
    made = compressed_jpeg(np.zeros((8, 8), np.uint8))
    made.PixelData = encapsulate([b"\xff\xd8\xff\xe0 " + SECRET.encode()])
    return made


BAD = {
    "empty": (lambda: b"", "not a DICOM file"),
    "not DICOM": (lambda: b"\x89PNG" + b"\0" * 400, "not a DICOM file"),
    "the mark alone": (lambda: b"\0" * 128 + b"DICM", "damaged|without pixel data"),
    "noise behind the mark": (
        lambda: b"\0" * 128 + b"DICM" + bytes(range(256)) * 9,
        "damaged|with",
    ),
    "no pixels": (lambda: written(without("PixelData")), "without pixel data"),
    "no rows": (lambda: written(without("Rows")), "damaged"),
    "zero rows": (lambda: written(dicom(EIGHT, Rows=0)), "no pixels"),
    "zero bytes": (lambda: written(dicom(EIGHT, PixelData=b"")), "no pixels"),
    "no photometric": (lambda: written(without("PhotometricInterpretation")), "damaged"),
    "strange colours": (
        lambda: written(dicom(EIGHT, PhotometricInterpretation=SECRET)),
        "damaged",
    ),
    "several frames": (
        lambda: written(dicom(EIGHT, NumberOfFrames=2, PixelData=EIGHT.tobytes() * 2)),
        "several frames",
    ),
    "32 bits": (lambda: written(dicom(EIGHT.astype(np.uint32))), "more than 16 bits"),
    "huge": (lambda: written(huge()), "claims more than 100,000,000 pixels"),
    "too few bytes": (lambda: written(dicom(EIGHT, Rows=900)), "damaged"),
    "a JPEG that is none": (lambda: written(cut_jpeg()), "damaged"),
    "JPEG-LS": (lambda: written(named_syntax(JPEGLSLossless)), "JPEG-LS.*export it uncompressed"),
    "private syntax": (lambda: written(named_syntax("1.2.3.4.5")), "cannot be decoded here; "),
    "deflated": (deflated, "deflated"),
    "a slope of nought": (lambda: written(dicom(WIDE, RescaleSlope=0)), "damaged"),
    "an empty LUT": (
        lambda: written(dicom(WIDE, VOILUTSequence=[lut([], 0, 16)])),
        "damaged",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_sentence_without_its_values(case, caplog, capfd):
    make, expected = BAD[case]
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageError, match=expected) as caught:
        read_dicom(make(), "a.dcm")
    message = str(caught.value)
    assert message.startswith("'a.dcm' ")
    assert message.endswith(".")
    assert "\n" not in message
    told = message + caplog.text + "".join(capfd.readouterr())
    assert "SECRET" not in told


def test_every_cut_and_many_flips_of_a_file_are_an_image_or_a_sentence():
    whole = written(dicom(WIDE, stored=12, WindowCenter=2000, WindowWidth=1001))
    rng = np.random.default_rng(0)
    broken = [whole[:n] for n in range(0, len(whole), 3)]
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(128, len(data), 3):
            data[at] = rng.integers(256)
        broken.append(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in broken:
            try:
                found = read_dicom(data, "x")
            except ImageError:
                continue
            assert found.ndim == 3
            assert found.dtype == np.uint8


def test_the_mark_is_told():
    assert is_dicom(written(dicom(EIGHT)))
    assert not is_dicom(b"DICM" + b"\0" * 300)


@pytest.fixture
def real() -> Path:
    folder = DATA / "dicom"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set READLOOP_DATA to the folder of the test data")
    return folder


def test_a_real_radiograph_keeps_its_eight_bits(real):
    data = (real / "rsna_chest.dcm").read_bytes()
    found = read_dicom(data, "x")
    assert found.shape == (1024, 1024, 3)
    assert (found[:, :, 0] == pydicom.dcmread(BytesIO(data)).pixel_array).all()


def test_a_real_negative_in_jpeg_2000_is_windowed_and_inverted(real):
    data = (real / "RG1_J2KI.dcm").read_bytes()
    dataset = pydicom.dcmread(BytesIO(data))
    windowed = apply_voi_lut(dataset.pixel_array, dataset) / (2**15 - 1)
    expected = (1 - windowed) * 255
    assert np.abs(read_dicom(data, "x")[:, :, 0] - expected).max() <= 0.5


def test_a_real_voi_lut_is_applied(real):
    data = (real / "vlut_04.dcm").read_bytes()
    dataset = pydicom.dcmread(BytesIO(data))
    expected = apply_voi_lut(dataset.pixel_array, dataset) / 65535 * 255
    assert np.abs(read_dicom(data, "x")[:, :, 0] - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("file", "expected"),
    [("liver.dcm", "several frames"), ("bad_sequence.dcm", r"\(JPEG Lossless.*export it")],
)
def test_real_files_that_are_no_single_picture_are_refused(real, file, expected):
    with pytest.raises(ImageError, match=expected):
        read_dicom((real / file).read_bytes(), file)

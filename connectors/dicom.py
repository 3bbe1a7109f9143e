"""DICOM files as pictures: the pixels that a viewer would first show, as 8-bit RGB.

Only the attributes that say what the pixels mean are read: names, dates and numbers of patients
are never parsed, and no message repeats a value of the file.
"""

from __future__ import annotations

import logging
import warnings
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from ssl_core.errors import ImageError

MAX_PIXELS = 100_000_000  # as for the images in a folder

_MAGIC, _MAGIC_AT = b"DICM", 128  # PS3.10, Section 7.1
_GREY = ("MONOCHROME1", "MONOCHROME2")
_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)

FloatArray = npt.NDArray[np.float64]

# A damaged file is told as one ImageError. pydicom would also warn and log, with values of the
# file in the text; switched off for the process, as `warnings.catch_warnings` is unsafe in threads.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM file: a preamble of 128 bytes, then "DICM"."""
    return data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def read_dicom(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decode the one picture of a DICOM file to `(H, W, 3)` uint8, RGB, black to white.

    Grey pixels go through the modality LUT or rescale slope and intercept, then the VOI LUT, else
    the first window (PS3.3, C.11.1 and C.11.2). Without a usable window, pixels of at most 8 bits
    that are not rescaled keep their values, and others are mapped linearly from the image's own
    minimum..maximum. MONOCHROME1 is inverted; padding is black. Colour comes out as RGB, of more
    than 8 bits the highest 8. Nothing is turned or mirrored, and overlays are not drawn.

    Args:
        data: the file's bytes.
        name: what messages call the file.

    Raises:
        ImageError: not DICOM, no picture or several, more than `MAX_PIXELS` pixels, a compression
            that cannot be decoded here, or damaged; one sentence.
    """
    try:
        dataset = _dataset(data, name)
        _check(dataset, name)
        pixels = pixel_array(dataset)
        grey = dataset.PhotometricInterpretation in _GREY
        return _grey(dataset, pixels) if grey else _colour(dataset, pixels)
    except ImageError:
        raise
    except Exception as error:  # hostile bytes make the parser and the decoders raise any class
        raise ImageError(
            f"{name!r} is a damaged DICOM file and cannot be decoded ({type(error).__name__}); "
            "export it again."
        ) from None  # the parser's message may repeat values of the file


def _dataset(data: bytes, name: str) -> Any:
    if not is_dicom(data):
        raise ImageError(f"{name!r} is not a DICOM file: it lacks the mark that all begin with.")
    # Looked for before parsing, which would inflate the whole file, however much that is.
    if str(DeflatedExplicitVRLittleEndian).encode() in data:
        raise ImageError(f"{name!r} is a deflated DICOM file; export it without deflation.")
    return pydicom.dcmread(BytesIO(data), specific_tags=list(_TAGS))


def _check(dataset: Any, name: str) -> None:
    """Refuse what is no single picture, before anything is decoded."""
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError(f"{name!r} is a DICOM file without pixel data; send the image itself.")
    if "PixelData" not in dataset or dataset.BitsAllocated > 16:
        raise ImageError(f"{name!r} has pixels of more than 16 bits; export it with 16 or fewer.")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise ImageError(f"{name!r} holds several frames; save the one to read as its own file.")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows < 1 or columns < 1 or not dataset.PixelData:
        raise ImageError(f"{name!r} has no pixels; export it again.")
    if rows * columns > MAX_PIXELS:
        raise ImageError(f"{name!r} claims more than {MAX_PIXELS:,} pixels; make it smaller.")
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not _decodable(syntax):
        raise ImageError(
            f"{name!r} is compressed in a way that cannot be decoded here"
            f"{f' ({syntax.name})' if not syntax.is_private and syntax.name != syntax else ''}; "
            "export it uncompressed, or as JPEG, JPEG 2000 or RLE."
        )


def _decodable(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:  # a syntax that pydicom does not know
        return False


def _grey(dataset: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Look every stored value up in a table: at most 65,536 values are worked out, not pixels."""
    if pixels.ndim != 2:
        raise ValueError("grey pixels must be (H, W)")
    low = int(pixels.min())
    places = pixels.astype(np.int32) - low
    occurs = np.bincount(places.ravel()) > 0
    stored = np.arange(low, low + len(occurs))
    padding = _padding(dataset, stored)
    shown = _shown(dataset, stored, occurs & ~padding)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    table = np.rint(shown * 255).astype(np.uint8)
    table[padding] = 0
    return np.repeat(table[places][:, :, None], 3, axis=2)


def _padding(dataset: Any, stored: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which stored values fill the picture up (PS3.3, C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _shown(
    dataset: Any, stored: npt.NDArray[np.int64], counts: npt.NDArray[np.bool_]
) -> FloatArray:
    """Stored values `(v,)` as brightness in [0, 1]; `counts` says which ones the picture holds."""
    real, plain = _modality(dataset, stored)
    if lut := _item(dataset, "VOILUTSequence"):
        values, depth = _looked_up(lut, np.rint(real).astype(np.int64))
        return np.asarray(np.clip(values / (2.0**depth - 1), 0, 1))
    windowed = _windowed(dataset, real)
    if windowed is not None:
        return windowed
    if plain and dataset.BitsStored <= 8 and dataset.PixelRepresentation == 0:
        return np.asarray(np.clip(real / (2.0 ** int(dataset.BitsStored) - 1), 0, 1))
    held = real[counts]
    if not len(held) or held.min() == held.max():
        return np.zeros(real.shape)
    low, high = held.min(), held.max()
    return np.asarray(np.clip((real - low) / (high - low), 0, 1))


def _modality(dataset: Any, stored: npt.NDArray[np.int64]) -> tuple[FloatArray, bool]:
    """The values that the modality LUT or rescaling gives, and whether nothing was changed."""
    if lut := _item(dataset, "ModalityLUTSequence"):
        return _looked_up(lut, stored)[0], False
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    intercept = 0.0 if intercept is None else float(intercept)
    if slope == 0 or not np.isfinite(slope + intercept):
        raise ValueError("rescaling is not a line")
    return stored.astype(np.float64) * slope + intercept, (slope, intercept) == (1.0, 0.0)


def _item(dataset: Any, key: str) -> Any:
    """The first item of a sequence if it holds a whole look-up table, else None."""
    items = dataset.get(key)
    whole = items and "LUTDescriptor" in items[0] and "LUTData" in items[0]
    return items[0] if whole else None


def _looked_up(item: Any, values: npt.NDArray[np.int64]) -> tuple[FloatArray, int]:
    """Values through a LUT, beyond its ends the first and last entry; and bits an entry."""
    entries, first, depth = (int(part) for part in item.LUTDescriptor)
    entries = entries or 2**16  # PS3.3, C.11.1.1: 0 stands for 65,536
    data = item.LUTData
    if isinstance(data, bytes):
        packed = depth <= 8 and len(data) < 2 * entries
        data = np.frombuffer(data, np.uint8 if packed else np.dtype("<u2"))
    table = np.atleast_1d(np.asarray(data, dtype=np.float64))[:entries]
    if not len(table) or not np.isfinite(table).all():
        raise ValueError("the look-up table is empty")
    return table[np.clip(values - first, 0, len(table) - 1)], depth


def _windowed(dataset: Any, real: FloatArray) -> FloatArray | None:
    """Through the first window (PS3.3, C.11.2.1.2 and C.11.2.1.3); None if there is none to use."""
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or not np.isfinite(center + width):
        return None
    if width < 1 and (function == "LINEAR" or width <= 0):
        return None
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (real - center) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.asarray(np.clip((real - center) / width + 0.5, 0, 1))
    if width == 1:
        return np.where(real > center - 0.5, 1.0, 0.0)
    return np.asarray(np.clip((real - (center - 0.5)) / (width - 1) + 0.5, 0, 1))


def _first(dataset: Any, key: str) -> float | None:
    value = dataset.get(key)
    if value is None or value == "":
        return None
    several = not isinstance(value, str) and hasattr(value, "__len__")
    return float(value[0] if several else value)


def _colour(dataset: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """RGB, `(H, W, 3)`; pydicom has turned YBR into RGB already."""
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        bits = 8 * pixels.dtype.itemsize
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype.kind != "u":
        raise ValueError("colour pixels must be (H, W, 3) and unsigned")
    return (pixels >> max(0, bits - 8)).astype(np.uint8)

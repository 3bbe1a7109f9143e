"""Images in a folder: PNG, JPEG, TIFF, WebP and BMP files, each read to plain 8-bit RGB."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import warnings
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging

from ssl_core.errors import ImageError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".PNG", ".JPG", ".JPEG")
MAX_PIXELS = 100_000_000

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WIDE_MODES = ("I", "F")  # and "I;16", "I;16B", ...: grey with more than 8 bits
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

# A damaged file is told as one ImageError. Pillow would also warn and log, and libtiff would write
# its own lines to the terminal from C. They are switched off for the process, not for each read,
# because `warnings.catch_warnings` is not safe while several threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


class FolderSource:
    """The images below `root`, named by POSIX paths relative to it (an `ImageSource`).

    A path that leaves the folder is refused, by itself or through a symbolic link. Safe to use
    from several threads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def digest(self, path: str) -> str:
        """First 32 hexadecimal digits of the SHA-256 of the file's bytes. Raises `ImageError`."""
        with _opened(self.root, path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """Decode one image to `(H, W, 3)` uint8, RGB, upright by its EXIF orientation.

        Grey of more than 8 bits (16-bit, 32-bit, float) is mapped linearly from the image's own
        minimum..maximum to 0..255, and to zeros when it is constant; colour of 16 bits keeps its
        high byte. Transparency is composited on black. Of a multi-picture JPEG the first is read.
        Raises `ImageError`, one sentence that names the path, for everything that is not one
        picture of at most `MAX_PIXELS` pixels; the size is checked before anything is decoded.
        """
        with _opened(self.root, path) as file:
            return decode(file, path)

    def locate(self, path: str) -> Path:
        """Where a file below the folder is, there or not; names are completed as for images.

        Raises `ImageError` when the path leaves the folder, by itself or through a link.
        """
        try:
            return _inside(self.root, path)
        except (OSError, ValueError, RuntimeError) as error:  # NUL, link loop, name too long
            raise _unusable(path, error) from error


def decode(file: BinaryIO, path: str) -> npt.NDArray[np.uint8]:
    """Decode an open image as `FolderSource.read` does; `path` is its name in messages.

    Raises `ImageError`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_header(image, path)
            return _rgb(image, path)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path!r} cannot be read as a PNG, JPEG, TIFF, WebP or BMP image; "
            "convert it or leave it out."
        ) from error
    except Exception as error:  # hostile bytes make Pillow raise nearly any class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path!r} is damaged and cannot be decoded ({reason}); replace it or leave it out."
        ) from error


@contextlib.contextmanager
def _opened(root: Path, path: str) -> Iterator[BufferedReader]:
    """Open a regular, not empty file below `root`; every refusal is an `ImageError`."""
    try:
        full = _inside(root, path)
        if full.is_dir():
            raise ImageError(f"{path!r} is a folder, not an image file.")
        if not full.is_file():  # also a pipe or a device, which could block for ever
            raise ImageError(f"{path!r} is not in the image folder; check the path.")
        if full.stat().st_size == 0:
            raise ImageError(f"{path!r} is an empty file; replace it or leave it out.")
        file = full.open("rb")
    except (OSError, ValueError, RuntimeError) as error:  # NUL, link loop, name too long
        raise _unusable(path, error) from error
    with file:
        yield file


def _unusable(path: str, error: Exception) -> ImageError:
    reason = getattr(error, "strerror", None) or "not a usable file name"
    return ImageError(f"{path!r} cannot be opened ({reason}); check the path.")


def _inside(root: Path, path: str) -> Path:
    """The file's real place, refused when it is not below `root`."""
    windows = PureWindowsPath(path)  # knows both kinds of slash
    leaves = PurePosixPath(path).is_absolute() or windows.root or ".." in windows.parts
    full = _completed((root / path).resolve(), path) if not leaves else root
    if leaves or not full.is_relative_to(root):
        raise ImageError(f"{path!r} leaves the image folder; give a path below it.")
    return full


def _completed(full: Path, path: str) -> Path:
    """The file itself, or the only image that has its name before the ending.

    Many manifests name an image without its ending ("ISIC_0034308").
    """
    if full.exists():
        return full
    named = [full.with_name(full.name + ending) for ending in ENDINGS]
    there = {one.resolve() for one in named if one.is_file()}
    if len(there) > 1:
        raise ImageError(f"{path!r} fits several images; write its ending too.")
    return there.pop() if there else full


def _check_header(image: Image.Image, path: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{path!r} has no pixels; replace it or leave it out.")
    if width * height > MAX_PIXELS:
        raise _too_large(path)
    # The second picture of an "MPO" JPEG is a preview or a gain map, never another exposure.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError(f"{path!r} holds several frames; save the one to read as its own file.")


def _too_large(path: str) -> ImageError:
    return ImageError(f"{path!r} claims more than {MAX_PIXELS:,} pixels; make it smaller.")


def _rgb(image: Image.Image, path: str) -> npt.NDArray[np.uint8]:
    image.load()
    turn = _TURNS.get(_orientation(image))
    upright = image.transpose(turn) if turn is not None else image
    if upright.mode in _WIDE_MODES or upright.mode.startswith("I;16"):
        grey = _stretched(np.asarray(upright, dtype=np.float64), path)
        if _white_is_zero(image):
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(upright.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 after `load`; 1 where the metadata cannot be read, as viewers do.

    Pillow turns a TIFF itself while loading and drops the tag, hence after.
    """
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata is a parser's playground; the pixels are what counts
        return 1


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF stores negatives; Pillow mends that for 8 bits and fewer only."""
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO


def _stretched(values: npt.NDArray[np.float64], path: str) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise ImageError(f"{path!r} holds pixels that are not finite numbers; repair it.")
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values - low) / (high - low) * 255).astype(np.uint8)

"""Masks on the disk: PNG files named by what they show, and masks that a user brings.

A kept mask is `<digest>.png`, one bit a pixel. The digest is the SHA-256 of its size and pixels and
not of the file's bytes, so one mask has one name whichever library packed it; reading a file
checks its pixels against its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ssl_core.errors import ImportRefusedError, WorkspaceError
from ssl_core.images import Fit, fit_image
from ssl_core.masks.overlap import Bools

_NAMED = 5


def digest_of(mask: Bools) -> str:
    """SHA-256 of a mask's size and pixels, 64 hexadecimal digits. mask: `(H, W)` boolean."""
    mask = _mask(mask)
    head = f"mask {mask.shape[0]} {mask.shape[1]}\n".encode()
    return hashlib.sha256(head + np.packbits(mask, axis=None).tobytes()).hexdigest()


def keep(folder: Path, mask: Bools) -> str:
    """Write a mask `(H, W)`, not empty of pixels, as `<digest>.png`; return the digest.

    The write is atomic, and a mask that is there already is left alone unless it is damaged.
    Raises `WorkspaceError` when the folder cannot be written.
    """
    digest = digest_of(mask)
    target = folder / f"{digest}.png"
    if _pixels(target, digest) is not None:
        return digest
    packed = io.BytesIO()
    Image.fromarray(_mask(mask)).save(packed, "PNG")
    scratch = folder / f".{digest}.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(packed.getvalue())
        scratch.replace(target)
    except OSError as error:
        raise WorkspaceError(
            f"The mask {str(target)!r} cannot be written ({error.strerror}); mend that and run "
            "again."
        ) from error
    return digest


def load(folder: Path, digest: str) -> Bools:
    """The mask `(H, W)` that `keep` wrote. Raises `WorkspaceError` if it is missing or damaged."""
    target = folder / f"{digest}.png"
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise WorkspaceError(f"{digest!r} is not the digest of a mask: give 64 hexadecimal digits.")
    if not target.is_file():
        raise WorkspaceError(f"The mask {str(target)!r} is missing: put it back from a copy.")
    mask = _pixels(target, digest)
    if mask is None:
        raise WorkspaceError(f"The mask {str(target)!r} is damaged: put it back from a copy.")
    return mask


def read_mask(path: Path, size: tuple[int, int], *, empty: bool = False) -> Bools:
    """A mask file that a user brings, `(H, W)`: PNG, 0 outside, one other value inside.

    Any picture that Pillow reads without loss of values is taken: bilevel, grey of 8 or 16 bits,
    a palette by its colours, or colour whose channels are equal; an alpha channel must be opaque.
    It is turned upright by its EXIF orientation, as images are.

    Args:
        path: the file.
        size: `(H, W)` of the image that it belongs to.
        empty: take a mask without a pixel, which says that the finding is absent.

    Raises:
        ImportRefusedError: one sentence that names the file and what is wrong with it.
    """
    values = _values(path)
    if values.shape != size:
        raise ImportRefusedError(
            f"Mask {str(path)!r} is {values.shape[1]} × {values.shape[0]} pixels and its image is "
            f"{size[1]} × {size[0]}: give a mask of the image's own size."
        )
    found = np.unique(values)
    inside = found[found != 0]
    if len(inside) > 1:
        some = ", ".join(map(str, found[:_NAMED])) + (", …" if len(found) > _NAMED else "")
        raise ImportRefusedError(
            f"Mask {str(path)!r} holds {len(found)} values ({some}): save it as PNG with 0 outside "
            "and one other value inside, without smoothing, one finding a file."
        )
    if not len(inside) and not empty:
        raise ImportRefusedError(
            f"Mask {str(path)!r} is all empty: draw the finding, or leave the cell blank if nobody "
            "has looked, or say that empty masks mean absent (init --empty-masks absent)."
        )
    return np.asarray(values != 0)


def fit_mask(mask: Bools, size: int, fit: Fit) -> Bools:
    """A mask `(H, W)` at the working size, `(size, size)`, fitted as `fit_image` fits its image.

    The same resampling, cut at one half: what an edge pixel shows more of, it is. A finding
    smaller than half a pixel is lost.
    """
    white = np.repeat(_mask(mask)[..., None].astype(np.uint8) * 255, 3, axis=2)
    return np.asarray(fit_image(white, size, fit, 1)[0] >= 128)


def unfit_mask(mask: Bools, size: tuple[int, int], fit: Fit) -> Bools:
    """A mask `(s, s)` of the working size at an image's own size `(H, W)`, smoothly enlarged.

    The inverse of `fit_mask` but for what the working size cannot show; for overlays and for
    masks that are sent to a reader.
    """
    height, width = size
    side, longest = len(mask), max(height, width)
    rows, columns = side, side
    if fit == "pad":
        rows, columns = (
            max(1, round(height * side / longest)),
            max(1, round(width * side / longest)),
        )
    top, left = (side - rows) // 2, (side - columns) // 2
    inner = _mask(mask)[top : top + rows, left : left + columns].astype(np.uint8) * 255
    large = Image.fromarray(inner).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(np.asarray(large) >= 128)


def _values(path: Path) -> npt.NDArray[np.integer]:
    """One number a pixel, `(H, W)`, as the file has it."""
    if not path.is_file():
        raise ImportRefusedError(
            f"Mask {str(path)!r} is missing: correct the path in the manifest."
        )
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            deep = image.mode in ("RGB", "RGBA") and _sixteen_bits(path)
            inked = image.mode in ("CMYK", "YCbCr", "LAB", "HSV")
            several = image.mode in ("P", "PA", "LA")
            upright = ImageOps.exif_transpose(image)  # as its image is, see connectors.folder
            values = np.asarray(upright.convert("RGBA") if several else upright)
    except Exception as error:  # damaged bytes raise whatever they happen to spell
        raise ImportRefusedError(
            f"Mask {str(path)!r} cannot be read as a picture ({type(error).__name__}): "
            "save it as PNG again."
        ) from None
    if frames > 1:
        raise ImportRefusedError(
            f"Mask {str(path)!r} holds {frames} frames: save the one that is meant as its own file."
        )
    if not np.isfinite(values).all():
        raise ImportRefusedError(
            f"Mask {str(path)!r} holds values that are no numbers: save it as PNG with 0 outside "
            "and one other value inside."
        )
    if deep:  # of which Pillow would read the upper half: small values would be empty
        raise ImportRefusedError(
            f"Mask {str(path)!r} has colours of 16 bits: save it in grey, one finding a file."
        )
    values = values.astype(np.uint8) if values.dtype == np.bool_ else values
    if values.ndim == 2:
        return values
    if values.shape[2] == 4 and not inked and (values[..., 3] != 255).any():
        raise ImportRefusedError(
            f"Mask {str(path)!r} is partly transparent: save it as PNG without an alpha channel."
        )
    colours = values[..., :3]
    if inked or (colours != colours[..., :1]).any():
        raise ImportRefusedError(
            f"Mask {str(path)!r} is in colour: save it in grey, one finding a file."
        )
    return np.asarray(colours[..., 0])


def _sixteen_bits(path: Path) -> bool:
    """Whether a PNG has 16 bits a channel: the 25th byte, behind signature and size, says so."""
    with path.open("rb") as file:
        head = file.read(25)
    return head[:4] == b"\x89PNG" and head[24:] == b"\x10"


def _pixels(path: Path, digest: str) -> Bools | None:
    """The mask in a kept file; None where it is missing or not the one of that name."""
    try:
        with Image.open(path) as image:
            mask = np.asarray(image)
    except Exception:  # damaged bytes raise whatever they happen to spell
        return None
    if mask.dtype != np.bool_ or mask.ndim != 2 or digest_of(mask) != digest:
        return None
    return mask


def _mask(mask: Bools) -> Bools:
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise ValueError(f"a mask must be (H, W) bool with pixels, not {mask.dtype} {mask.shape}")
    return mask

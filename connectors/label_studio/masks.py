"""Brush masks of Label Studio: run-length packed RGBA, whose alpha is what was painted.

The packing is thi.ng's rle-pack: 32 bits for the count of values, 5 for their width, four widths
of run lengths of 4 bits each; then runs, each one bit (repeated or literal), two bits that pick a
width, the length less one, and the values. Its own decoder in the SDK turns every bit into a
character and trusts what it is given; this one is bounded by the size that it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_SIDE = 10_000
_HEAD_BITS = 53
_CHANNELS = 4
_PAINTED = 127  # alpha above this; the edges of a stroke are smoothed


def region_mask(region: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """The `(H, W)` mask of 0 and 1 that one brush region of a result holds.

    Raises `ValueError` with a phrase that says what is wrong.
    """
    width, height = region.get("original_width"), region.get("original_height")
    for side in (width, height):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise ValueError(f"its sides are not whole numbers from 1 to {MAX_SIDE:,}")
    if region.get("image_rotation", 0) != 0:
        raise ValueError("its image was rotated")
    value = region["value"]
    if value.get("format") != "rle":
        raise ValueError("it is not run-length packed")
    return decode_mask(value.get("rle"), int(width), int(height))  # type: ignore[arg-type]


def decode_mask(rle: object, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Unpack Label Studio's bytes (a list of 0..255) to a `(height, width)` mask of 0 and 1.

    Raises `ValueError` when the bytes are damaged or of another size.
    """
    count = width * height * _CHANNELS
    bits = _bits(rle, count)
    sizes = [_number(bits, 37 + 4 * i, 4) + 1 for i in range(_CHANNELS)]
    if _number(bits, 0, 32) != count or _number(bits, 32, 5) + 1 != 8:
        raise ValueError("it does not fit the size of the image")
    mask = np.zeros(width * height, dtype=np.uint8)
    at, done = _HEAD_BITS, 0
    while done < count:
        repeated, size = _number(bits, at, 1), sizes[_number(bits, at + 1, 2)]
        length = _number(bits, at + 3, size) + 1
        at += 3 + size
        end = at + 8 * (1 if repeated else length)
        if done + length > count or end > bits.size:
            raise ValueError("it is damaged")
        values = np.packbits(bits[at:end])
        # Only alpha, every fourth value, is kept: pixel i has its own at 4 i + 3.
        alpha = values if repeated else values[(3 - done) % _CHANNELS :: _CHANNELS]
        mask[done // _CHANNELS : (done + length) // _CHANNELS] = alpha > _PAINTED
        at, done = end, done + length
    return mask.reshape(height, width)


def encode_mask(mask: npt.NDArray[np.uint8]) -> list[int]:
    """Pack a `(H, W)` mask of 0 and 1 as Label Studio's bytes: white where 1, clear where 0."""
    flat = np.repeat(mask.reshape(-1).astype(bool), _CHANNELS)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = [0, *edges.tolist()]
    head = _binary(flat.size, 32) + _binary(7, 5) + 4 * _binary(15, 4)
    runs = []
    for start, end in zip(starts, [*starts[1:], flat.size], strict=True):
        for begin in range(start, end, 1 << 16):
            length = min(end - begin, 1 << 16)
            runs.append("100" + _binary(length - 1, 16) + ("1" if flat[start] else "0") * 8)
    text = head + "".join(runs)
    packed = np.packbits(np.frombuffer(text.encode(), dtype=np.uint8) - ord("0"))
    return [int(byte) for byte in packed]


def _bits(rle: object, count: int) -> npt.NDArray[np.uint8]:
    """One 0 or 1 a bit. Packing never makes much more than the values themselves."""
    if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in rle):
        raise ValueError("it is not a list of bytes")
    if not _HEAD_BITS <= 8 * len(rle) <= _HEAD_BITS + 32 * count + 64:
        raise ValueError("it does not fit the size of the image")
    return np.unpackbits(np.array(rle, dtype=np.uint8))


def _number(bits: npt.NDArray[np.uint8], at: int, width: int) -> int:
    if at + width > bits.size:
        raise ValueError("it is damaged")
    number = 0
    for bit in bits[at : at + width].tolist():
        number = number << 1 | bit
    return number


def _binary(number: int, width: int) -> str:
    return format(number, f"0{width}b")

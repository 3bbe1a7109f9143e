"""Uploads of the prediction API: a request's bytes, held in memory alone, as a picture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import HTTPException, Request
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from connectors.dicom import is_dicom, read_dicom
from connectors.folder import decode
from ssl_core.errors import ImageError

BODY_SECONDS = 60.0  # a sender that takes longer than this is given up
NAME = "upload"  # what messages call it: a file's own name may be a patient's

_MARKS = (
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
    ("webp", 8, b"WEBP"),
    ("bmp", 0, b"BM"),
)


@dataclass(frozen=True, slots=True)
class Upload:
    """A decoded upload: `rgb` `(H, W, 3)` uint8, upright, and the format of its bytes."""

    format: str
    rgb: npt.NDArray[np.uint8]


def format_of(data: bytes) -> str | None:
    """The format that the first bytes tell, whatever name or content type came along."""
    if is_dicom(data):
        return "dicom"
    found = (kind for kind, at, mark in _MARKS if data[at : at + len(mark)] == mark)
    return next(found, None)


def decoded(data: bytes) -> Upload:
    """Decode an upload as `readloop init` decodes a file.

    Raises:
        HTTPException: 415, not a format that is read; 422, empty, damaged, too large or several
            pictures.
    """
    if not data:
        raise HTTPException(422, "The image is empty: send the bytes of one image.")
    kind = format_of(data)
    if kind is None:
        raise HTTPException(
            415, "This is not an image that can be read: send a PNG, a JPEG or a DICOM file."
        )
    try:
        rgb = read_dicom(data, NAME) if kind == "dicom" else decode(BytesIO(data), NAME)
    except ImageError as error:
        raise HTTPException(422, str(error)) from None
    return Upload(kind, rgb)


async def received(request: Request, max_bytes: int) -> bytes:
    """The image's bytes, from a raw body or from the one file of a multipart form.

    Raises:
        HTTPException: 413, more than `max_bytes`; 408, too slow; 400, not a usable form.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request, max_bytes)
    except TimeoutError:
        raise HTTPException(
            408, f"The upload took longer than {BODY_SECONDS:.0f} s: try again."
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "The upload was cut off: send it again.") from None
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return await _file_of_form(request, body) if kind == "multipart/form-data" else body


async def _body(request: Request, max_bytes: int) -> bytes:
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(
        413, f"The upload is larger than {max_bytes / 2**20:g} MB: send a smaller image."
    )


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, once(), max_files=1, max_fields=10)
    parser.spool_max_size = len(body) + 1  # never onto the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HTTPException(400, f"The form cannot be used ({_reason(error)}).") from None
    files: list[Any] = [part for _, part in form.multi_items() if not isinstance(part, str)]
    if not files:
        raise HTTPException(400, "The form holds no file: send one image as the field `image`.")
    try:
        data: bytes = await files[0].read()
        return data
    finally:
        await form.close()


def _reason(error: Exception) -> str:
    if isinstance(error, MultiPartException) and error.message.startswith("Too many files"):
        return "more than one file: send one image a request"
    return "it is not a whole multipart form: send one image as the field `image`"

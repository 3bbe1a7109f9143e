"""Pixels at the working size: decoded once, in parallel, kept as one uint8 memory map.

A store is a folder of three files. `pixels.u8` holds the rows, `(N, C, size, size)`; `done.u8`
one byte a row, 1 once that row is on the disk; `index.json` says which item each row is and how
the images were fitted.

Why a killed build can be gone on with: the index is replaced in one step, and only when the
other two files have their full size. A row's flag is written after its pixels were synced, so a
flagged row is whole, whatever stopped the process or the machine; the rows of the batch at hand
have no flag yet and are decoded again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssl_core.errors import ImageError, WorkspaceError
from ssl_core.source import ImageSource

Fit = Literal["pad", "squash"]
Progress = Callable[[int, int], None]

BATCH_ROWS = 256  # rows decoded between two syncs: what a kill can cost
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image that could not be read, and the sentence that says why."""

    id: str
    path: str
    message: str


_Result = npt.NDArray[np.uint8] | Refusal
_Work = Callable[[int], _Result]


@dataclass(frozen=True, slots=True)
class _Index:
    """What the rows are; `refused` items have no row."""

    ids: tuple[str, ...]
    size: int
    fit: Fit
    channels: Literal[1, 3]
    refused: tuple[Refusal, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.ids), self.channels, self.size, self.size

    @property
    def row_bytes(self) -> int:
        return self.channels * self.size * self.size

    def digest(self) -> str:
        """Equal exactly when the rows are: ids in order, size, fit and channels."""
        rows = [self.size, self.fit, self.channels, *self.ids]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


class ImageStore:
    """Every item's pixels, `(N, C, size, size)` uint8, in the order of `ids`."""

    def __init__(self, folder: Path, index: _Index, array: npt.NDArray[np.uint8]) -> None:
        self.ids, self.size = index.ids, index.size
        self.fit, self.channels = index.fit, index.channels
        self.array = array
        self.folder = folder
        self._rows = {item_id: row for row, item_id in enumerate(index.ids)}

    @classmethod
    def build(
        cls,
        folder: Path,
        items: Sequence[tuple[str, str]],
        source: ImageSource,
        *,
        size: int,
        fit: Fit,
        channels: Literal[1, 3],
        progress: Progress | None = None,
        skip_unreadable: bool = False,
    ) -> tuple[ImageStore, list[Refusal]]:
        """Decode `items`, pairs of a unique id and a path, into `folder`, and open the store.

        Goes on with an unfinished store of the same items and settings, does nothing to a
        finished one, and starts afresh in place of any other. `progress(done, total)` is called
        in this thread, first for what was there already; what it raises stops the build, which
        keeps its finished rows. One process at a time may build in a folder.

        Unreadable images are left out of the store and returned when `skip_unreadable`, and
        remembered, so that the next build with or without them has nothing to do. Else raises
        one `ImageError` that names them, once all the others are done. Raises `WorkspaceError`
        when the folder cannot be written.
        """
        wanted = _Index(tuple(item_id for item_id, _ in items), size, fit, channels)
        if len(set(wanted.ids)) != len(items):
            raise ValueError("an id occurs twice among the items")
        try:
            index = _resumable(folder, wanted) or _create(folder, wanted)
            refused = _fill(folder, index, dict(items), source, progress)
            if skip_unreadable and refused:
                index = _drop(folder, index, refused)
        except OSError as error:
            raise WorkspaceError(
                f"The image store {str(folder)!r} cannot be written ({error.strerror}); "
                "mend that and run again."
            ) from error
        asked = set(wanted.ids)
        refused = [one for one in index.refused if one.id in asked] or refused
        if refused and not skip_unreadable:
            raise _unreadable(refused, len(items))
        return cls.open(folder), refused

    @classmethod
    def open(cls, folder: Path) -> ImageStore:
        """Map a finished store for reading. Raises `WorkspaceError` for any other."""
        index = _read_index(folder)
        if index is None:
            raise WorkspaceError(
                f"There is no image store in {str(folder)!r}; put that folder back from a copy, or "
                "import the images again."
            )
        if not _whole(folder, index):
            raise WorkspaceError(
                f"The image store {str(folder)!r} has files of the wrong size; put that folder "
                "back from a copy, or import the images again."
            )
        done = int(np.count_nonzero(_flags(folder)))
        if done < len(index.ids):
            raise WorkspaceError(
                f"The image store {str(folder)!r} is unfinished ({done} of {len(index.ids)} "
                "images); import the images again to go on."
            )
        return cls(folder, index, _mapped(folder, index))

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of `array`, `(n,)` int64, in the order asked. Raises `KeyError`."""
        try:
            return np.array([self._rows[item_id] for item_id in ids], dtype=np.int64)
        except KeyError as error:
            raise KeyError(f"item {error.args[0]!r} is not in the image store") from None

    def pixels(self, ids: Sequence[str]) -> npt.NDArray[np.uint8]:
        """Copy of those items' pixels, `(n, C, size, size)`, in the order asked."""
        return np.asarray(self.array[self.positions(ids)])


def fit_image(
    rgb: npt.NDArray[np.uint8], size: int, fit: Fit, channels: Literal[1, 3]
) -> npt.NDArray[np.uint8]:
    """Bring `(H, W, 3)` uint8 to `(channels, size, size)`: antialiased bicubic, up or down.

    "pad" keeps the aspect, centres the image and fills with black (the odd row or column goes
    below or right); "squash" stretches each axis by itself. One channel is the luma of ITU-R
    BT.601, (299 R + 587 G + 114 B) / 1000, which leaves a grey image as it was.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ValueError(f"an image must be (H, W, 3) uint8 and not empty, not {rgb.shape}")
    height, width = rgb.shape[:2]
    longest = max(height, width)
    new_height, new_width = size, size
    if fit == "pad":
        new_height = max(1, round(height * size / longest))
        new_width = max(1, round(width * size / longest))
    image = Image.fromarray(rgb)
    if channels == 1:
        image = image.convert("L")
    if image.size != (new_width, new_height):
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).reshape(new_height, new_width, channels).transpose(2, 0, 1)
    out = np.zeros((channels, size, size), dtype=np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    out[:, top : top + new_height, left : left + new_width] = pixels
    return out


def looks_grey(rgb: npt.NDArray[np.uint8], tolerance: int = 8) -> bool:
    """Whether red, green and blue differ by `tolerance` (of 255) at most in every pixel."""
    return bool((rgb.max(axis=2) - rgb.min(axis=2)).max(initial=0) <= tolerance)


def _fill(
    folder: Path,
    index: _Index,
    paths: dict[str, str],
    source: ImageSource,
    progress: Progress | None,
) -> list[Refusal]:
    """Decode the rows that have no flag; rows are written by this thread alone."""
    flags = _flags(folder)
    done, total = int(np.count_nonzero(flags)), len(flags)
    report = progress or (lambda done, total: None)
    report(done, total)

    def decode(row: int) -> npt.NDArray[np.uint8] | Refusal:
        item_id = index.ids[row]
        try:
            rgb = source.read(paths[item_id])
        except ImageError as error:
            return Refusal(item_id, paths[item_id], str(error))
        return fit_image(rgb, index.size, index.fit, index.channels)

    refused: list[Refusal] = []
    written: list[int] = []
    with (folder / "pixels.u8").open("r+b") as pixels, (folder / "done.u8").open("r+b") as marks:
        results = _in_parallel(decode, np.flatnonzero(flags == 0).tolist())
        try:
            for row, result in results:
                if isinstance(result, Refusal):
                    refused.append(result)
                else:
                    pixels.seek(row * index.row_bytes)
                    pixels.write(result.tobytes())
                    written.append(row)
                if len(written) == BATCH_ROWS:
                    _mark(pixels, marks, written)
                done += 1
                report(done, total)
        finally:
            results.close()
            _mark(pixels, marks, written)
    return refused


def _in_parallel(work: _Work, rows: Iterable[int]) -> Generator[tuple[int, _Result]]:
    """Yield `(row, work(row))` in order; only a few per core are under way at any time.

    Threads, because Pillow decodes and resizes without the interpreter's lock.
    """
    workers = os.cpu_count() or 1
    pending: deque[tuple[int, Future[_Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for row in rows:
                pending.append((row, pool.submit(work, row)))
                if len(pending) == 4 * workers:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _mark(pixels: BinaryIO, marks: BinaryIO, rows: list[int]) -> None:
    """Sync the pixels, then flag the rows, and forget them."""
    pixels.flush()
    os.fsync(pixels.fileno())
    for row in rows:
        marks.seek(row)
        marks.write(b"\1")
    marks.flush()
    os.fsync(marks.fileno())
    rows.clear()


def _resumable(folder: Path, wanted: _Index) -> _Index | None:
    """The folder's index, if its rows are the wanted ones but for those it refused."""
    index = _read_index(folder)
    if index is None or not _whole(folder, index):
        return None
    refused = {refusal.id for refusal in index.refused}
    rows = tuple(item_id for item_id in wanted.ids if item_id not in refused)
    return index if index.digest() == replace(wanted, ids=rows).digest() else None


def _create(folder: Path, index: _Index) -> _Index:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    with (folder / "pixels.u8").open("wb") as pixels:
        pixels.truncate(len(index.ids) * index.row_bytes)
    (folder / "done.u8").write_bytes(bytes(len(index.ids)))
    _write_index(folder, index)
    return index


def _drop(folder: Path, index: _Index, refused: list[Refusal]) -> _Index:
    """Close the gaps that refused rows left; a kill in here makes the next build start afresh."""
    (folder / "index.json").unlink()
    out = {refusal.id for refusal in refused}
    kept = [row for row, item_id in enumerate(index.ids) if item_id not in out]
    with (folder / "pixels.u8").open("r+b") as pixels:
        for new, old in enumerate(kept):
            if new != old:
                pixels.seek(old * index.row_bytes)
                row = pixels.read(index.row_bytes)
                pixels.seek(new * index.row_bytes)
                pixels.write(row)
        pixels.truncate(len(kept) * index.row_bytes)
        os.fsync(pixels.fileno())
    (folder / "done.u8").write_bytes(b"\1" * len(kept))
    ids = tuple(index.ids[row] for row in kept)
    index = replace(index, ids=ids, refused=(*index.refused, *refused))
    _write_index(folder, index)
    return index


def _write_index(folder: Path, index: _Index) -> None:
    draft = folder / "index.json.draft"
    with draft.open("w", encoding="utf-8") as file:
        json.dump({**asdict(index), "digest": index.digest()}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / "index.json")


def _read_index(folder: Path) -> _Index | None:
    """The folder's index; None when it is absent or not one that this module wrote."""
    try:
        fields = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        digest = fields.pop("digest")
        refused = tuple(Refusal(**refusal) for refusal in fields.pop("refused"))
        index = _Index(**{**fields, "ids": tuple(fields["ids"])}, refused=refused)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return index if index.digest() == digest else None


def _whole(folder: Path, index: _Index) -> bool:
    sizes = {"pixels.u8": len(index.ids) * index.row_bytes, "done.u8": len(index.ids)}
    paths = {folder / name: size for name, size in sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _flags(folder: Path) -> npt.NDArray[np.uint8]:
    return np.fromfile(folder / "done.u8", dtype=np.uint8)


def _mapped(folder: Path, index: _Index) -> npt.NDArray[np.uint8]:
    if not index.ids:  # an empty file cannot be mapped
        return np.zeros(index.shape, dtype=np.uint8)
    return np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="r", shape=index.shape)


def _unreadable(refused: list[Refusal], total: int) -> ImageError:
    if len(refused) == 1:
        return ImageError(refused[0].message)
    names = ", ".join(repr(refusal.path) for refusal in refused[:_NAMED])
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    return ImageError(
        f"{len(refused)} of {total} images cannot be read: {names}{more}; "
        "replace them or leave unreadable images out."
    )

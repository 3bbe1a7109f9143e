"""The masks that a manifest names: each is opened, checked against its image and kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ssl_core.errors import ImageError, ImportRefusedError
from ssl_core.masks.files import keep, read_mask

Said: TypeAlias = tuple[float, str | None]
"""What a cell says of its finding: a label, and the digest of the kept mask where it is 1.0."""


class MaskedRow(Protocol):
    """One row of a manifest; see `connectors.manifest.Row`."""

    @property
    def line(self) -> int:
        """Where it stands in the manifest."""

    @property
    def path(self) -> str:
        """Its image."""

    @property
    def masks(self) -> tuple[str | None, ...]:
        """One path a finding; None where nobody has looked."""


class MaskedSource(Protocol):
    """Where images and masks lie; see `connectors.folder.FolderSource`."""

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """Decode one image to `(H, W, 3)`. Raises `ImageError`."""

    def locate(self, path: str) -> Path:
        """Where a file is, there or not. Raises `ImageError` for a path that leaves the folder."""


def keep_masks(
    rows: Iterable[MaskedRow],
    source: MaskedSource,
    folder: Path,
    *,
    empty: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, tuple[Said, ...] | ImageError]:
    """Open every mask and keep it in `folder`: by line, what each cell says, or why it cannot.

    A blank cell is (NaN, None). An empty mask is (0.0, None), absent, where `empty` says so; else
    it is refused. An error names everything that is wrong with the row's masks. Rows are read in
    parallel; `progress(done, total)` is called in this thread.

    Raises:
        WorkspaceError: the folder cannot be written.
    """
    rows, said = list(rows), dict[int, tuple[Said, ...] | ImageError]()
    progress(0, len(rows))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            found = pool.map(lambda row: _row(row, source, folder, empty), rows)
            for row, each in zip(rows, found, strict=True):
                said[row.line] = each
                progress(len(said), len(rows))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return said


def _row(
    row: MaskedRow, source: MaskedSource, folder: Path, empty: bool
) -> tuple[Said, ...] | ImageError:
    if not any(row.masks):
        return tuple((math.nan, None) for _ in row.masks)
    try:
        # As it is read for training: a header may tell another size than the upright picture.
        size = source.read(row.path).shape[:2]
    except ImageError as error:
        return error
    said, wrong = list[Said](), list[str]()
    for path in row.masks:
        try:
            said.append(_cell(path, size, source, folder, empty))
        except (ImageError, ImportRefusedError) as error:
            wrong.append(str(error).rstrip("."))
    return ImageError("; ".join(wrong)) if wrong else tuple(said)


def _cell(
    path: str | None, size: Sequence[int], source: MaskedSource, folder: Path, empty: bool
) -> Said:
    if path is None:
        return math.nan, None
    mask = read_mask(source.locate(path), (size[0], size[1]), empty=empty)
    return (1.0, keep(folder, mask)) if mask.any() else (0.0, None)

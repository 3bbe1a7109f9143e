"""Masks at the working size: fitted once, kept as packed bits in one file beside the images.

`masks-<size>-<fit>.bits` is a row after another: the 32 bytes of a mask's digest, the bits of its
fitted pixels, and a checksum of both. Rows are only ever appended.

Why a killed write, or two processes, can do no harm: who appends holds a lock, and first cuts off
the half row that a killed one left; a row whose checksum is wrong counts as missing, and is
appended again. Readers take no lock: what is half written has no checksum yet.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from ssl_core.errors import WorkspaceError
from ssl_core.images import Fit
from ssl_core.masks.files import fit_mask, load
from ssl_core.masks.overlap import Bools

BATCH = 256  # masks that are fitted between two writes: what a kill can cost
_DIGEST, _CHECK = 32, 4  # bytes


class MaskStore:
    """Kept masks at the working size, `(n, size, size)`, by digest.

    `folder` holds the file of fitted masks, `kept` the PNGs of `masks.files`. Making one reads
    nothing. Safe to use from several processes; threads each need their own.
    """

    def __init__(self, folder: Path, kept: Path, size: int, fit: Fit) -> None:
        self.folder, self.kept, self.size, self.fit = folder, kept, size, fit
        self._path = folder / f"masks-{size}-{fit}.bits"
        self._bits = (size * size + 7) // 8
        self._rows: npt.NDArray[np.uint8] = np.empty((0, self._row_bytes), dtype=np.uint8)
        self._at: dict[str, int] = {}

    @property
    def _row_bytes(self) -> int:
        return _DIGEST + self._bits + _CHECK

    def at(self, digests: Sequence[str]) -> Bools:
        """Those masks in the order asked, a copy, `(n, size, size)`.

        What is not in the file yet is read from the kept masks, fitted and appended.

        Raises:
            WorkspaceError: a kept mask is missing or damaged, or the folder cannot be written.
        """
        self._hold(digests)
        rows = self._rows[[self._at[digest] for digest in digests]]
        packed = rows[:, _DIGEST : _DIGEST + self._bits]
        side = self.size
        flat = np.unpackbits(packed, axis=1, count=side * side)
        return np.asarray(flat.reshape(len(digests), side, side).view(np.bool_))

    def _hold(self, digests: Sequence[str]) -> None:
        """Bring every mask asked for into the file, and the file's rows into the index."""
        if not self._missing(digests):
            return
        try:
            self._look()
            missing = self._missing(digests)
            for start in range(0, len(missing), BATCH):
                self._append(missing[start : start + BATCH])
        except OSError as error:
            raise WorkspaceError(
                f"The masks' file {str(self._path)!r} cannot be written ({error.strerror}); mend "
                "that and run again."
            ) from error

    def _missing(self, digests: Sequence[str]) -> list[str]:
        return [digest for digest in dict.fromkeys(digests) if digest not in self._at]

    def _look(self) -> None:
        """Map the file's whole rows, and index those that are new and sound."""
        if not self._path.is_file():
            return
        known, whole = len(self._rows), self._path.stat().st_size // self._row_bytes
        if whole <= known:
            return
        shape = (whole, self._row_bytes)
        self._rows = np.memmap(self._path, dtype=np.uint8, mode="r", shape=shape)
        for position in range(known, whole):
            row = self._rows[position].tobytes()
            if _checksum(row[:-_CHECK]) == row[-_CHECK:]:
                self._at[row[:_DIGEST].hex()] = position

    def _append(self, digests: Sequence[str]) -> None:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            rows = dict(zip(digests, pool.map(self._fitted, digests), strict=True))
        with FileLock(f"{self._path}.lock"), self._path.open("ab") as file:
            self._look()  # what another process appended meanwhile
            new = b"".join(row for digest, row in rows.items() if digest not in self._at)
            end = file.seek(0, os.SEEK_END)
            file.truncate(end - end % self._row_bytes)
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        self._look()

    def _fitted(self, digest: str) -> bytes:
        mask = fit_mask(load(self.kept, digest), self.size, self.fit)
        row = bytes.fromhex(digest) + np.packbits(mask, axis=None).tobytes()
        return row + _checksum(row)


def _checksum(row: bytes) -> bytes:
    return zlib.crc32(row).to_bytes(_CHECK, "little")

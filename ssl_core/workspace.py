"""A workspace: one folder with a configuration, a ledger, the pixels and the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from ssl_core.config import Config, ledger_url, load_config
from ssl_core.errors import ConfigError, WorkspaceError
from ssl_core.history.ledger import Ledger
from ssl_core.history.truth import label_matrix
from ssl_core.images import ImageStore
from ssl_core.masks.networks import Segmenter, load_segmenter
from ssl_core.masks.store import MaskStore
from ssl_core.records import Item, Label, Model
from ssl_core.training.models import Classifier, Network, load_model
from ssl_core.training.predict import Device, choose_device

CONFIG_FILE = "readloop.toml"
IMAGES_FOLDER = "images"
MASKS_FOLDER = "masks"
MODELS_FOLDER = "models"
LOCK_FILE = ".round.lock"

FloatArray = npt.NDArray[np.float64]
N = TypeVar("N", bound=Network)


@dataclass(frozen=True, slots=True)
class Workspace:
    """An open workspace; `root` holds `models/` and `rounds/`, `images` may be shared."""

    root: Path
    config: Config
    ledger: Ledger
    images: ImageStore

    @property
    def models_folder(self) -> Path:
        """Where every model of every round is kept."""
        return self.root / MODELS_FOLDER

    @property
    def masks_folder(self) -> Path:
        """Where every mask is kept, beside the images: whoever shares these, shares those."""
        return self.images.folder.parent / MASKS_FOLDER

    @property
    def masks(self) -> MaskStore:
        """The masks at the working size; open it once, since it reads an index."""
        return MaskStore(self.images.folder, self.masks_folder, self.images.size, self.images.fit)

    @property
    def device(self) -> Device:
        """Where a model is asked about cases, by today's configuration."""
        said = self.config.compute
        return Device(choose_device(said.device), said.batch_size, said.autocast)

    def rows(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """The rows of some items in the pixel store.

        Raises:
            WorkspaceError: the images hold no such item.
        """
        try:
            return self.images.positions(list(item_ids))
        except KeyError as error:
            raise WorkspaceError(
                f"The images of {self.root} do not hold an item that was asked for "
                f"({error.args[0]}): put back the folder that belongs to the ledger."
            ) from None

    def round_folder(self, number: int) -> Path:
        """Where a round keeps its checkpoints and arrays."""
        return self.root / "rounds" / f"{number:04d}"

    def load(self, model: Model) -> Classifier:
        """Read a classifier of the ledger, in evaluation mode.

        Raises:
            WorkspaceError: its file is missing, damaged or of another network.
        """
        return self._read(model, load_model)

    def load_segmenter(self, model: Model) -> Segmenter:
        """Read a network of the ledger that draws masks; as `load`."""
        return self._read(model, load_segmenter)

    def network(self, model: Model) -> Network:
        """Read a model of whatever kind the task has; as `load`."""
        masks = self.ledger.task.kind == "segmentation"
        return self.load_segmenter(model) if masks else self.load(model)

    def _read(self, model: Model, read: Callable[[Path, str, int], N]) -> N:
        path, findings = self.root / model.path, len(self.ledger.task.findings)
        try:
            return read(path, model.backbone, findings)
        except ConfigError:
            raise WorkspaceError(
                f"The model file {path} is missing, damaged or of another version: put it back "
                "from a copy, or run another round."
            ) from None


def open_workspace(root: Path) -> Workspace:
    """Open a folder that `readloop init` made.

    Raises:
        WorkspaceError: there is none, or it is not whole.
        ConfigError: its configuration cannot be used.
    """
    if not (root / CONFIG_FILE).is_file():
        raise WorkspaceError(f"{root} is not a workspace: make one with `readloop init {root}`.")
    config = load_config(root / CONFIG_FILE)
    store, said = ImageStore.open(root / IMAGES_FOLDER), config.images
    if (said.size, said.fit, said.channels) != (store.size, store.fit, store.channels):
        raise ConfigError(
            f"{root / CONFIG_FILE}: the images are kept with size = {store.size}, fit = "
            f"{store.fit!r} and channels = {store.channels}: put that back under [images], or "
            "make another workspace."
        )
    return Workspace(root, config, Ledger.open(ledger_url(config, root)), store)


@contextmanager
def one_process(root: Path, doing: str, seconds: float = 0.0) -> Iterator[None]:
    """Hold a folder against other processes; `doing` is for the message, as "running a round in".

    Raises:
        WorkspaceError: another process holds it, and did for the `seconds` that may be waited.
    """
    lock = FileLock(root / LOCK_FILE, timeout=seconds)
    try:
        with lock:
            yield
    except Timeout:
        raise WorkspaceError(
            f"Another process is {doing} {root}: wait for it, or stop it first."
        ) from None


@dataclass(frozen=True, slots=True)
class Part:
    """Some items, aligned by row: n items with their place in the pixel store and their labels.

    `rows` `(n,)` index the pixel store; `labels` `(n, C)` are 1 / 0 / NaN.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    labels: FloatArray

    def where(self, chosen: npt.NDArray[np.bool_]) -> Part:
        """The items for which `chosen` `(n,)` holds."""
        positions = np.flatnonzero(chosen)
        return Part(
            tuple(self.ids[i] for i in positions),
            tuple(self.groups[i] for i in positions),
            self.rows[positions],
            self.labels[positions],
        )

    @property
    def labeled(self) -> npt.NDArray[np.bool_]:
        """`(n,)`: which items have a label for at least one finding."""
        return np.asarray(~np.isnan(self.labels).all(axis=1))


def part(
    items: Sequence[Item], labels: Sequence[Label], findings: Sequence[str], images: ImageStore
) -> Part:
    """Align items with their pixels and labels.

    Raises:
        WorkspaceError: an item has no pixels in the store.
    """
    ids = tuple(item.id for item in items)
    groups = tuple(item.group for item in items)
    try:
        rows = images.positions(ids)
    except KeyError as error:
        raise WorkspaceError(
            f"The ledger and the images are not of one import ({error.args[0]}): put back the "
            "folder that belongs to the ledger."
        ) from None
    return Part(ids, groups, rows, label_matrix(ids, labels, findings))

"""Which columns of a manifest hold what, and choices that contradict each other."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.quoting import show
from ssl_core.errors import ConfigError
from ssl_core.records import TaskKind

MOST_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; names must match exactly, but blanks around them in the file.

    One kind of label is chosen: `label` with `positive` (binary), `label` alone (multi-class),
    `findings_column` (multi-label), or `masks` (segmentation: a column of paths a finding).
    `group` is the patient; None says on purpose that there is no such column. `path_template`
    turns the path cell into a path ("images/{}.jpg"), and `mask_template` every mask cell.
    `findings` names the findings to keep, in order; empty means every word of the column. For
    masks it names the finding of each column; empty means the columns' own names. `unlabeled`
    says that no row is labeled, and what readers will be asked about the `findings`.
    """

    path: str
    group: str | None
    label: str | None = None
    positive: str | None = None
    findings_column: str | None = None
    separator: str = "|"
    findings: tuple[str, ...] = ()
    negative: str = "No Finding"
    masks: tuple[str, ...] = ()
    split: str | None = None
    path_template: str = "{}"
    mask_template: str = "{}"
    unlabeled: TaskKind | None = None


def check_columns(columns: Columns) -> None:
    """Refuse choices of columns that contradict each other."""
    if columns.label and columns.findings_column:
        raise ConfigError("A label column and a findings column were both given; choose one.")
    if columns.unlabeled is not None:
        _check_unlabeled(columns)
    elif not (columns.label or columns.findings_column or columns.masks):
        raise ConfigError(
            "Say where the labels are (a label, findings or mask column), or that no row has any "
            "(unlabeled)."
        )
    if columns.positive is not None and not columns.label:
        raise ConfigError("A positive value needs a label column.")
    if columns.masks and columns.unlabeled is None:
        _check_masks(columns)
    elif columns.findings and not columns.findings_column and columns.unlabeled is None:
        raise ConfigError("A list of findings needs a findings or mask column.")
    if not columns.separator:
        raise ConfigError("The separator between findings is empty; give one, such as '|'.")
    if len(set(columns.findings)) < len(columns.findings) or not all(columns.findings):
        raise ConfigError("The list of findings has an empty or a repeated name.")
    if columns.negative in columns.findings:
        raise ConfigError(
            f"{show(columns.negative)} is the word for no finding and also named as a finding."
        )
    for what, template in (("path", columns.path_template), ("mask", columns.mask_template)):
        if template.count("{}") != 1:
            raise ConfigError(
                f"The {what} template {show(template)} needs {{}} once, for the cell."
            )


def _check_masks(columns: Columns) -> None:
    """Refuse columns of masks that are no task of their own, or have no name each."""
    if columns.label or columns.findings_column:
        raise ConfigError(
            "Masks are a task of their own: give mask columns, or a label or findings column, and "
            "not both."
        )
    if len(set(columns.masks)) < len(columns.masks) or not all(columns.masks):
        raise ConfigError("The list of mask columns has an empty or a repeated name.")
    if columns.findings and len(columns.findings) != len(columns.masks):
        raise ConfigError(
            f"{len(columns.findings)} findings were named for {len(columns.masks)} mask columns; "
            "name one for each, in their order, or none."
        )


def _check_unlabeled(columns: Columns) -> None:
    """Refuse a question to readers that has no, or too few, findings."""
    if columns.label or columns.findings_column or columns.masks:
        raise ConfigError("Unlabeled images and a column of labels contradict each other.")
    wanted = {"binary": (1, 1), "multi_class": (2, MOST_FINDINGS)}
    least, most = wanted.get(str(columns.unlabeled), (1, MOST_FINDINGS))
    if not least <= len(columns.findings) <= most:
        raise ConfigError(
            f"Unlabeled {columns.unlabeled} images need {least} to {most} named findings, and "
            f"{len(columns.findings)} were given."
        )

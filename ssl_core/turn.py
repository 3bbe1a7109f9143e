"""A round as its stages see it: everything replayed from the ledger as of its opening."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssl_core import pseudo_labels
from ssl_core.config import Config, validated
from ssl_core.masks.networks import Segmenter, build_segmenter
from ssl_core.masks.predict import predict_masks
from ssl_core.masks.truth import MaskTruth, mask_truth
from ssl_core.progress import Report
from ssl_core.recipes import Plan, plan
from ssl_core.records import Model, Round, Task
from ssl_core.training.models import Classifier, Network, build_model
from ssl_core.training.predict import Device, Inputs, Prediction, Tta, choose_device, predict
from ssl_core.training.seeds import derived_seed
from ssl_core.training.stems import Banks, stem_array, view_banks
from ssl_core.training.train import learnable
from ssl_core.workspace import Part, Workspace, part


@dataclass(frozen=True, slots=True)
class Turn:
    """The inputs of a round's stages; `train` and `validation` hold the labels of its opening."""

    workspace: Workspace
    round: Round
    config: Config
    plan: Plan
    device: Device
    train: Part
    validation: Part
    report: Report

    @property
    def labeled(self) -> Part:
        """D: the items of the train pool that readers have labeled."""
        return self.train.where(self.train.labeled)

    @property
    def pool(self) -> Part:
        """U: the items of the train pool that nobody has labeled."""
        return self.train.where(~self.train.labeled)

    @property
    def askable(self) -> Part:
        """The items of the pool that no earlier round asked for.

        An item that readers were asked about and did not label stays with them (it is still in
        their queue, or they could not tell): asking again would spend the query on it every round.
        """
        asked = {s.item_id for _, s in self.workspace.ledger.selected(self.round.number)}
        pool = self.pool
        return pool.where(np.array([i not in asked for i in pool.ids], dtype=bool))

    @property
    def trains(self) -> bool:
        """Whether the round has something to learn; without, it only asks."""
        return can_teach(self.train.labels, self.workspace.ledger.task)

    @property
    def findings(self) -> tuple[str, ...]:
        """The C findings, in order."""
        return self.workspace.ledger.task.findings

    @property
    def exclusive(self) -> bool:
        """Whether the findings are classes of which one holds."""
        return self.workspace.ledger.task.exclusive

    @property
    def folder(self) -> Path:
        """The round's own folder."""
        return self.workspace.round_folder(self.round.number)

    def seed(self, stage: str) -> int:
        """The seed of one stage: its randomness does not depend on the stages before it."""
        return derived_seed(self.round.seed, self.round.number, stage) % 2**31

    def models(self) -> dict[str, Model]:
        """The models that this round has made so far, by stage; its shadow control's too."""
        made = self.workspace.ledger.models(self.round.number, control=True)
        return {model.stage: model for _, model in made}

    def load(self, stage: str) -> Classifier:
        """The model that a stage of this round left."""
        return self.workspace.load(self.models()[stage])

    def student(self) -> Classifier:
        """The recipe's last model."""
        return self.load(self.plan.fits[-1].name)

    @property
    def segmentation(self) -> bool:
        """Whether readers draw masks."""
        return self.workspace.ledger.task.kind == "segmentation"

    def truth(self, items: Part) -> MaskTruth:
        """What readers drew of items of train and validation, as of the round's opening."""
        ledger = self.workspace.ledger
        labels = ledger.labels(before_round=self.round.number)
        return mask_truth(items.ids, labels, self.findings, self.workspace.masks)

    def student_or_first(self) -> Network:
        """The recipe's last model, of whatever kind; the first weights where nothing is trained."""
        if self.trains:
            return self.workspace.network(self.models()[self.plan.fits[-1].name])
        if self.segmentation:
            return self.fresh_segmenter("features")
        return self.fresh_model("features")

    def segmenter(self, stage: str) -> Segmenter:
        """The network that draws masks which a stage of this round left."""
        return self.workspace.load_segmenter(self.models()[stage])

    def fresh_segmenter(
        self, stage: str, backbone: str | None = None, weights: str = "none"
    ) -> Segmenter:
        """The configured network with its first weights, or another with others."""
        own = self.config.model
        name, first = (backbone, weights) if backbone else (own.backbone, own.weights)
        auxiliary, seed = self.plan.auxiliary, self.seed(stage)
        return build_segmenter(
            name, len(self.findings), weights=first, auxiliary=auxiliary, seed=seed
        )

    def predict(
        self, network: Network, rows: npt.NDArray[np.int64], *, tta: Tta, stage: str
    ) -> Prediction:
        """Which findings items show and their features, whatever the network's kind.

        Where masks are drawn probabilities are the auxiliary classifier's, or the map's maximum.
        """
        if isinstance(network, Segmenter):
            found = predict_masks(
                network,
                self.workspace.images.array,
                rows,
                lambda _, made: {"p": made.classes, "f": made.features},
                device=self.device,
                tta=tta,
                report=self.report,
                stage=stage,
            )
            return Prediction(found["p"], found["f"])
        assert isinstance(network, Classifier)
        return predict(
            network,
            self.inputs(network),
            rows,
            exclusive=self.exclusive,
            device=self.device,
            tta=tta,
            report=self.report,
            stage=stage,
        )

    def fresh_model(
        self, stage: str, backbone: str | None = None, weights: str = "none"
    ) -> Classifier:
        """The configured backbone with its first weights, or another with others."""
        if backbone is not None:
            seed = self.seed(stage)
            return build_model(backbone, len(self.findings), weights=weights, seed=seed)
        return self.network(len(self.findings), self.seed(stage))

    def network(self, outputs: int, seed: int, *, neck: int = 0) -> Classifier:
        """The configured backbone with its first weights, and what is drawn from `seed`.

        Blocks whose output is cached are drawn from a seed of their own, where nothing else gives
        their weights: all models share them.
        """
        first = self.config.model
        made = build_model(first.backbone, outputs, weights=first.weights, seed=seed, neck=neck)
        shared = self.plan.stem_blocks
        if shared and first.weights == "none":
            stem = build_model(first.backbone, 1).blocks[:shared].state_dict()
            made.blocks[:shared].load_state_dict(stem)
        return made

    def inputs(self, model: Classifier) -> Inputs:
        """What the networks run on: pixels, or the cached output of the blocks they all freeze."""
        images = self.workspace.images
        if not self.plan.stem_blocks:
            return images.array
        self.freeze(model)
        return stem_array(images.folder, images, model, device=self.device, report=self.report)

    def banks(self, model: Classifier) -> Banks | None:
        """The views that `model` trains on, if the recipe draws them beforehand.

        Of the whole train pool, unusable images too: they may change, and the banks would with
        them.
        """
        if not self.plan.banked:
            return None
        self.freeze(model)
        images = self.workspace.images
        return view_banks(
            images.folder,
            images,
            images.positions([item.id for item in self.workspace.ledger.items("train")]),
            model,
            self.plan.banked,
            self.plan.stem_views,
            device=self.device,
            report=self.report,
        )

    def freeze(self, model: Classifier) -> Classifier:
        """The model with those blocks frozen whose output is cached; returned for convenience."""
        if self.plan.stem_blocks:
            model.freeze(self.plan.stem_blocks, norm=True)
        return model

    @property
    def by_chance(self) -> npt.NDArray[np.bool_]:
        """`(n,)`: which items of `train` hold a label because chance picked them (design, rule 3).

        Those that a random slice of an earlier round drew, and those whose label came with the
        import, which are taken to have been drawn at random.
        """
        number, ledger = self.round.number, self.workspace.ledger
        chance = {s.item_id for _, s in ledger.selected(before_round=number) if s.kind == "random"}
        imported = ledger.labels(before_round=number)
        chance |= {label.item_id for label in imported if label.source == "import"}
        drawn = np.array([item_id in chance for item_id in self.train.ids], dtype=bool)
        return np.asarray(drawn & self.train.labeled)

    def random_labels(self) -> npt.NDArray[np.float64]:
        """The labels that may estimate a class prior, `(M, C)` (design, rule 3).

        Those of the training items that chance picked, and of validation, which was drawn so.
        """
        return np.concatenate([self.train.labels[self.by_chance], self.validation.labels])

    def class_prior(self) -> npt.NDArray[np.float64]:
        """The share of positives expected of each finding, `(C,)`; NaN where nothing says it."""
        return pseudo_labels.class_prior(self.random_labels(), exclusive=self.exclusive)


def can_teach(labels: npt.NDArray[np.float64], task: Task) -> bool:
    """Whether labels `(N, C)` hold two sides of any finding: without, no model can be trained.

    A mask has both sides in itself: there, one that is not empty is enough.
    """
    if task.kind == "segmentation":
        return bool((labels == 1).any())
    return bool(learnable(labels, exclusive=task.exclusive).any())


def replay(workspace: Workspace, round_: Round, report: Report) -> Turn:
    """See a round as it was opened: later labels and settings do not count."""
    ledger = workspace.ledger
    config = validated(Config, json.loads(round_.config), f"round {round_.number}")
    labels = ledger.labels(before_round=round_.number)
    findings, images = ledger.task.findings, workspace.images
    out = ledger.reading.unusable(round_.number)
    train, validation = (
        part([i for i in ledger.items(split) if i.id not in out], labels, findings, images)
        for split in ("train", "validation")
    )
    compute = config.compute
    device = Device(
        choose_device(compute.device), compute.batch_size, compute.autocast, compute.compile
    )
    return Turn(
        workspace=workspace,
        round=round_,
        config=config,
        plan=plan(config.recipe),
        device=device,
        train=train,
        validation=validation.where(validation.labeled),
        report=report,
    )

"""What the prediction API answers: the response models of its OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAP_MEANING = (
    "An RGBA picture to lay over the image. Its alpha is the class-activation map: 0 where a place "
    "does not speak for the finding, 255 where it does so as strongly as `peak`, linear between. "
    "Two maps compare only through their peaks."
)


class Answer(BaseModel):
    """A frozen answer."""

    model_config = ConfigDict(frozen=True)


class Refusal(Answer):
    """Why a request was refused, and what to do."""

    detail: str = Field(description="One sentence.")


class ModelInUse(Answer):
    """The model that answers."""

    id: str = Field(description="Hash of its weights.")
    round: int = Field(description="The round that trained it.")
    stage: str = Field(description="The recipe's stage that trained it, as `student`.")
    card: str = Field(description="Where its model card is, on this server.")


class Health(Answer):
    """The server can predict."""

    status: Literal["ok"] = "ok"
    model: ModelInUse


class FindingResult(Answer):
    """The model's opinion on one finding."""

    finding: str
    probability: float = Field(
        ge=0,
        le=1,
        description="Mean over the recipe's views; of a model that draws masks, its classifier's, "
        "or the highest of any pixel.",
    )
    threshold: float | None = Field(
        description="Operating point, chosen on validation. Null where classes exclude each other: "
        "there the most probable one is present; and where masks are drawn."
    )
    present: bool = Field(
        description="Whether the finding holds at the operating point, or its mask has a pixel."
    )
    mask: str | None = Field(
        default=None,
        description="Of a model that draws masks: base64 of a PNG, one bit a pixel, at the image's "
        "own size. Null where nothing is drawn.",
    )


class UploadedImage(Answer):
    """What was received."""

    format: str = Field(description="png, jpeg, tiff, webp, bmp or dicom: found by content.")
    height: int = Field(description="Pixels, upright.")
    width: int = Field(description="Pixels, upright.")


class ActivationMap(Answer):
    """Where in the image the evidence for one finding lies."""

    finding: str
    png: str = Field(description="Base64 of a PNG. " + MAP_MEANING)
    height: int = Field(description="Of the picture; the image's, or less so that it is 1024.")
    width: int
    peak: float = Field(
        description="The map's maximum, in units of logits; 0 or less: nothing speaks for the "
        "finding, and the picture is transparent."
    )


class Prediction(Answer):
    """Probabilities of every finding, by which model, and what follows at its operating point."""

    model: ModelInUse
    task: Literal["binary", "multi_class", "multi_label", "segmentation"]
    findings: list[FindingResult]
    image: UploadedImage
    map: ActivationMap | None = Field(default=None, description="Only with `?map=FINDING`.")
    notice: str = "Not a medical device: for research, and for use by people who read images."


class Card(BaseModel):
    """A model card: what the model is, learned from and was measured to be."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    backbone: str
    recipe: str
    round: int
    task: str
    findings: list[str]
    input: dict[str, Any] = Field(description="Working size, fit and channels.")
    labels: dict[str, int] = Field(description="Labels that it could learn from, by split.")
    thresholds: dict[str, float] = Field(description="Operating points, from validation.")
    vault: list[dict[str, Any]] = Field(
        description="Measured on the vault, each with its 95 % interval by patient."
    )
    vault_looks: int = Field(description="How often the vault has been looked at so far.")

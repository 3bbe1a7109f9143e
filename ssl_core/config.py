"""The workspace's configuration: a TOML file, validated, with a digest that names it."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssl_core.errors import ConfigError

T = TypeVar("T", bound=BaseModel)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[
    str, Field(min_length=1, max_length=40, pattern=r"^[\w.@+-]([\w.@+ -]*[\w.@+-])?$")
]


class Table(BaseModel):
    """A frozen, validated table of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(Table):
    """`[images]`: where the files are and how they become `(channels, size, size)` pixels."""

    folder: str
    size: Annotated[int, Field(ge=16, le=2048)] = 224
    fit: Literal["pad", "squash"] = "pad"
    channels: Literal[1, 3] = 1


class Network(Table):
    """`[model]`: the backbone (`readloop backbones` lists them) and its first weights.

    `weights` is "none", "imagenet" (torchvision's own, fetched by torchvision) or a file path.
    """

    backbone: str = "densenet121"
    weights: str = "none"


class Select(Table):
    """`[selection]`: which cases a round asks for.

    `random_share` of every query is drawn at random (design, rule 2); `group_cap` is the most
    items of one patient that the strategy may ask for in a round (0: no cap). With `duplicates`,
    near-duplicates of what is labeled or asked come last, where the strategy sees features: true
    (a cosine above `strategies.DUPLICATE`), or the cosine itself. `control` "grown" trains the
    recipe again on the random labels alone whenever they have grown by a quarter (see `shadow`);
    "off" never does. Where the strategy is "auto" and after `fall_back_after` such controls is not
    better than chance, chance asks instead (0: never; see `fallback`).
    """

    strategy: str = "margin"
    cold_start: str = "cold_start"
    query_size: Count = 50
    random_share: Share = 0.15
    group_cap: Annotated[int, Field(ge=0)] = 2
    duplicates: bool | Annotated[float, Field(gt=0, lt=1)] = False
    control: Literal["grown", "off"] = "grown"
    fall_back_after: Annotated[int, Field(ge=0)] = 6


class Reading(Table):
    """`[reading]`: who reads, how often, and what they see.

    `room` is "auto" (the simulated reader of an archive, else Label Studio), "archive" or
    "label_studio". `overlap_share` of the items that a round asks for, drawn at random, go to
    `overlap` readers, the others to one; `evaluation_overlap…` say the same of validation and
    vault. Items on which readers disagree go to the `adjudicator` ("": nobody). With `backup`,
    a reader whose own items are done goes on with those that others have not read. With `hints`,
    a random half of the items show the model's opinion. `resolution` is that of the pictures
    ("full", or "working": `images.size`). A read longer than `idle_cut_seconds` counts as one of
    that length.
    """

    room: Literal["auto", "archive", "label_studio"] = "auto"
    readers: tuple[Name, ...] = ("reader",)
    adjudicator: Name | Literal[""] = ""
    overlap: Count = 2
    overlap_share: Share = 0.2
    evaluation_overlap: Count = 2
    evaluation_overlap_share: Share = 1.0
    backup: bool = True
    hints: bool = False
    resolution: Literal["full", "working"] = "full"
    idle_cut_seconds: Positive = 300.0

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [*self.readers, *([self.adjudicator] if self.adjudicator else [])]
        if not self.readers:
            raise ValueError("name at least one reader")
        if len({name.casefold() for name in names}) < len(names):
            raise ValueError(
                "each reader, and the adjudicator, needs a name of their own (upper and lower case "
                "are one)"
            )
        return self


Role = Literal["reader", "lead", "engineer"]


class Access(Table):
    """`[access]`: who may do what in the app, by e-mail address.

    Without `login` the app serves this machine alone, and everything is allowed. With it people
    sign in through OIDC (`readloop serve --secrets FILE`). Readers see their queue, leads the
    evidence too, engineers also start rounds and promote models; everybody sees every page.
    """

    login: bool = False
    readers: tuple[Name, ...] = ()
    leads: tuple[Name, ...] = ()
    engineers: tuple[Name, ...] = ()

    def role(self, address: str) -> Role | None:
        """The role of an address (the highest, if several), None for one that is not named."""
        named: dict[Role, tuple[str, ...]] = {
            "engineer": self.engineers,
            "lead": self.leads,
            "reader": self.readers,
        }
        wanted = address.strip().casefold()
        return next((r for r, all_ in named.items() if wanted in map(str.casefold, all_)), None)


class Map(Table):
    """`[map]`: how each round lays its items out on a plane; `methods = []` makes no map.

    "auto" is t-SNE, and UMAP from 2,000 items on; "umap", "tsne" and "pca" are what they say.
    """

    methods: tuple[Literal["auto", "umap", "tsne", "pca"], ...] = ("auto",)


class Compute(Table):
    """`[compute]`: the machine. `device` "auto" takes CUDA when there is one.

    `autocast` runs convolutions in bf16 on devices with hardware for it; `compile` uses
    torch.compile. `checkpoint_seconds` is the longest work that a killed stage can lose.
    """

    device: str = "auto"
    batch_size: Count = 64
    autocast: bool = True
    compile: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0


class Cost(Table):
    """`[cost]`: what an hour of a reader costs; without the table, nothing is said of money."""

    per_hour: Positive
    currency: Annotated[str, Field(min_length=1, max_length=8, pattern=r"^\S+$")] = "EUR"


class Promotion(Table):
    """`[promotion]`: the largest loss of AUROC that a model may show and still replace another.

    The lower 95 % bound of the difference on validation must lie above -`margin`.
    """

    margin: Share = 0.01


class Alarm(Table):
    """`[alarm]`: when a finding's pseudo-labels are no longer trusted; see `auditing.alarm`.

    With `pause` the rounds after an alarm keep no pseudo-labels of the finding, until the reads
    speak for it again; findings in `ignore` are never paused. `false_alarm` is the chance, at the
    most, that a finding whose claims hold is ever paused. Pseudo-labels may be wrong by
    `tolerance` more than the teacher's confidence says, and the odds of the finding may be
    `drift` times those of what was kept. A pause ends with `recovery_reads` good reads or more.
    """

    pause: bool = True
    ignore: tuple[str, ...] = ()
    false_alarm: Annotated[float, Field(gt=0, lt=1)] = 0.1
    tolerance: Share = 0.1
    drift: Annotated[float, Field(gt=1)] = 2.0
    recovery_reads: Count = 10


class Config(Table):
    """Everything a round depends on besides the ledger's rows; `recipe` is checked by the recipe.

    `cost` and `promotion` are about what is said and done afterwards: no round depends on them.
    `ledger` is "sqlite" (a file in the workspace) or a postgresql:// address without a password:
    secrets stay in the environment (PGPASSWORD, or libpq's own password file).
    """

    images: Images
    model: Network = Network()
    selection: Select = Select()
    reading: Reading = Reading()
    access: Access = Access()
    map: Map = Map()
    compute: Compute = Compute()
    recipe: dict[str, Any] = Field(default_factory=lambda: {"name": "teacher_student"})
    alarm: Alarm = Alarm()
    cost: Cost | None = None
    promotion: Promotion = Promotion()
    ledger: str = "sqlite"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces that vary."""
        return json.dumps(self.model_dump(), sort_keys=True)

    def digest(self) -> str:
        """The name of this configuration: 16 hex digits of a SHA-256 of what rounds depend on.

        A new price, margin, role or map keeps the name, and with it the simulations that were run
        under it. So do the two settings of the shadow control: simulations have none.
        """
        told = self.model_dump(exclude={"access", "cost", "map", "promotion"})
        told["selection"] = self.selection.model_dump(exclude={"control", "fall_back_after"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def changed(self, **tables: dict[str, Any] | int | str) -> Config:
        """A validated copy with some keys of some tables replaced, and the recipe's table whole."""
        data = self.model_dump()
        for name, value in tables.items():
            if isinstance(value, dict) and isinstance(data.get(name), dict) and name != "recipe":
                data[name] |= value
            else:
                data[name] = value
        return validated(Config, data, "configuration")


def ledger_url(config: Config, root: Path) -> str:
    """The database address of a workspace's ledger.

    Raises:
        ConfigError: the address is of another kind, or holds a password.
    """
    if config.ledger == "sqlite":
        return f"sqlite:///{root / 'ledger.db'}"
    if not config.ledger.startswith(("postgresql://", "postgresql+psycopg://")):
        raise ConfigError("ledger is neither 'sqlite' nor postgresql://USER@HOST/NAME: give one.")
    if re.search(r"://[^@]*:[^@]*@|[?&]\w*password=", config.ledger):
        raise ConfigError(
            "ledger holds a password: leave it out of the address and set PGPASSWORD instead."
        )
    return config.ledger


def load_config(path: Path) -> Config:
    """Read and validate a `readloop.toml`.

    Raises:
        ConfigError: no such file, not TOML, an unknown key or a value out of range; one sentence.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: make a workspace with `readloop init`."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML ({error}): mend that line.") from None
    return validated(Config, data, str(path))


def save_config(config: Config, path: Path) -> None:
    """Write a configuration as TOML."""
    path.write_text(tomli_w.dumps(config.model_dump(exclude_none=True)), encoding="utf-8")


def validated(model: type[T], data: dict[str, Any], where: str) -> T:
    """Build a settings table from plain data.

    Raises:
        ConfigError: one sentence for the first fault, naming the key and what it may be.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{where}: {_sentence(model, first, data)}") from None


def faults(model: type[BaseModel], data: dict[str, Any]) -> dict[str, str]:
    """Everything that is wrong with plain data: one sentence for each dotted key."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        found: dict[str, str] = {}
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"])
            found.setdefault(key, _sentence(model, fault, data))
        return found
    return {}


_SHAPES = {
    **dict.fromkeys(("model_type", "dataclass_type", "dict_type"), "a table of keys"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
}


def _sentence(model: type[BaseModel], fault: Any, data: Any) -> str:
    key = _key(fault["loc"], data)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        valid = _keys_at(model, fault["loc"][:-1])
        if not valid:
            return f"unknown key {key!r}: leave it out."
        close = difflib.get_close_matches(str(fault["loc"][-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}; {hint}valid keys here: {', '.join(valid)}."
    if fault["type"] == "missing":
        return f"key {key!r} is missing: add it."
    if fault["type"] == "value_error":
        told = f"{fault['ctx']['error']}."
        return f"{key}: {told}" if key else told
    if wanted := _SHAPES.get(fault["type"]):
        return f"{key} = {fault['input']!r} cannot be used: give {wanted}."
    return f"{key} = {fault['input']!r} cannot be used: {fault['msg'].lower()}."


def _key(loc: tuple[int | str, ...], data: Any) -> str:
    """The dotted key as it stands in `data`: pydantic's own names of branches are no part of it."""
    key: list[str] = []
    for place, part in enumerate(loc):
        if isinstance(data, dict) and (part in data or place == len(loc) - 1):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            continue
        key.append(str(part))
    return ".".join(key)


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        kinds = [t for t in get_args(field.annotation) or [field.annotation] if t is not NoneType]
        if len(kinds) != 1 or not isinstance(kinds[0], type):
            return []
        if is_dataclass(kinds[0]):
            return sorted(f.name for f in fields(kinds[0]))
        if issubclass(kinds[0], BaseModel):
            model = kinds[0]
    return sorted(model.model_fields)

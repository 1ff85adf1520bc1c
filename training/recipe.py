"""A recipe: everything that decides what a network becomes, besides its images. Frozen, and stored as YAML."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from tyro.conf import Suppress

from rankone.model.backbone import REDUCED, colors_of
from rankone.model.catalogue import SYSTEMS, composition
from rankone.model.composition import Composition, Option, compose
from rankone.model.errors import RankoneError
from rankone.model.network import Network, build_classifier, build_network
from rankone.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Color, Jpeg, Preprocessing
from rankone.training.strict_yaml import YamlError, parse

_PACKAGED: Final = resources.files("rankone.training").joinpath("recipes")
_DEFAULT_SYSTEM: Final = "cbp-run"

PartFields = dict[str, Option | str]


class Frozen(BaseModel):
    """Fields that are fixed once they are checked; unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class PoolingRecipe(Frozen):
    """A pooling system by its name, or put together by hand from `statistic`, `normalization` and `projection`."""

    system: str | None = None
    """max, sum, bcnn, improved-bcnn, bcnn-ns, o2p, mpn-cov, isqrt-cov, g2denet, cbp-ts, cbp-rm, lrbp, monet-2, monet, bp-run,
    cbp-run, cbp-run-mild or cbp-run-rm; cbp-run if neither a system nor a part is given."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Options of the system, for instance `{eta: 0.5, dim: 8192}`; unknown ones are errors."""
    statistic: str | None = None
    """gram, covariance, moment, gaussian, max or sum; gram if another part is given."""
    normalization: str | PartFields | None = None
    """none, rank-one-update, newton-schulz, matrix-power or matrix-logarithm, or one with options: `{name: newton-schulz,
    iterations: 5}`; none if another part is given."""
    projection: str | PartFields | None = None
    """none, flatten, upper-triangle, tensor-sketch, random-maclaurin or low-rank, or one with options: `{name: tensor-sketch,
    dim: 8192}`; flatten if another part is given."""
    root_features: Suppress[bool | None] = None
    """By hand, in YAML: whether to take the signed square root of the local features first; false if not given."""
    elementwise: Suppress[bool | None] = None
    """By hand, in YAML: whether to end with ssqrt and l2; true if not given."""

    @model_validator(mode="after")
    def _known(self) -> PoolingRecipe:
        if self._parts and (self.system is not None or self.options):
            raise ValueError(f"give a system with its options, or parts ({', '.join(self._parts)}), not both")
        self.composition.build()  # its parts know best which values they take
        return self

    @property
    def name(self) -> str:
        """The name of the system, or those of its parts."""
        parts = self.composition
        composed = (parts.statistic.name, parts.normalization.name, parts.projection.name)
        return "-".join(composed) if self._parts else self.system or _DEFAULT_SYSTEM

    @property
    def sibling(self) -> str | None:
        """The name of the exportable system to train instead of one that cannot be exported."""
        return SYSTEMS[self.name].sibling if not self._parts else None

    @property
    def composition(self) -> Composition:
        """Its parts with all options."""
        return compose(**self._parts) if self._parts else composition(self.system or _DEFAULT_SYSTEM, **self.options)

    @property
    def _parts(self) -> dict[str, Any]:
        return self.model_dump(exclude={"system", "options"}, exclude_none=True)


def added(default: Any, **limits: Any) -> Any:
    """A field that a later version added: left out of what is written while it has its default.

    So a recipe that does not use it is written as before, and what is named by its content keeps its name.
    """
    return Field(default=default, exclude_if=lambda value: value == default, **limits)


class RecipeError(RankoneError, ValueError):
    """A recipe that cannot be read or makes no sense; the message names the field."""


class Phase(Frozen):
    """One phase of training by gradient descent."""

    epochs: int = Field(ge=0)
    """Passes over the training images; 0 skips the phase."""
    learning_rate: float = Field(gt=0, lt=1e38)
    """The first learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty on all parameters that the phase trains."""
    batch_size: PositiveInt = 32
    """Images in a step, over all GPUs."""
    optimizer: Literal["sgd", "adamw"] = added("sgd")
    """SGD with momentum, or AdamW, whose weight decay spares biases and scales; for pretrained layers at 1e-4 or less."""
    solver: Suppress[Literal["sgd", "lbfgs"]] = added("sgd")
    """In YAML, for phase 1: gradient descent (sgd), or solved until it converges (lbfgs), which ignores epochs other than 0."""


class Recipe(Frozen):
    """The paper's training by default: VGG16 + RUN + CBP at 448 x 448, first the classifier alone, then all layers."""

    backbone: str = "vgg16"
    """vgg16, another name that `rankone backbones` lists, or timm/NAME."""
    weights: str = "imagenet"
    """`imagenet` (those published under the backbone's name), `random`, or the path of a .safetensors file or state dict."""
    reduce: PositiveInt | None = added(REDUCED)
    """A backbone with more channels is reduced to this number by a 1 x 1 convolution; None (null in YAML) keeps all."""
    pooling: PoolingRecipe = PoolingRecipe()
    """The pooling system."""
    classifier_rank: PositiveInt | None = None
    """Rank (even) of LRBP's low-rank classifier, for a low-rank projection. If not given, the classifier is linear."""
    size: int = Field(default=448, ge=16)
    """Side of the network's input in pixels."""
    short_side: PositiveInt | None = None
    """Length to which the short side is resized before the centre crop; the input's side when not given."""
    mean: Suppress[tuple[float, float, float]] = IMAGENET_MEAN
    """In YAML: mean by channel that the weights expect, of values in [0, 1]."""
    std: Suppress[tuple[float, float, float]] = IMAGENET_STD
    """In YAML: standard deviation by channel that the weights expect."""
    color: Suppress[Color] = "managed"
    """In YAML: whether colours are converted to sRGB by the ICC profile in a file (managed), or taken as they are."""
    jpeg: Suppress[Jpeg] = "reduced"
    """In YAML: whether large JPEGs are decoded at a half, a quarter or an eighth of their size (reduced), or not (whole)."""
    reader: dict[str, Option | str] = Field(default_factory=dict)
    """Options of the data set's reader, for instance `{partition: 3}` of dtd."""
    flip: bool = True
    """Train on mirrored images too: both ways in phase 1, at random in phase 2."""
    augment: Literal["flip", "crop", "strong"] = added("flip")
    """How phase 2 varies images besides mirroring: not at all (flip), by random crops (crop), or by crops, colours and
    RandAugment (strong). It does not affect phase 1, which computes each embedding once."""
    sampling: Literal["shuffled", "balanced"] = added("shuffled")
    """What an epoch draws: every image once, or (balanced) the same number of images, equally many of every class."""
    protocol: Literal["holdout", "paper"] = "holdout"
    """What selects the epoch: images held out of the training set or (paper) the test set, which flatters the result."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of every class held out if the data set has no validation images; with 0 the training images select the epoch."""
    seed: int = 0
    """Seed of random weights, held-out images, the order of the images and their mirroring."""
    phase1: Phase = Phase(epochs=50, learning_rate=1.0, weight_decay=1e-8, batch_size=64)
    """Only the classifier, on embeddings computed once."""
    phase2: Phase = Phase(epochs=40, learning_rate=0.01, weight_decay=1e-5, batch_size=16)
    """All layers, or those from `train_from` on."""
    train_from: str | None = added(None)
    """First layer that phase 2 trains, such as `layer4`; earlier layers stay as they are. If not given, all are trained."""
    rates: dict[str, Annotated[float, Field(gt=0)]] = added({})
    """Factors of phase 2's learning rate by layer: `{backbone: 0.1}`, `{layer3: 0.1, layer4: 0.5}`. If several names match
    a parameter, the longest counts; the others have factor 1."""
    minutes: float | None = added(None, gt=0)
    """Time for both phases: phase 2 trains as many of its epochs as fit, and ends its cosine with them. None: no limit."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    schedule: Literal["plateau", "step", "cosine"] = "cosine"
    """How the rate falls: to a tenth after `patience` epochs without a lower error (plateau), to a tenth every `patience`
    epochs (step), or along a cosine to 0 at the end of the phase (cosine)."""
    patience: PositiveInt = 5
    """Epochs of the schedules plateau and step."""
    accumulate: PositiveInt = 1
    """Parts into which a batch of phase 2 is divided if it does not fit into memory at once."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Shortens a longer gradient to this length; None (null in YAML) never does. See docs/decisions/0016."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the backbone; everything behind it is always float32."""
    compile: bool = False
    """Compile the backbone with torch.compile: takes minutes at the start, makes steps faster on a GPU."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay, such as 0.999, of a moving average of phase 2's weights that becomes the network; 0 for none."""

    @field_validator("phase1", "phase2", mode="before")
    @classmethod
    def _completed(cls, phase: Any, about: ValidationInfo) -> Any:
        """A phase that is given in part, as a mapping, has the recipe's own default for the rest."""
        default = cls.model_fields[str(about.field_name)].default
        return {**default.model_dump(), **phase} if isinstance(phase, dict) else phase

    @field_validator("weights")
    @classmethod
    def _not_empty(cls, weights: str) -> str:
        if not weights:
            raise ValueError("must be 'imagenet', 'random' or a file")
        return weights

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        assert self.preprocessing
        if self.classifier_rank is not None:
            build_classifier(self.pooling.composition.build(), 2, self.classifier_rank, self.seed)
        if self.accumulate > self.phase2.batch_size:
            raise ValueError(f"a batch of {self.phase2.batch_size} images cannot be cut into {self.accumulate} parts")
        if self.phase2.solver != "sgd":
            raise ValueError("phase2.solver: only phase 1, which has the embeddings on disk, can be solved by lbfgs")
        if self.phase1.solver != "sgd" and (self.classifier_rank or self.phase1.optimizer != "sgd"):
            raise ValueError("phase1.solver: lbfgs fits a linear classifier; leave out classifier_rank and optimizer")
        if self.minutes is not None and self.schedule != "cosine":
            raise ValueError(f"only schedule cosine ends when the minutes do, not {self.schedule}")
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the network's input."""
        return Preprocessing(
            size=self.size, short_side=self.short_side, mean=self.mean, std=self.std, color=self.color, jpeg=self.jpeg
        )

    def build_network(self, num_classes: int | None, weights: str = "random") -> Network:
        """A network with `weights` in its backbone; without classes, it only embeds.

        Raises:
            WeightsError: the weights are not available.
            RecipeError: they were trained on images of another `mean` and `std`.
        """
        expected, given = colors_of(self.backbone), (self.mean, self.std)
        if weights == "imagenet" and expected not in (None, given):
            raise RecipeError(
                f"the weights of {self.backbone} expect mean and std {expected}, the recipe has {given}: change these fields"
            )
        return build_network(
            backbone=self.backbone,
            weights=weights,
            pooling=self.pooling.composition,
            num_classes=num_classes,
            classifier_rank=self.classifier_rank,
            seed=self.seed,
            size=self.size,
            reduce=self.reduce,
        )

    def yaml(self) -> str:
        """The recipe as YAML, which `load_recipe` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_recipe(name_or_path: str | Path, **missing: str) -> Recipe:
    """A recipe of the package (`default`, `modern`, `demo`, `cub`, `aircraft`, `mit67`, `dtd`), or a YAML file.

    Args:
        name_or_path: which one.
        missing: values of fields that it lacks, instead of their defaults.

    Raises:
        RecipeError: no such recipe, not YAML, a key that is given twice, or fields that are unknown or out of range.
    """
    try:
        fields = parse(_read(str(name_or_path)))
        fields = {} if fields is None else fields
        return Recipe.model_validate({**missing, **fields} if isinstance(fields, dict) else fields)
    except YamlError as error:
        raise RecipeError(f"recipe {name_or_path} cannot be read: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"recipe {name_or_path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A validation error in one line: each field with its fault."""
    return "; ".join(f"{'.'.join(map(str, part['loc'])) or 'recipe'}: {part['msg']}" for part in error.errors())


def packaged_names() -> list[str]:
    """The names of the recipes of the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _PACKAGED.iterdir() if entry.name.endswith(".yaml"))


def _read(name_or_path: str) -> bytes:
    names = packaged_names()
    if name_or_path in names:
        return _PACKAGED.joinpath(f"{name_or_path}.yaml").read_bytes()
    try:
        return Path(name_or_path).read_bytes()
    except FileNotFoundError as error:
        known = ", ".join(names)
        raise RecipeError(f"there is no recipe {name_or_path}: give a YAML file, or one of {known}") from error
    except OSError as error:
        raise RecipeError(f"recipe {name_or_path} cannot be read: {error.strerror}") from error

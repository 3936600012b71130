"""The training configuration and its presets."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from roadseg_train.errors import RunError

DEFAULT_THRESHOLD = 0.5  # pixels with at least this probability are road, unless the user chooses another one


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    """Everything that determines the weights, apart from the data; saved with the run and in the manifest.

    Sizes are in pixels at the scale of the model input. Batches are shared by all workers, so a run on two workers sees
    the same batches as a run on one.
    """

    preset: str
    seed: int = 0

    # The network and its input.
    # Fewer channels than a vector has, 8 with AVX2 and 16 with AVX-512, make oneDNN 3.13 write beyond its memory in the
    # gradient of a strided 1x1 convolution (oneDNN issue 6035).
    widths: tuple[Annotated[int, Field(ge=16)], ...] = Field(min_length=2)
    short_side_px: int = Field(ge=16)
    max_long_side_px: int = Field(default=2048, ge=16)
    multiple_px: int = Field(default=16, ge=1)

    # The schedule.
    num_steps: int = Field(ge=1)
    num_warmup_steps: int = Field(ge=0)
    # This share of the steps, at the start, uses crops at half the scale: a quarter of the cost.
    coarse_share: float = Field(default=0.0, ge=0, lt=1)
    batch_size: int = Field(ge=1)
    # Micro-batches per batch. They change the weights: batch norm and the IoU loss see one micro-batch at a time.
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema_decay: float = Field(ge=0, lt=1)  # of the averaged weights, after the first steps
    precision: Literal["auto", "bfloat16", "float32"] = "auto"

    # The loss: iou_weight * soft IoU loss + bce_weight * BCE + class_weight * cross-entropy over the classes.
    iou_weight: float = Field(default=0.75, ge=0)
    bce_weight: float = Field(default=0.25, ge=0)
    class_weight: float = Field(default=0.0, ge=0)

    # Augmentation.
    crop_height_px: int = Field(ge=16)
    crop_width_px: int = Field(ge=16)
    scale_range: tuple[float, float] = (0.6, 1.8)
    stretch: float = Field(default=1.1, ge=1)
    rotation_deg: float = Field(default=5.0, ge=0)
    colour_jitter: float = Field(default=0.4, ge=0, lt=1)
    gamma_range: tuple[float, float] = (0.5, 2.0)
    hue_jitter: float = Field(default=0.05, ge=0, le=0.5)
    degrade_probability: float = Field(default=0.25, ge=0, le=1)
    cover_probability: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _drop_former_fields(cls, fields: Any) -> Any:
        """Read configurations of earlier versions, which also held the checkpoint interval and a Lovász loss."""
        if not isinstance(fields, dict):
            return fields
        if fields.get("lovasz_weight"):
            raise ValueError("the Lovász loss (lovasz_weight) was removed")
        return {name: fields[name] for name in fields if name not in ("checkpoint_every_steps", "lovasz_weight")}


def override(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """Replace fields, each given as FIELD=VALUE with a JSON value or a bare word; raises RunError if one is invalid."""
    fields = config.model_dump(mode="json")
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in fields:
            raise RunError(f"{setting!r} is not FIELD=VALUE with one of the fields {', '.join(fields)}")
        try:
            fields[field] = json.loads(value)
        except json.JSONDecodeError:
            fields[field] = value  # a bare word
    try:
        return TrainConfig.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RunError(f"invalid settings: {wrong}") from error


def tiny() -> TrainConfig:
    """Two minutes on two CPU cores: enough to try everything out, not a model to use."""
    return TrainConfig(
        preset="tiny",
        widths=(16, 24, 40, 56, 64),
        short_side_px=176,
        num_steps=400,
        num_warmup_steps=20,
        batch_size=8,
        learning_rate=3e-3,
        weight_decay=1e-2,
        ema_decay=0.97,
        crop_height_px=144,
        crop_width_px=192,
    )


def small() -> TrainConfig:
    """A network that is cheap on a CPU: half an hour of training on two cores with bfloat16 instructions.

    The input is small, a crop covers nearly all of it, and the lowest level is at 1/64: context matters on new streets.
    """
    return TrainConfig(
        preset="small",
        widths=(24, 48, 72, 96, 128, 96),
        short_side_px=270,
        num_steps=4000,
        num_warmup_steps=200,
        coarse_share=0.7,
        batch_size=8,
        learning_rate=2e-3,
        weight_decay=1e-2,
        ema_decay=0.998,
        class_weight=0.4,
        crop_height_px=256,
        crop_width_px=320,
    )


def full() -> TrainConfig:
    """The recipe for a GPU: the input of `small`, a network half as wide again, three times as many crops."""
    changes = {
        "preset": "full",
        "widths": (36, 72, 108, 144, 192, 144),
        "num_steps": 6000,
        "num_warmup_steps": 300,
        "coarse_share": 0.5,
        "batch_size": 16,
        "ema_decay": 0.999,
        "scale_range": (0.5, 2.0),
        "colour_jitter": 0.5,
        "gamma_range": (0.33, 3.0),
        "degrade_probability": 0.35,
        "cover_probability": 0.3,
    }
    return small().model_copy(update=changes)


PRESETS: dict[str, Callable[[], TrainConfig]] = {preset().preset: preset for preset in (tiny, small, full)}
# Steps between checkpoints; not in TrainConfig, so that a run can resume with another interval.
CHECKPOINT_EVERY_STEPS = {"tiny": 100, "small": 500, "full": 500}

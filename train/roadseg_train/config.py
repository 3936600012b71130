"""The training configuration and its presets; saved with the run and in the manifest."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roadseg_train.errors import RunError

# Probability from which a pixel is called road, where nobody says otherwise.
DEFAULT_THRESHOLD = 0.5


class TrainConfig(BaseModel):
    """Everything that decides the weights, apart from the data.

    Sizes are in pixels at the scale of the program's input. "Per step" counts all workers together, so that a run on
    two workers sees the same batches as a run on one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str
    seed: int = 0

    # The network and how a frame is brought to it.
    # Fewer channels than a vector has, 8 with AVX2 and 16 with AVX-512, make oneDNN 3.13 write beyond its memory in the
    # gradient of a strided 1x1 convolution (oneDNN issue 6035).
    widths: tuple[Annotated[int, Field(ge=16)], ...] = Field(min_length=2)
    short_side_px: int = Field(ge=16)
    max_long_side_px: int = Field(default=2048, ge=16)
    multiple_px: int = Field(default=16, ge=1)

    # The schedule.
    num_steps: int = Field(ge=1)
    num_warmup_steps: int = Field(ge=0)
    # This share of the steps, the first ones, see crops at half the scale: a quarter of the cost.
    coarse_share: float = Field(default=0.0, ge=0, lt=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)  # parts of a batch that are computed one after the other
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema_decay: float = Field(ge=0, lt=1)  # of the average of the weights, once there are enough of them
    checkpoint_every_steps: int = Field(ge=1)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"

    # The loss: iou_weight * soft IoU loss pooled over the batch + bce_weight * BCE.
    iou_weight: float = Field(default=0.75, ge=0)
    bce_weight: float = Field(default=0.25, ge=0)
    lovasz_weight: float = Field(default=0.0, ge=0)
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


def override(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """The configuration with some fields replaced, each given as FIELD=VALUE with the value in JSON.

    Raises:
        RunError: a setting has not this form, or its field or value does not exist.
    """
    fields = config.model_dump(mode="json")
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in fields:
            raise RunError(f"{setting!r} is no FIELD=VALUE with one of the fields {', '.join(fields)}")
        try:
            fields[field] = json.loads(value)
        except json.JSONDecodeError:
            fields[field] = value  # a bare word is a string
    try:
        return TrainConfig.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RunError(f"the settings do not fit: {wrong}") from error


def tiny() -> TrainConfig:
    """Two minutes on two CPU cores: enough to see every part work, not a model to use."""
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
        checkpoint_every_steps=100,
        crop_height_px=144,
        crop_width_px=192,
    )


def small() -> TrainConfig:
    """A small network that costs little on a CPU: half an hour of training on two cores with bfloat16 instructions.

    A small input of which a crop holds nearly all, and a level at 1/64 of it: on streets that were never seen, seeing
    more of the street at once is worth more than pixels are.
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
        checkpoint_every_steps=500,
        class_weight=0.4,
        crop_height_px=256,
        crop_width_px=320,
    )


def full() -> TrainConfig:
    """The recipe for a GPU: what `small` sees, to a network half as wide again, in three times as many crops."""
    return TrainConfig(
        preset="full",
        widths=(36, 72, 108, 144, 192, 144),
        short_side_px=270,
        num_steps=6000,
        num_warmup_steps=300,
        coarse_share=0.5,
        batch_size=16,
        learning_rate=2e-3,
        weight_decay=1e-2,
        ema_decay=0.999,
        checkpoint_every_steps=500,
        class_weight=0.4,
        crop_height_px=256,
        crop_width_px=320,
        scale_range=(0.5, 2.0),
        colour_jitter=0.5,
        gamma_range=(0.33, 3.0),
        degrade_probability=0.35,
        cover_probability=0.3,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {"tiny": tiny, "small": small, "full": full}

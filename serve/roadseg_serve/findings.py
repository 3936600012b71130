"""What was found in one picture, as the document that programs read.

Axes: H height, W width. Masks are uint8, 0 or 255.
"""

import base64
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from roadseg_serve.messages import Bytes, ModelName


class ModelVersion(BaseModel):
    """Which model version answered."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str


class RunLengths(BaseModel):
    """The mask in COCO's uncompressed run lengths, as `pycocotools.mask.frPyObjects` takes them.

    Pixels are counted down the first column, then down the second, and so on. `counts` are the lengths of the runs, in
    turn not road and road; the first is 0 where the first pixel is road. They add up to height times width.
    """

    model_config = ConfigDict(extra="forbid")

    size: tuple[int, int] = Field(description="Height and width, pixels.")
    counts: list[int] = Field(description="Lengths of the runs, not road first.")


class Mask(BaseModel):
    """The mask twice: as a picture, and as run lengths."""

    model_config = ConfigDict(extra="forbid")

    png_base64: str = Field(
        description="8-bit grey PNG, 255 road, 0 not, in base64.", json_schema_extra={"contentEncoding": "base64"}
    )
    rle: RunLengths


class Findings(BaseModel):
    """What was found in one picture."""

    model_config = ConfigDict(extra="forbid")

    road_share: float = Field(ge=0, le=1, description="Pixels that are road, of all.")
    width: int = Field(ge=1, description="Of the upright picture and its mask, pixels.")
    height: int = Field(ge=1, description="Of the upright picture and its mask, pixels.")
    threshold: float = Field(ge=0, le=1, description="Road is where the probability reaches it.")
    model: ModelVersion
    timings_ms: dict[str, float] = Field(
        description="How long the steps took: decode, resize, infer. The header Server-Timing has all of them."
    )
    mask: Mask


def findings(
    mask_HW: Bytes,
    mask_png: bytes,
    *,
    road_share: float,
    threshold: float,
    model: ModelName,
    times_s: Mapping[str, float],
) -> Findings:
    """Put the document together.

    Args:
        mask_HW: 0 or 255.
        mask_png: the same as a PNG file.
        road_share: of the pixels, in [0, 1].
        threshold: by which the mask was made, in [0, 1].
        model: which version answered.
        times_s: how long each step took.
    """
    height, width = mask_HW.shape
    return Findings(
        road_share=road_share,
        width=width,
        height=height,
        threshold=threshold,
        model=ModelVersion(name=model.name, version=model.version),
        timings_ms={step: round(time_s * 1000, 3) for step, time_s in times_s.items()},
        mask=Mask(
            png_base64=base64.b64encode(mask_png).decode(),
            rle=RunLengths(size=(height, width), counts=run_lengths(mask_HW)),
        ),
    )


def run_lengths(mask_HW: Bytes) -> list[int]:
    """COCO's uncompressed run lengths: column by column, not road first.

    The format is described in the COCO API (https://github.com/cocodataset/cocoapi, `pycocotools/mask.py`).

    Args:
        mask_HW: 0 or 255.
    """
    flat = mask_HW.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    return [0, *counts] if flat[0] else counts

"""What was found in one picture, as the document that programs read.

Axes: H height, W width. Masks are uint8, 0 or 255.
"""

import base64
import json
from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from roadseg_serve.messages import MEDIA_TYPES, Answer, Format, ModelName, UInt8Array


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
    mask: Mask


class Reply(Findings):
    """What was found in one picture that was sent."""

    timings_ms: dict[str, float] = Field(description="How long the steps took: decode, resize, queue, infer, encode.")
    request_id: str = Field(description="As in X-Request-ID; the server's log has it under this id.")


def findings(
    mask_HW: UInt8Array,
    mask_png: bytes,
    *,
    road_share: float,
    threshold: float,
    model: ModelName,
) -> Findings:
    """Put the document together.

    Args:
        mask_HW: 0 or 255.
        mask_png: the same as a PNG file.
        road_share: of the pixels, in [0, 1].
        threshold: by which the mask was made, in [0, 1].
        model: which version answered.
    """
    height, width = mask_HW.shape
    return Findings(
        road_share=road_share,
        width=width,
        height=height,
        threshold=threshold,
        model=ModelVersion(name=model.name, version=model.version),
        mask=Mask(
            png_base64=base64.b64encode(mask_png).decode(),
            rle=RunLengths(size=(height, width), counts=run_lengths(mask_HW)),
        ),
    )


def complete(answer: Answer, request_id: str) -> Answer:
    """Make a `Reply` of `Findings`, now that it is known how long they took; other formats stay as they are.

    The rest is put at the end of the bytes: reading and writing the whole document again would take long.

    Args:
        answer: to a picture that was sent.
        request_id: with which it was sent.
    """
    if answer.media_type != MEDIA_TYPES[Format.JSON]:
        return answer
    timings_ms = {step: round(time_s * 1000, 3) for step, time_s in answer.times_s.items()}
    rest = json.dumps({"timings_ms": timings_ms, "request_id": request_id}, separators=(",", ":"))
    return replace(answer, body=answer.body[:-1] + b"," + rest[1:].encode())


def run_lengths(mask_HW: UInt8Array) -> list[int]:
    """COCO's uncompressed run lengths: column by column, not road first.

    The format is described in the COCO API (https://github.com/cocodataset/cocoapi, `pycocotools/mask.py`).

    Args:
        mask_HW: 0 or 255.
    """
    flat = mask_HW.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    return [0, *counts] if flat[0] else counts

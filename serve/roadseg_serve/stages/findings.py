"""The JSON answer.

Axes: H height, W width. Masks are uint8, 0 or 255.
"""

import base64
import json
from dataclasses import replace

import numpy as np
from pydantic import BaseModel, Field

from roadseg_serve.messages import MEDIA_TYPES, Answer, Format, ModelName, UInt8Array


class ModelVersion(BaseModel, extra="forbid"):
    """The model version that answered."""

    name: str
    version: str


class RunLengths(BaseModel, extra="forbid"):
    """The mask as COCO's uncompressed run lengths, which `pycocotools.mask.frPyObjects` reads.

    Pixels are counted down the first column, then the second, and so on. `counts` are run lengths, alternately of "not
    road" and road; the first is 0 if the first pixel is road. They add up to height times width.
    """

    size: tuple[int, int] = Field(description="Height and width, pixels.")
    counts: list[int] = Field(description="Run lengths, starting with not road.")


class Mask(BaseModel, extra="forbid"):
    """The mask, as a picture and as run lengths."""

    png_base64: str = Field(
        description="8-bit grey PNG in base64; 255 is road, 0 is not.", json_schema_extra={"contentEncoding": "base64"}
    )
    rle: RunLengths


class Findings(BaseModel, extra="forbid"):
    """The result for one picture."""

    road_share: float = Field(ge=0, le=1, description="Fraction of the pixels that are road.")
    width: int = Field(ge=1, description="Of the upright picture and its mask, in pixels.")
    height: int = Field(ge=1, description="Of the upright picture and its mask, in pixels.")
    threshold: float = Field(ge=0, le=1, description="Pixels with at least this probability are road.")
    model: ModelVersion
    mask: Mask


class Reply(Findings):
    """The result for one upload."""

    timings_ms: dict[str, float] = Field(description="Milliseconds of each step: decode, resize, queue, infer, encode.")
    request_id: str = Field(description="As in X-Request-ID; finds the request in the server's log.")


def findings(
    mask_HW: UInt8Array, mask_png: bytes, *, road_share: float, threshold: float, model: ModelName
) -> Findings:
    """Build the result for a mask, which `mask_png` holds as a PNG file."""
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
    """Turn `Findings` into a `Reply`, now that all times are known; other formats stay as they are.

    It appends to the bytes, because parsing the whole document again would be slow.
    """
    if answer.media_type != MEDIA_TYPES[Format.JSON]:
        return answer
    timings_ms = {step: round(time_s * 1000, 3) for step, time_s in answer.times_s.items()}
    rest = json.dumps({"timings_ms": timings_ms, "request_id": request_id}, separators=(",", ":"))
    return replace(answer, body=answer.body[:-1] + b"," + rest[1:].encode())


def run_lengths(mask_HW: UInt8Array) -> list[int]:
    """The `counts` of `RunLengths` for a mask of 0 and 255.

    Source: the COCO API, https://github.com/cocodataset/cocoapi, `pycocotools/mask.py`.
    """
    flat = mask_HW.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    return [0, *counts] if flat[0] else counts

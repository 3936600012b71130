"""What travels between the stages of the graph.

Axes: H height, W width, C channel (R, G, B). All arrays are uint8.

`times_s` is the time of each step in seconds, by name: decode, resize, queue, infer, encode. Every stage adds its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from roadseg_serve.models.manifest import SizeRule

UInt8Array = npt.NDArray[np.uint8]


class Format(StrEnum):
    """The formats of an answer."""

    JPEG = "jpeg"  # the mask, 8-bit grey JPEG
    PNG = "png"  # the mask, 8-bit grey PNG, lossless
    PROBABILITY = "probability"  # 8-bit grey PNG: 255 is certainly road
    OVERLAY = "overlay"  # the picture with its road coloured, JPEG
    JSON = "json"  # road share, size, model and the mask


MEDIA_TYPES = {
    Format.JPEG: "image/jpeg",
    Format.PNG: "image/png",
    Format.PROBABILITY: "image/png",
    Format.OVERLAY: "image/jpeg",
    Format.JSON: "application/json",
}


@dataclass(frozen=True)
class AnswerOptions:
    """What a client wants."""

    format: Format = Format.JPEG
    threshold: float | None = None  # in [0, 1]; None means the server's own


@dataclass(frozen=True)
class Placement:
    """Where the scaled frame lies in the model's input: at the top left; its edge is repeated to fill the rest.

    Pixels: `frame_height` and `frame_width` of the upright frame, `height` and `width` of the scaled one.
    """

    frame_height: int
    frame_width: int
    height: int
    width: int


@dataclass(frozen=True)
class Frame:
    """A picture ready for the model.

    Attributes:
        input_HWC: RGB in [0, 255]; sides are multiples of the size rule's `multiple_px`.
        size_rule: by which it was scaled; a model with another rule raises RefitError.
        picture_HWC: the upright frame itself, RGB, if the answer will show it.
    """

    input_HWC: UInt8Array
    placement: Placement
    size_rule: SizeRule
    picture_HWC: UInt8Array | None = None
    times_s: Mapping[str, float] = field(default_factory=dict)

    def predicted(self, prob_HW: UInt8Array, *, threshold: float, model: "ModelName", infer_s: float) -> "Prediction":
        """The `Prediction` for this frame, which took the model `infer_s`."""
        times_s = {**self.times_s, "infer": infer_s}
        return Prediction(prob_HW, self.placement, threshold=threshold, model=model, times_s=times_s)


@dataclass(frozen=True)
class ModelName:
    """The model version that made an answer."""

    name: str
    version: str


@dataclass(frozen=True)
class Prediction:
    """The model's output for one frame.

    Attributes:
        prob_HW: road probability in input coordinates: 0 is certainly not road, 255 certainly road.
        placement: the frame's.
        threshold: the model's own, in [0, 1].
    """

    prob_HW: UInt8Array
    placement: Placement
    threshold: float
    model: ModelName
    times_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer to one upload."""

    body: bytes
    media_type: str
    model: ModelName
    road_share: float  # fraction of the frame's pixels that are road, in [0, 1]
    times_s: Mapping[str, float] = field(default_factory=dict)

"""What travels between the stages of the graph.

Axes: H height, W width, C channel (R, G, B). All arrays are uint8.

`times_s` says how long each step of the work took, in seconds, by name: decode, resize, queue, infer, encode. Every
stage adds its own to those of the stage before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from roadseg_serve.models.manifest import SizeRule

UInt8Array = npt.NDArray[np.uint8]


class Format(StrEnum):
    """What a client may ask for."""

    JPEG = "jpeg"  # the mask as 8-bit grey JPEG
    PNG = "png"  # the mask without loss
    PROBABILITY = "probability"  # 8-bit grey PNG: 255 is surely road
    OVERLAY = "overlay"  # the picture with the road coloured, JPEG
    JSON = "json"  # road share, size, model and the mask


# What the body of each is.
MEDIA_TYPES = {
    Format.JPEG: "image/jpeg",
    Format.PNG: "image/png",
    Format.PROBABILITY: "image/png",
    Format.OVERLAY: "image/jpeg",
    Format.JSON: "application/json",
}


@dataclass(frozen=True)
class AnswerOptions:
    """How a client wants the answer.

    Attributes:
        format: of the body.
        threshold: in [0, 1], instead of the model's own.
    """

    format: Format = Format.JPEG
    threshold: float | None = None


@dataclass(frozen=True)
class Placement:
    """Where the frame lies in the model's input: in the top left corner, scaled; the rest is repeated edge.

    Attributes:
        frame_height: of the upright frame, pixels.
        frame_width: of the upright frame, pixels.
        height: of the scaled frame within the input, pixels.
        width: of the scaled frame within the input, pixels.
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
        placement: the way back to the frame's own size.
        size_rule: by which it was fitted; a model of another rule does not take it.
        picture_HWC: the upright frame itself, RGB, where the answer will show it.
        times_s: decode and resize.
    """

    input_HWC: UInt8Array
    placement: Placement
    size_rule: SizeRule
    picture_HWC: UInt8Array | None = None
    times_s: Mapping[str, float] = field(default_factory=dict)

    def predicted(self, prob_HW: UInt8Array, *, threshold: float, model: "ModelName", infer_s: float) -> "Prediction":
        """What a model says about this frame; see `Prediction`.

        Args:
            prob_HW: road probability in input coordinates.
            threshold: the model's own, in [0, 1].
            model: which version answered.
            infer_s: how long it took.
        """
        times_s = {**self.times_s, "infer": infer_s}
        return Prediction(prob_HW, self.placement, threshold=threshold, model=model, times_s=times_s)


@dataclass(frozen=True)
class ModelName:
    """Which model version answered, so that an answer never claims another's."""

    name: str
    version: str


@dataclass(frozen=True)
class Prediction:
    """What the model says about one frame.

    Attributes:
        prob_HW: road probability in input coordinates: 0 is surely not road, 255 surely road.
        placement: the way back to the frame's own size.
        threshold: the model's own, in [0, 1].
        model: which version answered.
        times_s: the frame's, and queue and infer.
    """

    prob_HW: UInt8Array
    placement: Placement
    threshold: float
    model: ModelName
    times_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer to one upload.

    Attributes:
        body: in the format of the wish.
        media_type: of the body.
        model: which version answered.
        road_share: of the frame's pixels, in [0, 1].
        times_s: of every step.
    """

    body: bytes
    media_type: str
    model: ModelName
    road_share: float
    times_s: Mapping[str, float] = field(default_factory=dict)

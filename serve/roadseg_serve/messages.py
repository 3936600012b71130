"""What travels between the stages of the graph.

Axes: H height, W width, C channel (R, G, B). All arrays are uint8.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


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
    """

    input_HWC: Bytes
    placement: Placement


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
    """

    prob_HW: Bytes
    placement: Placement
    threshold: float
    model: ModelName


@dataclass(frozen=True)
class Mask:
    """The answer to one upload.

    Attributes:
        jpeg: 8-bit grey JPEG of the upright frame's size; at least 128 is road.
        model: which version answered.
    """

    jpeg: bytes
    model: ModelName

"""How a frame is brought to the program's input, and a probability back to the frame: the rule of the manifest.

The serving side states the same rule in its own words; a contract test holds the two together.
"""

from dataclasses import dataclass
from math import floor

import numpy as np
from PIL import Image

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import UInt8Array


@dataclass(frozen=True)
class SizeRule:
    """The manifest's `input.size`, in pixels."""

    short_side_px: int
    max_long_side_px: int
    multiple_px: int

    @classmethod
    def of(cls, config: TrainConfig) -> "SizeRule":
        """The rule that a training configuration asks for."""
        return cls(config.short_side_px, config.max_long_side_px, config.multiple_px)

    def scale(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame once scaled, before padding."""
        short, long = sorted((height, width))
        factor = min(self.short_side_px / short, self.max_long_side_px / long)
        return max(1, floor(height * factor + 0.5)), max(1, floor(width * factor + 0.5))


def resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize image_HWC or prob_HW, uint8, with a bilinear filter that is antialiased when shrinking."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_labels(labels_HW: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize a map of labels, uint8, of which each pixel keeps one: that of the nearest place."""
    return np.asarray(Image.fromarray(labels_HW).resize((width, height), Image.Resampling.NEAREST))


def fit(image_HWC: UInt8Array, rule: SizeRule) -> UInt8Array:
    """Bring a frame to the program's input: scale by the rule, then repeat the right and bottom edge.

    Args:
        image_HWC: RGB frame, uint8.
        rule: the size rule.

    Returns:
        RGB uint8, both sides multiples of `rule.multiple_px`; the frame is its top left part of `rule.scale` size.
    """
    height, width = rule.scale(*image_HWC.shape[:2])
    scaled_HWC = resize(image_HWC, height, width)
    padding = ((0, -height % rule.multiple_px), (0, -width % rule.multiple_px), (0, 0))
    return np.pad(scaled_HWC, padding, mode="edge")


def unfit(prob_HW: UInt8Array, rule: SizeRule, height: int, width: int) -> UInt8Array:
    """Undo `fit` on a probability: crop the padding, resize to the frame's own height and width.

    Args:
        prob_HW: road probability in input coordinates, uint8, 255 is certain.
        rule: the size rule that `fit` used.
        height: the frame's height in pixels.
        width: the frame's width in pixels.

    Returns:
        Road probability in frame coordinates, uint8 (height, width).
    """
    scaled_height, scaled_width = rule.scale(height, width)
    return resize(np.ascontiguousarray(prob_HW[:scaled_height, :scaled_width]), height, width)

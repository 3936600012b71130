"""Scaling an image to the model input, and a probability back to the image, by the size rule in the manifest.

The serving side implements the same rule independently; a contract test compares the two.
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
        """The size rule of a training configuration."""
        return cls(config.short_side_px, config.max_long_side_px, config.multiple_px)

    def scale(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after scaling, before padding."""
        short, long = sorted((height, width))
        factor = min(self.short_side_px / short, self.max_long_side_px / long)
        return max(1, floor(height * factor + 0.5)), max(1, floor(width * factor + 0.5))


def resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize image_HWC or prob_HW, uint8, with bilinear interpolation, antialiased when shrinking."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_labels(labels_HW: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize a label map, uint8: each pixel takes the label nearest to its centre."""
    return np.asarray(Image.fromarray(labels_HW).resize((width, height), Image.Resampling.NEAREST))


def scale_and_pad(image_HWC: UInt8Array, rule: SizeRule) -> UInt8Array:
    """Scale an RGB uint8 image, then repeat its right and bottom edges: both sides become multiples of the rule's."""
    height, width = rule.scale(*image_HWC.shape[:2])
    scaled_HWC = resize(image_HWC, height, width)
    padding = ((0, -height % rule.multiple_px), (0, -width % rule.multiple_px), (0, 0))
    return np.pad(scaled_HWC, padding, mode="edge")


def crop_and_scale_back(prob_HW: UInt8Array, rule: SizeRule, height: int, width: int) -> UInt8Array:
    """Undo `scale_and_pad` on a probability, uint8, for an image of `height` x `width` pixels."""
    scaled_height, scaled_width = rule.scale(height, width)
    return resize(np.ascontiguousarray(prob_HW[:scaled_height, :scaled_width]), height, width)

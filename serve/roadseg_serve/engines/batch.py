"""What engines share: 8-bit output, and batch sizes on a GPU."""

import numpy as np
import numpy.typing as npt

from roadseg_serve.messages import UInt8Array


def quantise(prob: npt.NDArray[np.float32]) -> UInt8Array:
    """Probability float32 in [0, 1] to uint8 in [0, 255], rounded to nearest, halves up; any shape."""
    rounded: UInt8Array = np.floor(prob * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return rounded


def bucket(num_images: int) -> int:
    """The batch size that a GPU computes for this many images: the next power of two, so that few shapes occur."""
    return 1 << (num_images - 1).bit_length()

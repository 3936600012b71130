"""Predictions on frames, scored at each frame's own size, as masks are served."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule, crop_and_scale_back, scale_and_pad
from roadseg_train.metrics import Histogram, histogram
from roadseg_train.network.model import RoadProgram


def to_frame(prob_HW: npt.NDArray[np.float32], rule: SizeRule, height: int, width: int) -> UInt8Array:
    """Scale prob_HW, float32 in [0, 1], from the model input back to an image of this size: uint8, 255 is certain."""
    return crop_and_scale_back((prob_HW * 255 + 0.5).astype(np.uint8), rule, height, width)


@torch.inference_mode()
def predict(program: RoadProgram, image_HWC: UInt8Array, rule: SizeRule) -> UInt8Array:
    """Road probability of an RGB uint8 image at its own size, by a program in eval mode: uint8, 255 is certain."""
    device = next(program.parameters()).device
    batch_BHWC = torch.from_numpy(scale_and_pad(image_HWC, rule)[None]).to(device)
    return to_frame(program(batch_BHWC)[0].cpu().numpy(), rule, *image_HWC.shape[:2])


def predict_frames(program: RoadProgram, frames: Iterable[Frame], config: TrainConfig) -> Iterator[Histogram]:
    """Predict frame by frame and count pixels; raises DataError if a frame cannot be read."""
    rule = SizeRule.of(config)
    for frame in frames:
        image_HWC, target_HW = read_frame(frame)
        yield histogram(predict(program, image_HWC, rule), target_HW)

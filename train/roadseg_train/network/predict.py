"""Predictions over frames, scored as the served mask would be: at each frame's own size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule, fit, unfit
from roadseg_train.metrics import Histogram, histogram
from roadseg_train.network.model import RoadProgram

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScoredFrame:
    """A frame and the counts of its prediction."""

    frame: Frame
    counts: Histogram


@torch.inference_mode()
def predict_input(program: RoadProgram, image_HWC: UInt8Array, rule: SizeRule) -> Float32Array:
    """Road probability of one picture at the size of the program's input.

    Args:
        program: in eval mode.
        image_HWC: RGB uint8 of any size.
        rule: how to bring it to the program's input.

    Returns:
        prob_HW, float32 in [0, 1]; the picture is its top left part of `rule.scale` size.
    """
    device = next(program.parameters()).device
    batch = torch.from_numpy(fit(image_HWC, rule)[None]).to(device)
    prob_HW: Float32Array = program(batch)[0].cpu().numpy()
    return prob_HW


def to_frame(prob_HW: Float32Array, rule: SizeRule, height: int, width: int) -> UInt8Array:
    """A probability of `predict_input` as it is served: prob_HW of the picture's own size, uint8, 255 is certain."""
    return unfit((prob_HW * 255 + 0.5).astype(np.uint8), rule, height, width)


def predict(program: RoadProgram, image_HWC: UInt8Array, rule: SizeRule) -> UInt8Array:
    """Road probability of one picture at its own size: prob_HW, uint8, 255 is certain."""
    return to_frame(predict_input(program, image_HWC, rule), rule, *image_HWC.shape[:2])


def predict_frames(program: RoadProgram, frames: Sequence[Frame], config: TrainConfig) -> Iterator[ScoredFrame]:
    """Predict and count frame by frame.

    Raises:
        DataError: a frame cannot be read.
    """
    rule = SizeRule.of(config)
    for frame in frames:
        image_HWC, target_HW = read_frame(frame)
        yield ScoredFrame(frame, histogram(predict(program, image_HWC, rule), target_HW))

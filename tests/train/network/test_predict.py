from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import find_frames, read_target
from roadseg_train.data.geometry import SizeRule
from roadseg_train.data.split import select
from roadseg_train.metrics import confusion, iou
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.predict import predict, predict_frames


class RedProgram(RoadProgram):
    """Says that red is road: probability = red / 255."""

    def __init__(self) -> None:
        super().__init__(UNet((4, 4)))

    def forward(self, image: Tensor) -> Tensor:
        return image[..., 0].float() / 255


def test_the_answer_has_the_size_and_place_of_the_picture() -> None:
    image_HWC = np.zeros((37, 61, 3), dtype=np.uint8)
    image_HWC[5:20, 30:50, 0] = 255
    prob_HW = predict(RedProgram(), image_HWC, SizeRule(short_side_px=37, max_long_side_px=99, multiple_px=16))
    np.testing.assert_array_equal(prob_HW, image_HWC[..., 0])


def test_frames_are_counted_in_their_order(camvid: Path, config: TrainConfig) -> None:
    frames = select(find_frames(camvid), "val")
    scored = list(predict_frames(RedProgram(), frames, config))
    for frame, counts in zip(frames, scored, strict=True):
        # every labelled pixel is counted once; at level 0 everything is called road, so IoU is the road's share
        target_HW = read_target(frame)
        assert counts.road.sum() + counts.not_road.sum() == np.sum(target_HW != 0)
        assert iou(confusion(counts))[0] == np.sum(target_HW == 2) / np.sum(target_HW != 0)


def test_no_gradient_is_kept() -> None:
    assert torch.is_grad_enabled()
    predict(RedProgram(), np.zeros((16, 16, 3), np.uint8), SizeRule(16, 99, 16))
    assert torch.is_grad_enabled()

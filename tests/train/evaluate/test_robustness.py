from pathlib import Path

import pytest
import torch
from torch import Tensor

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import find_frames
from roadseg_train.data.split import select
from roadseg_train.evaluate.corruptions import CORRUPTIONS
from roadseg_train.evaluate.robustness import measure_robustness, spread
from roadseg_train.network.model import RoadProgram, UNet


class NotGreenProgram(RoadProgram):
    """Predicts road for grey pixels: right on drawn scenes, wrong if colours are lost."""

    def __init__(self) -> None:
        super().__init__(UNet((4, 4)))

    def forward(self, image: Tensor) -> Tensor:
        red, green, blue = image.float().unbind(-1)
        return ((red - green).abs().lt(30) & (blue - red).abs().lt(40)).float()


class AllProgram(NotGreenProgram):
    """Predicts road everywhere, in any weather."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.ones(image.shape[:3])


@pytest.mark.parametrize(
    ("num", "limit", "chosen"), [(9, 3, [0, 4, 8]), (2, 16, [0, 1]), (1, 16, [0]), (5, 0, []), (100, 2, [0, 99])]
)
def test_frames_are_spread_over_the_split(num: int, limit: int, chosen: list[int]) -> None:
    assert spread(num, limit) == chosen


def test_every_corruption_is_scored_on_the_same_frames(camvid: Path, config: TrainConfig) -> None:
    frames = select(find_frames(camvid), "heldout")[:2]
    steady = measure_robustness(AllProgram(), frames, config=config, threshold=0.5)
    assert steady.num_frames == 2
    assert steady.road_iou == {kind: [steady.clean_road_iou] * 3 for kind in CORRUPTIONS}
    coloured = measure_robustness(NotGreenProgram(), frames, config=config, threshold=0.5)
    assert coloured.clean_road_iou > 0.8
    # thick fog hides the green of the meadows
    assert coloured.clean_road_iou > coloured.road_iou["fog"][0] > coloured.road_iou["fog"][2]

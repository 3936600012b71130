"""The endless, numbered stream of training crops."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from roadseg_train.augment import augment
from roadseg_train.config import TrainConfig
from roadseg_train.dataset import Frame, read_classes, read_frame
from roadseg_train.geometry import SizeRule, resize


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Crop number i: epoch i // len(frames) visits every frame once, in an order of its own.

    A crop depends on the seed and its number alone, so that any worker can make any crop and a run can be continued in
    the middle. Frames are decoded and scaled once, and kept (three bytes a pixel).
    """

    def __init__(self, frames: Sequence[Frame], config: TrainConfig) -> None:
        self.config = config
        self.coarse = halve(config)
        self.frames = [self._load(frame) for frame in frames]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """RGB uint8 (3, crop height, crop width); target and classes uint8 (2, crop height, crop width)."""
        epoch, position = divmod(index, len(self.frames))
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.frames))
        image_CHW, truth_2HW = self.frames[order[position]]
        seed = int(np.random.SeedSequence((self.config.seed, index)).generate_state(1, np.uint64)[0] >> 1)
        is_coarse = index < self.config.num_coarse_steps * self.config.batch_size
        return augment(image_CHW, truth_2HW, self.coarse if is_coarse else self.config, seed)

    def _load(self, frame: Frame) -> tuple[Tensor, Tensor]:
        image_HWC, target_HW = read_frame(frame)
        height, width = SizeRule.of(self.config).scale(*target_HW.shape)
        scaled_HWC = resize(image_HWC, height, width)
        truth = [
            np.array(Image.fromarray(map_HW).resize((width, height), Image.Resampling.NEAREST))
            for map_HW in (target_HW, read_classes(frame))
        ]
        image_CHW = torch.from_numpy(scaled_HWC.copy()).permute(2, 0, 1).contiguous()
        return image_CHW, torch.from_numpy(np.stack(truth))


def halve(config: TrainConfig) -> TrainConfig:
    """The configuration whose crops show the same part of a frame in half the height and half the width."""
    return config.model_copy(
        update={
            "crop_height_px": config.crop_height_px // 2,
            "crop_width_px": config.crop_width_px // 2,
            "scale_range": tuple(scale / 2 for scale in config.scale_range),
        }
    )


def batch_numbers(step: int, num_steps: int, batch_size: int, rank: int, num_workers: int) -> list[list[int]]:
    """Which crops a worker takes in each of the steps from `step` to `num_steps`: its equal share of each batch."""
    share = batch_size // num_workers
    return [
        list(range(s * batch_size + rank * share, s * batch_size + (rank + 1) * share)) for s in range(step, num_steps)
    ]

"""The endless, numbered stream of training crops, and the processes that make them ahead of the steps."""

import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from roadseg_train.config import TrainConfig
from roadseg_train.data.augment import augment
from roadseg_train.data.dataset import Frame, read_classes, read_frame
from roadseg_train.data.geometry import SizeRule, resize, resize_labels
from roadseg_train.network.group import share

NUM_BATCHES_AHEAD = 4  # by each loader
CPU = torch.device("cpu")


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Crop number i: epoch i // len(frames) visits every frame once, in an order of its own.

    A crop depends on the seed and its number alone, so that any worker can make any crop and a run can be continued in
    the middle. Frames are decoded and scaled once, by several threads, and kept (five bytes a pixel).

    Args:
        frames: what to take crops of.
        config: decides the crops.
        device: where frames are kept and crops are made.
    """

    def __init__(self, frames: Sequence[Frame], config: TrainConfig, device: torch.device = CPU) -> None:
        self.config = config
        self.device = device
        self.coarse = halve(config)
        self.num_coarse = round(config.coarse_share * config.num_steps) * config.batch_size
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            self.frames = list(threads.map(self._load, frames))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """RGB uint8 (3, crop height, crop width); target and classes uint8 (2, crop height, crop width)."""
        epoch, position = divmod(index, len(self.frames))
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.frames))
        image_CHW, truth_2HW = self.frames[order[position]]
        seed = int(np.random.SeedSequence((self.config.seed, index)).generate_state(1, np.uint64)[0] >> 1)
        return augment(image_CHW, truth_2HW, self.coarse if index < self.num_coarse else self.config, seed)

    def _load(self, frame: Frame) -> tuple[Tensor, Tensor]:
        image_HWC, target_HW = read_frame(frame)
        height, width = SizeRule.of(self.config).scale(*target_HW.shape)
        scaled_HWC = resize(image_HWC, height, width)
        truth = [resize_labels(map_HW, height, width) for map_HW in (target_HW, read_classes(frame))]
        image_CHW = torch.from_numpy(scaled_HWC.copy()).permute(2, 0, 1).contiguous()
        return image_CHW.to(self.device), torch.from_numpy(np.stack(truth)).to(self.device)


def halve(config: TrainConfig) -> TrainConfig:
    """The configuration whose crops show the same part of a frame in half the height and half the width."""
    return config.model_copy(
        update={
            "crop_height_px": config.crop_height_px // 2,
            "crop_width_px": config.crop_width_px // 2,
            "scale_range": tuple(scale / 2 for scale in config.scale_range),
        }
    )


def crop_numbers(config: TrainConfig, step: int, rank: int, num_workers: int) -> list[list[int]]:
    """Which crops a worker takes in each micro-batch from step number `step` to the last: its share of it."""
    size = config.batch_size // config.accumulate
    part = share(size, rank, num_workers)
    first, last = step * config.accumulate, config.num_steps * config.accumulate
    return [list(range(i * size + part.start, i * size + part.stop)) for i in range(first, last)]


def load(
    crops: Crops, numbers: list[list[int]], *, num_loaders: int, pin_memory: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of these crops, made ahead of their use by `num_loaders` processes; 0 makes them when asked, in this one.

    The loaders are forked, so that all of them read the one copy of the decoded frames in this process's memory. Copies
    in /dev/shm would be an alternative, but containers seldom have more than 64 MB of that.
    """
    return DataLoader(
        crops,
        batch_sampler=numbers,
        num_workers=num_loaders,
        prefetch_factor=NUM_BATCHES_AHEAD if num_loaders else None,
        multiprocessing_context="fork" if num_loaders else None,
        worker_init_fn=_ignore_stop_signals,
        pin_memory=pin_memory,
    )


def _ignore_stop_signals(_loader: int) -> None:
    """A stop that reaches the whole process group is obeyed by the step, which still needs its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

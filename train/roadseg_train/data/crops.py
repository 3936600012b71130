"""The numbered sequence of training crops, and the processes that make them ahead of the steps."""

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
from roadseg_train.data.dataset import Frame, check_size, read_image, read_labels
from roadseg_train.data.geometry import SizeRule, resize, resize_labels

NUM_BATCHES_AHEAD = 4  # per loader process
CPU = torch.device("cpu")
Pair = tuple[Tensor, Tensor]  # an image and its labels


class Crops(Dataset[Pair]):
    """Crop number i: epoch i // len(frames) visits every frame once, in its own random order.

    A crop depends only on the seed and its number, so any worker can make any crop and a run can resume anywhere.
    Frames are decoded and scaled once, in threads, and kept on `device` (five bytes a pixel), where crops are made.
    """

    def __init__(self, frames: Sequence[Frame], config: TrainConfig, device: torch.device = CPU) -> None:
        self.config, self.device = config, device
        # Half the size at half the scale shows the same part of a frame.
        size = {"crop_height_px": config.crop_height_px // 2, "crop_width_px": config.crop_width_px // 2}
        scale_range = tuple(scale / 2 for scale in config.scale_range)
        self.coarse_config = config.model_copy(update={**size, "scale_range": scale_range})
        self.num_coarse = round(config.coarse_share * config.num_steps) * config.batch_size
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            self.frames = list(threads.map(self._load, frames))

    def __getitem__(self, index: int) -> Pair:
        """RGB uint8 (3, crop height, crop width); target and classes uint8 (2, crop height, crop width)."""
        epoch, position = divmod(index, len(self.frames))
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.frames))
        image_CHW, labels_2HW = self.frames[order[position]]
        seed = int(np.random.SeedSequence((self.config.seed, index)).generate_state(1, np.uint64)[0] >> 1)
        return augment(image_CHW, labels_2HW, self.coarse_config if index < self.num_coarse else self.config, seed)

    def _load(self, frame: Frame) -> Pair:
        image_HWC, (target_HW, classes_HW) = read_image(frame.image), read_labels(frame)
        check_size(frame, image_HWC, target_HW)
        height, width = SizeRule.of(self.config).scale(*target_HW.shape)
        labels_2HW = np.stack([resize_labels(labels_HW, height, width) for labels_HW in (target_HW, classes_HW)])
        image_CHW = torch.from_numpy(resize(image_HWC, height, width).copy()).permute(2, 0, 1).contiguous()
        return image_CHW.to(self.device), torch.from_numpy(labels_2HW).to(self.device)


def worker_share(num_items: int, rank: int, num_workers: int) -> range:
    """A worker's part of `num_items`; parts differ by at most one, as in 8 = 3 + 3 + 2."""
    return range(-(-num_items * rank // num_workers), -(-num_items * (rank + 1) // num_workers))


def crop_numbers(config: TrainConfig, step: int, rank: int, num_workers: int) -> list[list[int]]:
    """The crops of a worker in each micro-batch, from step number `step` to the last."""
    size = config.batch_size // config.accumulate
    part = worker_share(size, rank, num_workers)
    first, last = step * config.accumulate, config.num_steps * config.accumulate
    return [list(range(i * size + part.start, i * size + part.stop)) for i in range(first, last)]


def load(crops: Crops, numbers: list[list[int]], *, num_loaders: int, pin_memory: bool) -> DataLoader[Pair]:
    """Batches of these crops, made ahead by `num_loaders` processes, or on demand in this process if 0.

    Loaders are forked so that they share this process's decoded frames. Shared memory would not do: containers seldom
    have more than 64 MB in /dev/shm.
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
    """The training process handles signals sent to the whole group; it needs its batch to finish the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

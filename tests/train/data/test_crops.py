import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from roadseg_train.config import TrainConfig
from roadseg_train.data.crops import Crops, crop_numbers, load, worker_share
from roadseg_train.data.dataset import find_frames
from roadseg_train.data.split import select


def test_crops_are_numbered(camvid: Path, config: TrainConfig) -> None:
    frames = select(find_frames(camvid), "train")
    first, second = Crops(frames, config), Crops(frames, config)
    torch.testing.assert_close(first[123], second[123], rtol=0, atol=0)


def test_an_epoch_visits_every_frame_once(camvid: Path, config: TrainConfig) -> None:
    # Each frame is replaced by a flat colour that survives any crop, so that a crop tells its frame.
    keep = {"colour_jitter": 0.0, "gamma_range": (1.0, 1.0), "hue_jitter": 0.0, "degrade_probability": 0.0}
    crops = Crops(select(find_frames(camvid), "train"), config.model_copy(update=keep))
    crops.frames = [(torch.full((3, 48, 64), 10 + i, dtype=torch.uint8), t) for i, (_, t) in enumerate(crops.frames)]
    for epoch in (0, 3):
        seen = [int(crops[epoch * 20 + i][0].max()) - 10 for i in range(20)]
        assert sorted(seen) == list(range(20))
        assert seen != list(range(20))


def test_workers_share_every_batch(config: TrainConfig) -> None:
    schedule = config.model_copy(update={"num_steps": 5, "batch_size": 8})
    alone = crop_numbers(schedule, 3, rank=0, num_workers=1)
    assert alone == [[24, 25, 26, 27, 28, 29, 30, 31], [32, 33, 34, 35, 36, 37, 38, 39]]
    first = [crop_numbers(schedule, 3, rank, num_workers=3)[0] for rank in range(3)]
    assert first == [[24, 25, 26], [27, 28, 29], [30, 31]]


def test_micro_batches_share_a_batch(config: TrainConfig) -> None:
    schedule = config.model_copy(update={"num_steps": 2, "batch_size": 4, "accumulate": 2})
    assert crop_numbers(schedule, 1, rank=0, num_workers=1) == [[4, 5], [6, 7]]


@pytest.mark.parametrize("num_loaders", [1, 2])
def test_loaders_make_the_same_batches_in_the_same_order(camvid: Path, config: TrainConfig, num_loaders: int) -> None:
    crops = Crops(select(find_frames(camvid), "fit"), config)
    numbers = crop_numbers(config, 0, rank=0, num_workers=1)
    expected = list(load(crops, numbers, num_loaders=0, pin_memory=False))
    made = list(load(crops, numbers, num_loaders=num_loaders, pin_memory=False))
    assert len(made) == len(numbers)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)


def test_loaders_outlive_a_signal_to_the_group(camvid: Path, config: TrainConfig) -> None:
    crops = Crops(select(find_frames(camvid), "fit"), config)
    numbers = crop_numbers(config.model_copy(update={"num_steps": 50}), 0, rank=0, num_workers=1)
    batches = iter(load(crops, numbers, num_loaders=2, pin_memory=False))
    first = [next(batches) for _ in range(2)]  # one from each loader, which is then up
    for loader in multiprocessing.active_children():
        assert loader.pid is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(loader.pid, number)
    assert len(first) + len(list(batches)) == 50


def test_the_first_steps_see_half_the_scale(camvid: Path, config: TrainConfig) -> None:
    frames = select(find_frames(camvid), "train")
    fine, coarse = (
        Crops(frames, config.model_copy(update={"num_steps": 8, "coarse_share": share})) for share in (0, 0.25)
    )
    last_coarse, first_fine = 2 * config.batch_size - 1, 2 * config.batch_size
    assert [tuple(part.shape) for part in coarse[last_coarse]] == [(3, 16, 24), (2, 16, 24)]
    torch.testing.assert_close(coarse[first_fine], fine[first_fine], rtol=0, atol=0)


def test_coarse_crops_show_what_fine_ones_show(camvid: Path, config: TrainConfig) -> None:
    still = config.model_copy(
        update={"colour_jitter": 0.0, "gamma_range": (1.0, 1.0), "hue_jitter": 0.0, "degrade_probability": 0.0}
    )
    frames = select(find_frames(camvid), "train")
    fine, coarse = (Crops(frames, still.model_copy(update={"coarse_share": share})) for share in (0, 0.9))
    for number in range(8):
        image_CHW, labels_2HW = coarse[number]
        halved_CHW = F.avg_pool2d(fine[number][0].float(), 2)
        assert (halved_CHW - image_CHW).abs().mean() < 8  # the noise of the drawn scenes; other scenery differs by 50
        assert (fine[number][1][:, ::2, ::2] == labels_2HW).float().mean() > 0.9


@pytest.mark.parametrize(
    ("num_items", "size", "lengths"), [(8, 3, [3, 3, 2]), (8, 2, [4, 4]), (5, 5, [1] * 5), (7, 4, [2, 2, 2, 1])]
)
def test_shares_are_nearly_equal(num_items: int, size: int, lengths: list[int]) -> None:
    shares = [worker_share(num_items, rank, size) for rank in range(size)]
    assert [len(part) for part in shares] == lengths
    assert [i for part in shares for i in part] == list(range(num_items))

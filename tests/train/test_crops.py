from pathlib import Path

import torch

from roadseg_train.config import TrainConfig
from roadseg_train.crops import Crops, batch_numbers, halve
from roadseg_train.dataset import find_frames
from roadseg_train.split import select


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


def test_workers_share_every_batch() -> None:
    alone = batch_numbers(3, 5, batch_size=4, rank=0, num_workers=1)
    assert alone == [[12, 13, 14, 15], [16, 17, 18, 19]]
    together = zip(*(batch_numbers(3, 5, batch_size=4, rank=rank, num_workers=2) for rank in (0, 1)), strict=True)
    assert [first + second for first, second in together] == alone


def test_the_first_steps_see_half_the_scale(camvid: Path, config: TrainConfig) -> None:
    frames = select(find_frames(camvid), "train")
    fine, coarse = (Crops(frames, config.model_copy(update={"num_coarse_steps": steps})) for steps in (0, 2))
    last_coarse, first_fine = 2 * config.batch_size - 1, 2 * config.batch_size
    assert [tuple(part.shape) for part in coarse[last_coarse]] == [(3, 16, 24), (2, 16, 24)]
    torch.testing.assert_close(coarse[first_fine], fine[first_fine], rtol=0, atol=0)
    # The same part of the frame: where the fine crop has void, as it reaches beyond the frame, so has the coarse one.
    share = [float((crops[last_coarse][1][0] == 0).float().mean()) for crops in (fine, coarse)]
    assert abs(share[0] - share[1]) < 0.1


def test_halving_keeps_what_is_shown(config: TrainConfig) -> None:
    half = halve(config)
    assert half.crop_height_px / half.scale_range[0] == config.crop_height_px / config.scale_range[0]

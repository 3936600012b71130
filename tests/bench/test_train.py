from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from bench.train import read_curve


def test_the_speed_is_the_median_after_the_warm_up(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "tensorboard") as writer:
        for step, images_per_s in ((5, 100), (10, 100), (11, 4), (20, 9), (30, 5)):
            writer.add_scalar("train/images_per_s", images_per_s, step)
            writer.add_scalar("train/data_wait_share", 0.5, step)
    assert read_curve(tmp_path, "train/images_per_s") == 5

"""Datasets drawn by code: a grey road that narrows to the horizon, under a sky, between meadows; and places."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageDraw

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.data.split import select
from roadseg_train.evaluate.evaluate import Evaluation, evaluate_frames
from roadseg_train.fit.run import RunRecord
from roadseg_train.network.half import round_to_half
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.storage.path import StoragePath, storage_path
from tests.seaweed import BUCKET

WIDTH, HEIGHT = 64, 48
SKY, ROAD, TREE, VOID = 0, 3, 5, 11


def draw_scene(seed: int) -> tuple[Image.Image, Image.Image]:
    """A street scene and its CamVid label map; the bottom row is void, as the camera's own bonnet is."""
    rng = np.random.default_rng(seed)
    picture, label = Image.new("RGB", (WIDTH, HEIGHT)), Image.new("L", (WIDTH, HEIGHT), TREE)
    horizon, vanishing = HEIGHT // 3, WIDTH // 2 + int(rng.integers(-8, 9))
    road = [(vanishing - 3, horizon), (vanishing + 3, horizon), (WIDTH - 6, HEIGHT), (6, HEIGHT)]
    for image, sky, meadow, asphalt in (
        (picture, (150, 190, 240), (60, 130, 50), (110, 110, 115)),
        (label, SKY, TREE, ROAD),
    ):
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, WIDTH, horizon), fill=sky)
        draw.rectangle((0, horizon, WIDTH, HEIGHT), fill=meadow)
        draw.polygon(road, fill=asphalt)
    noisy = np.asarray(picture, dtype=np.int16) + rng.integers(-12, 13, (HEIGHT, WIDTH, 3))
    truth = np.array(label)
    truth[-1] = VOID
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), Image.fromarray(truth)


def save_png(path: Path, array: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CamVid folder: two training drives of ten frames, a validation clip of three."""
    root = tmp_path_factory.mktemp("camvid")
    for part in ("train", "val"):
        (root / part).mkdir()
        (root / f"{part}annot").mkdir()
    names = [("train", f"{drive}_{i:05d}") for drive in ("0001TP", "0006R0") for i in range(10)]
    names += [("val", f"0016E5_{i:05d}") for i in range(3)]
    for seed, (part, name) in enumerate(names):
        picture, label = draw_scene(seed)
        picture.save(root / part / f"{name}.png")
        label.save(root / f"{part}annot" / f"{name}.png")
    return root


@pytest.fixture
def config() -> TrainConfig:
    """A network nearly as narrow as may be fitted, and a schedule of a few steps."""
    return TrainConfig(
        preset="test",
        widths=(16, 16, 24),
        short_side_px=48,
        num_steps=6,
        num_warmup_steps=1,
        batch_size=4,
        learning_rate=1e-2,
        weight_decay=1e-2,
        ema_decay=0.5,
        precision="float32",
        crop_height_px=32,
        crop_width_px=48,
    )


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """An empty place of each kind."""
    if request.param == "folder":
        return storage_path(tmp_path / "place")
    request.getfixturevalue("seaweed")
    return storage_path(f"s3://{BUCKET}/{tmp_path.name}/place")


@pytest.fixture
def program(config: TrainConfig) -> RoadProgram:
    torch.manual_seed(0)
    return RoadProgram(round_to_half(UNet(config.widths).eval())).eval()


@pytest.fixture
def frames(camvid: Path) -> list[Frame]:
    """The four held-out frames."""
    return select(find_frames(camvid), "heldout")


@pytest.fixture
def evaluate(camvid: Path, config: TrainConfig, program: RoadProgram) -> Callable[..., Evaluation]:
    """Evaluate the program on a split, told that it was fitted on another."""

    def run(
        *,
        split: str = "heldout",
        fitted_on: str = "fit",
        frames: list[Frame] | None = None,
        num_robustness_frames: int = 0,
    ) -> Evaluation:
        found = find_frames(camvid)
        fitted = [frame.identity for frame in select(found, fitted_on)]
        return evaluate_frames(
            program,
            frames or select(found, split),
            run="runs/first",
            record=RunRecord(config=config, data=["data/CamVid"], split=fitted_on, fit_frames=fitted),
            step=6,
            split=split,
            threshold=0.5,
            num_robustness_frames=num_robustness_frames,
        )

    return run

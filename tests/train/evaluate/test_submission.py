from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import read_image
from roadseg_train.data.geometry import SizeRule
from roadseg_train.errors import DataError
from roadseg_train.evaluate.submission import find_test_images, write_submission
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.predict import predict

SIZES = {"um_000000": (40, 120), "umm_000093": (41, 121), "uu_000099": (37, 122)}


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "testing" / "image_2", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for stem, (height, width) in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{stem}.png")
    return tmp_path


def test_files_have_the_servers_names_and_the_images_size(kitti: Path, tmp_path: Path, config: TrainConfig) -> None:
    program, out = RoadProgram(UNet(config.widths)).eval(), tmp_path / "a" / "b"
    write_submission(program, find_test_images([kitti]), out, config=config)
    assert sorted(p.name for p in out.iterdir()) == ["um_road_000000.png", "umm_road_000093.png", "uu_road_000099.png"]
    for stem, (height, width) in SIZES.items():
        with Image.open(out / (stem.replace("_", "_road_") + ".png")) as written:
            assert (written.mode, written.size) == ("L", (width, height))
            image_HWC = read_image(kitti / "testing" / "image_2" / f"{stem}.png")
            np.testing.assert_array_equal(np.asarray(written), predict(program, image_HWC, SizeRule.of(config)))


def test_missing_images_are_listed(kitti: Path) -> None:
    (warning,) = find_test_images([kitti]).warnings
    assert warning == "the server needs all 290 images; missing are 95 of 96 um, 93 of 94 umm, 99 of 100 uu"


def test_the_whole_set_has_no_warnings(tmp_path: Path) -> None:
    folder = tmp_path / "testing" / "image_2"
    folder.mkdir(parents=True)
    for category, number in (("um", 96), ("umm", 94), ("uu", 100)):
        for i in range(number):
            (folder / f"{category}_{i:06d}.png").touch()
    found = find_test_images([tmp_path])
    assert (len(found.by_name), found.warnings) == (290, [])
    for stray in ("um_000096.png", "um_lane_000001.png", "um_000001.jpg"):
        (folder / stray).touch()
    found = find_test_images([tmp_path])
    assert len(found.by_name) == 290
    assert found.warnings == [
        "ignored, because the test set has no such names: um_000001.jpg, um_000096.png, um_lane_000001.png"
    ]


def test_a_folder_without_test_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="testing/image_2"):
        find_test_images([tmp_path])

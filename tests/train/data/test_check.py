"""Really damaged files, each of which must be named in one error."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg_train.data.check import check_data, check_frame
from roadseg_train.data.dataset import find_frames
from roadseg_train.data.problems import InvalidDataError, ProblemKind
from roadseg_train.errors import DataError

RED, MAGENTA, BLACK, BLUE = (255, 0, 0), (255, 0, 255), (0, 0, 0), (0, 0, 255)


@pytest.fixture
def copy(tmp_path: Path, camvid: Path) -> Path:
    """A CamVid folder to damage."""
    return Path(shutil.copytree(camvid, tmp_path / "CamVid"))


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Two pictures with lane and road masks that differ, as distributed."""
    root = tmp_path / "kitti"
    for folder in ("image_2", "gt_image_2"):
        (root / "training" / folder).mkdir(parents=True)
    for i in range(2):
        save(root / "training" / "image_2" / f"um_{i:06d}.png", np.full((4, 4, 3), 90))
        save(root / "training" / "gt_image_2" / f"um_road_{i:06d}.png", [[MAGENTA, MAGENTA, RED, BLACK]] * 4)
        save(root / "training" / "gt_image_2" / f"um_lane_{i:06d}.png", [[MAGENTA, RED, RED, BLACK]] * 4)
    return root


def save(path: Path, pixels: object) -> None:
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(path)


def problems_of(root: Path, *splits: str) -> set[tuple[str, ProblemKind]]:
    with pytest.raises(InvalidDataError) as raised:
        check_data([root], splits)
    return {(str(problem.path.relative_to(root)), problem.kind) for problem in raised.value.problems}


def test_whole_data_passes(camvid: Path, kitti: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert check_data([camvid, kitti], ["fit", "heldout"]) == []
    assert "frame/s" in capfd.readouterr().err  # the progress bar


def test_every_fault_is_in_one_error(copy: Path) -> None:
    train, annot = copy / "train", copy / "trainannot"
    (annot / "0001TP_00000.png").unlink()
    (train / "0001TP_00001.png").unlink()
    cut = train / "0001TP_00002.png"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (annot / "0001TP_00003.png").write_bytes(b"")
    save(annot / "0001TP_00004.png", np.full((47, 64), 3))
    save(annot / "0001TP_00005.png", np.full((48, 64), 12))
    save(annot / "0001TP_00006.png", np.full((48, 64, 3), 3))
    Image.open(train / "0001TP_00007.png").save(train / "0001TP_00007.jpg")
    assert problems_of(copy, "train") == {
        ("train/0001TP_00000.png", ProblemKind.NO_MASK),
        ("trainannot/0001TP_00001.png", ProblemKind.NO_IMAGE),
        ("train/0001TP_00002.png", ProblemKind.UNREADABLE),
        ("trainannot/0001TP_00003.png", ProblemKind.UNREADABLE),
        ("train/0001TP_00004.png", ProblemKind.WRONG_SIZE),
        ("trainannot/0001TP_00005.png", ProblemKind.NOT_A_LABEL_MAP),
        ("trainannot/0001TP_00006.png", ProblemKind.NOT_A_LABEL_MAP),
        ("train/0001TP_00007.png", ProblemKind.DUPLICATE_NAME),
    }


def test_both_files_of_a_frame_are_told(copy: Path) -> None:
    for folder in ("train", "trainannot"):
        (copy / folder / "0006R0_00004.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    assert problems_of(copy, "fit") == {
        ("train/0006R0_00004.png", ProblemKind.UNREADABLE),
        ("trainannot/0006R0_00004.png", ProblemKind.UNREADABLE),
    }


def test_contents_are_checked_of_the_splits_in_use_only(copy: Path) -> None:
    (copy / "val" / "0016E5_00001.png").write_bytes(b"")
    check_data([copy], ["fit", "heldout"])
    assert problems_of(copy, "val") == {("val/0016E5_00001.png", ProblemKind.UNREADABLE)}


def test_a_split_that_faults_have_emptied_tells_the_faults(copy: Path) -> None:
    shutil.rmtree(copy / "valannot")
    assert problems_of(copy, "val") == {("val", ProblemKind.NO_MASK_FOLDER)}


def test_a_split_that_the_data_lacks_is_named(camvid: Path) -> None:
    with pytest.raises(DataError, match="no frames in the split 'test'"):
        check_data([camvid], ["test"])


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "fit") == {(".", ProblemKind.UNKNOWN_FORMAT)}
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    assert problems_of(tmp_path, "fit") == {(".", ProblemKind.EMPTY)}


def test_hidden_files_are_left_alone(copy: Path) -> None:
    (copy / "train" / "._0001TP_00000.png").write_bytes(b"what another system keeps beside its files")
    check_data([copy], ["fit"])


def test_kitti_faults(kitti: Path) -> None:
    images, masks = kitti / "training" / "image_2", kitti / "training" / "gt_image_2"
    for i in range(2, 6):
        save(images / f"umm_{i:06d}.png", np.full((4, 4, 3), 90))
        save(masks / f"umm_road_{i:06d}.png", [[MAGENTA, RED, RED, BLACK]] * 4)
    shutil.copy(masks / "um_lane_000001.png", masks / "um_road_000001.png")
    (masks / "umm_road_000002.png").unlink()
    (images / "umm_000003.png").unlink()
    save(masks / "umm_road_000004.png", [[MAGENTA, RED, BLUE, BLACK]] * 4)
    save(masks / "umm_road_000005.png", [[254, 0, 255, 0]] * 4)
    save(masks / "copy_of_um_road_000000.png", [[MAGENTA]])
    assert problems_of(kitti, "train") == {
        ("training/gt_image_2/um_road_000001.png", ProblemKind.LANE_MASK),
        ("training/image_2/umm_000002.png", ProblemKind.NO_MASK),
        ("training/gt_image_2/umm_road_000003.png", ProblemKind.NO_IMAGE),
        ("training/gt_image_2/umm_road_000004.png", ProblemKind.NOT_A_ROAD_MASK),
        ("training/gt_image_2/umm_road_000005.png", ProblemKind.NOT_A_ROAD_MASK),
        ("training/gt_image_2/copy_of_um_road_000000.png", ProblemKind.UNKNOWN_NAME),
    }


def test_pictures_with_a_lane_mask_only_are_left_out_and_told(kitti: Path) -> None:
    (kitti / "training" / "gt_image_2" / "um_road_000001.png").unlink()
    assert check_data([kitti], ["train"]) == [kitti / "training" / "image_2" / "um_000001.png"]
    assert [frame.name for frame in find_frames(kitti)] == ["um_000000"]


def test_a_damaged_lane_mask_is_nobodys_fault(kitti: Path) -> None:
    (kitti / "training" / "gt_image_2" / "um_lane_000000.png").write_bytes(b"")
    check_data([kitti], ["train"])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damage_anywhere_is_a_fault_or_goes_unseen_by_the_decoder(tmp_path: Path, camvid: Path, suffix: str) -> None:
    # Nothing but the one exception ever comes out of a file, whatever its bytes.
    rng = np.random.default_rng(0)
    frame = find_frames(camvid)[0]
    whole = tmp_path / f"whole{suffix}"
    Image.open(frame.image).save(whole)
    damaged = type(frame)(**{**vars(frame), "image": tmp_path / f"damaged{suffix}"})
    num_problems = 0
    for _ in range(200):
        data = bytearray(whole.read_bytes())
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        damaged.image.write_bytes(data[: rng.integers(1, len(data) + 1)])
        num_problems += len(check_frame(damaged))
    assert num_problems > 100

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID, Frame, find_frames, read_frame, read_labels
from roadseg_train.data.problems import InvalidDataError


def save(path: Path, array: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(array, dtype=np.uint8)).save(path)
    return path


def frame(image: Path, mask: Path, form: str) -> Frame:
    assert form in ("camvid", "kitti")
    return Frame(image.stem, "D", "train", "d", "camvid" if form == "camvid" else "kitti", image, mask)


def test_camvid_frames_are_sorted_by_part_drive_and_name(camvid: Path) -> None:
    frames = find_frames(camvid)
    assert len(frames) == 23
    assert [f.drive for f in frames] == ["0001TP"] * 10 + ["0006R0"] * 10 + ["0016E5"] * 3
    assert frames[0].name == "0001TP_00000"
    assert frames[-1].part == "val"


def test_camvid_labels_become_targets(tmp_path: Path) -> None:
    # 3 is road, 11 is void, pavement (4) and everything else is not road.
    mask = save(tmp_path / "m.png", [[0, 3, 4], [11, 10, 3]])
    target = read_labels(frame(mask, mask, "camvid"))[0]
    assert target.tolist() == [[NOT_ROAD, ROAD, NOT_ROAD], [VOID, NOT_ROAD, ROAD]]


def test_camvid_pictures_may_be_jpegs_beside_png_masks(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0001TP_1.jpg", np.zeros((4, 6, 3)))
    save(tmp_path / "trainannot" / "0001TP_1.png", np.zeros((4, 6)))
    (only,) = find_frames(tmp_path)
    assert (only.image.suffix, only.mask.suffix) == (".jpg", ".png")


def test_a_picture_without_mask_is_named(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0001TP_1.png", np.zeros((4, 6, 3)))
    (tmp_path / "trainannot").mkdir()
    with pytest.raises(InvalidDataError, match=r"0001TP_1\.png has no mask"):
        find_frames(tmp_path)


def test_kitti_takes_road_masks_and_leaves_lane_masks(tmp_path: Path) -> None:
    for stem in ("um_000000", "umm_000003"):
        save(tmp_path / "training" / "image_2" / f"{stem}.png", np.zeros((4, 6, 3)))
    for stem in ("um_road_000000", "um_lane_000000", "umm_road_000003"):
        save(tmp_path / "training" / "gt_image_2" / f"{stem}.png", np.zeros((4, 6, 3)))
    frames = find_frames(tmp_path)
    assert [(f.name, f.drive, f.mask.stem) for f in frames] == [
        ("um_000000", "um", "um_road_000000"),
        ("umm_000003", "umm", "umm_road_000003"),
    ]


def test_kitti_colours_become_targets(tmp_path: Path) -> None:
    # magenta road, red valid but not road, black not to be counted
    mask = save(tmp_path / "m.png", [[[255, 0, 255], [255, 0, 0], [0, 0, 0]]])
    assert read_labels(frame(mask, mask, "kitti"))[0].tolist() == [[ROAD, NOT_ROAD, VOID]]


def test_another_folder_is_refused_with_both_forms_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match=r"trainannot/.*gt_image_2/"):
        find_frames(tmp_path)


@pytest.mark.parametrize("form", ["camvid", "kitti"])
def test_a_mask_of_another_form_is_refused(tmp_path: Path, form: str) -> None:
    mask = save(tmp_path / "m.png", [[200, 3]])  # CamVid has no label 200, KITTI no grey mask
    with pytest.raises(InvalidDataError, match=r"m\.png is not a"):
        read_labels(frame(mask, mask, form))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "i.png", np.zeros((4, 6, 3))), save(tmp_path / "m.png", np.zeros((4, 5)))
    with pytest.raises(InvalidDataError, match=r"i\.png differs in size from its mask \(6x4, and .*m\.png 5x4\)"):
        read_frame(frame(image, mask, "camvid"))


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3))
    image = save(tmp_path / "i.png", noise)
    image.write_bytes(image.read_bytes()[:-2000])
    mask = save(tmp_path / "m.png", np.zeros((40, 60)))
    with pytest.raises(InvalidDataError, match=r"i\.png cannot be decoded"):
        read_frame(frame(image, mask, "camvid"))


def test_classes_of_camvid_and_none_of_kitti(tmp_path: Path) -> None:
    label = save(tmp_path / "l.png", [[0, 3, 10], [11, 4, 3]])
    assert read_labels(frame(label, label, "camvid"))[1].tolist() == [[1, 4, 11], [0, 5, 4]]
    mask = save(tmp_path / "m.png", np.full((2, 3, 3), (255, 0, 255)))
    assert read_labels(frame(mask, mask, "kitti"))[1].tolist() == [[0, 0, 0], [0, 0, 0]]

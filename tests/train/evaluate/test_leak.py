from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.evaluate.leak import copy_iou, measure_leak, nearest_frame


def frame(name: str, mask: Path = Path("m")) -> Frame:
    return Frame(name, "D", "train", name.split("_", maxsplit=1)[0], "camvid", Path(name), mask)


def test_nearest_is_by_number_within_the_drive_and_the_earlier_of_two() -> None:
    fitted = [frame("a_00010"), frame("a_00090"), frame("b_f00050"), frame("b_f00070")]
    assert [nearest_frame(frame(n), fitted).name for n in ("a_00049", "a_00050", "a_00051", "b_f00060")] == [
        "a_00010",
        "a_00010",
        "a_00090",
        "b_f00050",
    ]
    assert nearest_frame(frame("c_00069"), fitted).name == "b_f00070"  # an unseen drive


def test_copying_by_hand(tmp_path: Path) -> None:
    # 3 is road, 11 void. Copied: road road void other. Truth: road other road void. Of three labelled pixels one is
    # found, one false, one missed.
    fitted, heldout = frame("a_1", tmp_path / "1.png"), frame("a_2", tmp_path / "2.png")
    Image.fromarray(np.array([[3, 3, 11, 0]], dtype=np.uint8)).save(fitted.mask)
    Image.fromarray(np.array([[3, 0, 3, 11]], dtype=np.uint8)).save(heldout.mask)
    assert copy_iou([fitted], [heldout]) == pytest.approx(1 / 3)


def test_masks_of_another_size_are_copied_to_scale(tmp_path: Path) -> None:
    fitted, heldout = frame("a_1", tmp_path / "1.png"), frame("a_2", tmp_path / "2.png")
    Image.fromarray(np.array([[3, 0]], dtype=np.uint8)).save(fitted.mask)
    Image.fromarray(np.array([[3, 3, 3, 0]] * 3, dtype=np.uint8)).save(heldout.mask)
    assert copy_iou([fitted], [heldout]) == pytest.approx(2 / 3)


def moving(root: Path) -> Path:
    """A drive of 60 frames whose road moves a pixel a frame, so that near masks are alike and far ones are not."""
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
    for i in range(60):
        label = np.zeros((4, 100), dtype=np.uint8)
        label[:, i : i + 20] = 3
        Image.fromarray(label).save(root / "trainannot" / f"a_{i:03d}.png")
        Image.fromarray(label).save(root / "train" / f"a_{i:03d}.png")
    return root


def test_a_random_split_flatters_copying(tmp_path: Path) -> None:
    leak = measure_leak(find_frames(moving(tmp_path)), network_random=0.75)
    assert leak is not None
    # Blocks: the last fitted mask, five frames before the cut at the least, is copied twelve times; the overlap shrinks
    # by a pixel a frame.  48 fitted, less 4 at the cut, so the held-out frames are 5 to 16 pixels away.
    shifts = range(5, 17)
    assert leak.copied_blocks == pytest.approx(sum(20 - s for s in shifts) / sum(20 + s for s in shifts))
    # Random: the nearest of the others is mostly a pixel away.
    assert leak.copied_random > 17 / 23
    assert leak.network_random == 0.75


def test_a_small_set_shows_nothing(tmp_path: Path) -> None:
    assert measure_leak(find_frames(moving(tmp_path))[:19], network_random=None) is None


def test_single_pictures_have_no_neighbours() -> None:
    assert measure_leak([frame(f"picture{i}") for i in range(30)], network_random=None) is None

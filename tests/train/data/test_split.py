from pathlib import Path

import pytest

from roadseg_train.data.dataset import Frame
from roadseg_train.data.split import meaning, select
from roadseg_train.errors import DataError


def drive(name: str, count: int, part: str = "train") -> list[Frame]:
    return [Frame(f"{name}_{i:03d}", "D", part, name, "camvid", Path(f"{name}_{i}"), Path("m")) for i in range(count)]


def numbers(frames: list[Frame]) -> list[int]:
    return [int(frame.name.split("_")[1]) for frame in frames]


def test_the_last_fifth_is_held_out_and_five_frames_are_dropped_at_the_cut() -> None:
    frames = drive("a", 100)
    assert numbers(select(frames, "fit")) == list(range(75))
    assert numbers(select(frames, "heldout")) == list(range(80, 100))


def test_every_drive_is_cut_by_itself() -> None:
    frames = drive("a", 100) + drive("b", 60)
    heldout = select(frames, "heldout")
    assert [f.drive for f in heldout] == ["a"] * 20 + ["b"] * 12
    # 60 frames: 12 held out, and of the 48 before them a tenth, 4, is dropped
    assert numbers([f for f in select(frames, "fit") if f.drive == "b"]) == list(range(44))


def test_two_datasets_with_a_drive_of_one_name_are_two_drives() -> None:
    first = drive("a", 10)
    second = [Frame(f.name, "E", f.part, f.drive, f.form, f.image, f.mask) for f in drive("a", 10)]
    assert numbers(select(first + second, "heldout")) == [8, 9, 8, 9]


@pytest.mark.parametrize(("count", "fit", "heldout"), [(1, [0], []), (2, [0], [1]), (3, [0, 1], [2])])
def test_short_drives(count: int, fit: list[int], heldout: list[int]) -> None:
    frames = drive("long", 100) + drive("short", count)
    assert numbers([f for f in select(frames, "fit") if f.drive == "short"]) == fit
    assert numbers([f for f in select(frames, "heldout") if f.drive == "short"]) == heldout


def test_official_parts() -> None:
    frames = drive("a", 3) + drive("b", 2, "val") + drive("c", 1, "test")
    assert [len(select(frames, split)) for split in ("train", "val", "trainval", "test")] == [3, 2, 5, 1]


def test_a_drive_may_be_left_out() -> None:
    frames = drive("a", 3) + drive("b", 2) + drive("a", 2, "val") + drive("c", 1, "test")
    assert [f.drive + f.part for f in select(frames, "drive:a")] == ["atrain"] * 3 + ["aval"] * 2
    assert [f.drive for f in select(frames, "without:a")] == ["b", "b"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("drive:z", r"no frames in the split 'drive:z' \(that drive only"),
        ("drive:", "choose one of"),
        ("holdout", "choose one of fit, heldout"),
        ("test", "no frames"),
    ],
)
def test_an_unknown_or_empty_split_is_refused(split: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        select(drive("a", 3), split)


def test_a_split_is_described_in_words() -> None:
    assert meaning("val") == "the official validation part"
    assert meaning("drive:a") == "that drive only, an unseen street"

"""Which files the names stand for, and where the results go."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from roadseg_serve.errors import InputError
from roadseg_serve.messages import Format
from roadseg_serve.offline.inputs import Input, find, plan


def make(root: Path, *names: str) -> Path:
    """Empty files; finding looks at names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(names: Sequence[str | Path], out: Path, *, recursive: bool = False) -> list[str]:
    return [str(each.relative) for each in find([str(name) for name in names], recursive=recursive, out=out)]


def test_a_folder_gives_its_own_pictures_and_videos(tmp_path: Path) -> None:
    make(tmp_path / "in", "b.PNG", "a.jpg", "clip.MP4", "notes.txt", ".hidden.png", "sub/c.png")
    assert found([tmp_path / "in"], tmp_path / "out") == ["a.jpg", "b.PNG", "clip.MP4"]


def test_recursive_looks_into_subfolders(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.jpg", "sub/c.png", "sub/deep/d.webp", ".git/e.png")
    assert found([tmp_path / "in"], tmp_path / "out", recursive=True) == ["a.jpg", "sub/c.png", "sub/deep/d.webp"]


def test_a_pattern_keeps_the_folders_below_its_fixed_part(tmp_path: Path) -> None:
    make(tmp_path / "in", "1/left/a.png", "1/right/a.png", "2/left/a.png", "2/left/b.txt")
    out = tmp_path / "out"
    assert found([tmp_path / "in" / "*" / "left" / "*.png"], out) == ["1/left/a.png", "2/left/a.png"]
    assert found([tmp_path / "in" / "**" / "a.png"], out) == ["1/left/a.png", "1/right/a.png", "2/left/a.png"]
    assert found([tmp_path / "in" / "*" / "left"], out) == ["1/left/a.png", "2/left/a.png"]  # of folders: pictures


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    make(tmp_path, "scan.dat", "[1].png")  # the second is no pattern, as there is such a file
    assert found([tmp_path / "scan.dat", tmp_path / "[1].png"], tmp_path / "out") == ["scan.dat", "[1].png"]


def test_each_file_is_taken_once(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    names = [tmp_path / "in" / "b.png", tmp_path / "in", tmp_path / "link"]
    assert found(names, tmp_path / "out") == ["b.png", "a.png"]


def test_earlier_results_are_no_inputs(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "masks/a.png")
    assert found([tmp_path], tmp_path / "masks", recursive=True) == ["a.png"]
    assert found([tmp_path / "**" / "*.png"], tmp_path / "masks") == ["a.png"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("in/missing.png", "missing.png does not exist"),
        ("in/*.webp", "nothing matches"),
        ("in", "--recursive"),
        ("masks", "choose another --out"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(tmp_path: Path, name: str, says: str) -> None:
    make(tmp_path, "in/notes.txt", "in/sub/a.png", "masks/a.png")
    with pytest.raises(InputError, match=says):
        find([str(tmp_path / name)], recursive=False, out=tmp_path / "masks")


@pytest.mark.parametrize(
    ("wanted", "picture", "video"),
    [
        (None, "sub/a.b.png", "sub/clip.mp4"),
        (Format.JPEG, "sub/a.b.jpg", "sub/clip"),
        (Format.PROBABILITY, "sub/a.b.png", "sub/clip"),
        (Format.OVERLAY, "sub/a.b.jpg", "sub/clip.mp4"),
        (Format.JSON, "sub/a.b.json", "sub/clip"),
    ],
)
def test_results_have_the_names_of_inputs(tmp_path: Path, wanted: Format | None, picture: str, video: str) -> None:
    make(tmp_path / "in", "sub/a.b.tif", "sub/clip.avi")
    inputs = find([str(tmp_path / "in")], recursive=True, out=tmp_path / "out")
    jobs = plan(inputs, out=tmp_path / "out", wanted=wanted)
    assert [job.target for job in jobs] == [tmp_path / "out" / picture, tmp_path / "out" / video]
    assert [job.is_video for job in jobs] == [False, True]


@pytest.mark.parametrize(
    "names",
    [("1/a.png", "2/a.png"), ("1/a.png", "1/a.jpg"), ("1/clip.mp4", "2/clip.mkv")],
)
def test_two_results_never_have_one_name(tmp_path: Path, names: tuple[str, str]) -> None:
    make(tmp_path, *names)
    inputs = [Input(tmp_path / name, Path(Path(name).name)) for name in names]
    with pytest.raises(InputError, match="both be written to") as error:
        plan(inputs, out=tmp_path / "out", wanted=None)
    assert all(str(tmp_path / name) in str(error.value) for name in names)


def test_frames_of_a_video_are_not_mixed_with_pictures(tmp_path: Path) -> None:
    make(tmp_path / "in", "clip.mp4", "clip/000000.png")
    inputs = find([str(tmp_path / "in")], recursive=True, out=tmp_path / "out")
    with pytest.raises(InputError, match="both be written to"):
        plan(inputs, out=tmp_path / "out", wanted=Format.PNG)
    assert len(plan(inputs, out=tmp_path / "out", wanted=Format.OVERLAY)) == 2


@pytest.mark.parametrize("kind", ["the file itself", "symbolic link", "hard link"])
def test_an_input_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    make(tmp_path / "in", "a.png")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out"
    if kind == "the file itself":
        out = tmp_path / "in"
    elif kind == "symbolic link":
        (out / "a.png").symlink_to(tmp_path / "in" / "a.png")
    else:
        (out / "a.png").hardlink_to(tmp_path / "in" / "a.png")
    inputs = find([str(tmp_path / "in" / "a.png")], recursive=False, out=out)
    with pytest.raises(InputError, match="would overwrite the input"):
        plan(inputs, out=out, wanted=None)


def test_the_output_folder_is_no_file(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "out")
    with pytest.raises(InputError, match="is a file"):
        plan([Input(tmp_path / "a.png", Path("a.png"))], out=tmp_path / "out", wanted=None)

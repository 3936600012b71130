"""Copies of what is on a real S3 server."""

import multiprocessing
import os
from pathlib import Path

import pytest

from roadseg_train.errors import StorageError
from roadseg_train.storage.cache import local_copy
from roadseg_train.storage.path import StoragePath, storage_path
from tests.seaweed import BUCKET, Seaweed


@pytest.fixture
def data(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoragePath:
    """A dataset of three pictures and what else lies there; the cache is empty."""
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "cache"))
    for name in ("train/a.png", "train/b.PNG", "trainannot/a.png", "train.zip", "README"):
        seaweed.put(f"{tmp_path.name}/data/{name}", name.encode())
    seaweed.put(f"{tmp_path.name}/data-2/train/z.png", b"another's")
    return storage_path(f"s3://{BUCKET}/{tmp_path.name}/data")


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_local_folder_is_its_own_copy(tmp_path: Path) -> None:
    assert local_copy(storage_path(tmp_path), (".png",)) == tmp_path


def test_pictures_are_fetched_once(data: StoragePath, capsys: pytest.CaptureFixture[str]) -> None:
    copy = local_copy(data, (".png",))
    assert contents(copy) == {name: name for name in ("train/a.png", "train/b.PNG", "trainannot/a.png")}
    assert "3/3" in capsys.readouterr().err  # the progress bar
    assert local_copy(data, (".png",)) == copy
    assert capsys.readouterr().err == ""


def test_what_changed_is_fetched_again_and_makes_another_copy(
    data: StoragePath, seaweed: Seaweed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_copy(data, (".png",))
    capsys.readouterr()
    seaweed.put(f"{tmp_path.name}/data/train/a.png", b"other pixels")
    seaweed.client.delete_object(Bucket=BUCKET, Key=f"{tmp_path.name}/data/train/b.PNG")
    after = local_copy(data, (".png",))
    assert contents(after) == {"train/a.png": "other pixels", "trainannot/a.png": "trainannot/a.png"}
    assert "1/1" in capsys.readouterr().err  # only that one
    assert contents(before)["train/a.png"] == "train/a.png"  # whoever reads the former copy is left in peace


def test_a_copy_that_was_cut_short_is_finished(
    data: StoragePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = local_copy(data, (".png",))
    capsys.readouterr()
    # As after a kill between two files: no copy yet, one object is missing and another is there in part.
    copy.rename(copy.with_name(f"{copy.name}.partial"))
    lost = next((tmp_path / "cache" / "objects").iterdir())
    lost.rename(lost.with_suffix(".partial"))
    lost.with_suffix(".partial").write_text("ha")
    assert local_copy(data, (".png",)) == copy
    assert contents(copy) == {name: name for name in ("train/a.png", "train/b.PNG", "trainannot/a.png")}
    assert "1/1" in capsys.readouterr().err


def test_processes_of_one_machine_share_one_copy(data: StoragePath, seaweed: Seaweed, tmp_path: Path) -> None:
    for number in range(60):
        seaweed.put(f"{tmp_path.name}/data/train/{number}.png", os.urandom(50_000))
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        copies = pool.starmap(local_copy, [(data, (".png",))] * 3)
    assert len(set(copies)) == 1
    assert len(list(copies[0].rglob("*.png"))) == 62
    assert all(path.stat().st_size == 50_000 for path in copies[0].rglob("[0-9]*.png"))
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_an_address_with_nothing_is_told(data: StoragePath) -> None:
    with pytest.raises(StorageError, match=r"s3://.*/none has no \.png; correct the address"):
        local_copy(data / "none", (".png",))


def test_a_cache_that_cannot_be_written_is_told(
    data: StoragePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set ROADSEG_CACHE to another folder"):
        local_copy(data, (".png",))

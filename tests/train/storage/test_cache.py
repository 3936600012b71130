"""Local copies of data on a real S3 server."""

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
    """A dataset of three images among other files; the cache is empty."""
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "cache"))
    for name in ("train/a.png", "train/b.PNG", "trainannot/a.png", "train.zip", "README"):
        seaweed.put(f"{tmp_path.name}/data/{name}", name.encode())
    seaweed.put(f"{tmp_path.name}/data-2/train/z.png", b"another's")
    return storage_path(f"s3://{BUCKET}/{tmp_path.name}/data")


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_local_folder_is_not_copied(tmp_path: Path) -> None:
    assert local_copy(storage_path(tmp_path), (".png",)) == tmp_path


def test_images_are_downloaded_once(data: StoragePath, capsys: pytest.CaptureFixture[str]) -> None:
    copy = local_copy(data, (".png",))
    assert contents(copy) == {name: name for name in ("train/a.png", "train/b.PNG", "trainannot/a.png")}
    assert "3/3" in capsys.readouterr().err  # the progress bar
    assert local_copy(data, (".png",)) == copy
    assert capsys.readouterr().err == ""


def test_only_changed_files_are_downloaded_into_a_new_copy(
    data: StoragePath, seaweed: Seaweed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_copy(data, (".png",))
    capsys.readouterr()
    seaweed.put(f"{tmp_path.name}/data/train/a.png", b"other pixels")
    seaweed.client.delete_object(Bucket=BUCKET, Key=f"{tmp_path.name}/data/train/b.PNG")
    after = local_copy(data, (".png",))
    assert contents(after) == {"train/a.png": "other pixels", "trainannot/a.png": "trainannot/a.png"}
    assert "1/1" in capsys.readouterr().err  # only that one
    assert contents(before)["train/a.png"] == "train/a.png"  # readers of the old copy are not disturbed


def test_an_interrupted_copy_is_completed(
    data: StoragePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = local_copy(data, (".png",))
    capsys.readouterr()
    # Like a kill during a download: there is no copy yet, and one object is incomplete.
    copy.rename(copy.with_name(f"{copy.name}.partial"))
    lost = next((tmp_path / "cache" / "objects").iterdir())
    lost.rename(lost.with_suffix(".partial"))
    lost.with_suffix(".partial").write_text("ha")
    assert local_copy(data, (".png",)) == copy
    assert contents(copy) == {name: name for name in ("train/a.png", "train/b.PNG", "trainannot/a.png")}
    assert "1/1" in capsys.readouterr().err


def test_processes_on_one_machine_share_a_copy(data: StoragePath, seaweed: Seaweed, tmp_path: Path) -> None:
    for number in range(60):
        seaweed.put(f"{tmp_path.name}/data/train/{number}.png", os.urandom(50_000))
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        copies = pool.starmap(local_copy, [(data, (".png",))] * 3)
    assert len(set(copies)) == 1
    assert len(list(copies[0].rglob("*.png"))) == 62
    assert all(path.stat().st_size == 50_000 for path in copies[0].rglob("[0-9]*.png"))
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_an_empty_address_is_reported(data: StoragePath) -> None:
    with pytest.raises(StorageError, match=r"s3://.*/none has no \.png; correct the address"):
        local_copy(data / "none", (".png",))


def test_an_unwritable_cache_is_reported(data: StoragePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set ROADSEG_CACHE to another folder"):
        local_copy(data, (".png",))

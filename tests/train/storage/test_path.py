"""Folders and a real S3 server behave alike."""

from pathlib import Path

import pytest

from roadseg_train.errors import StorageError
from roadseg_train.storage.path import StoragePath, for_ray, storage_path
from roadseg_train.storage.s3 import RayStorage, S3Path


def test_text_is_written_read_and_listed(place: StoragePath) -> None:
    assert place.names() == []
    (place / "b" / "c.json").write_text("c")
    (place / "a.json").write_text("first")
    (place / "a.json").write_text("sécond")
    assert place.names() == ["a.json", "b"]
    assert (place / "b").names() == ["c.json"]
    assert (place / "a.json").read_text() == "sécond"
    assert storage_path(place.uri).names() == ["a.json", "b"]
    # a longer name with the same start is not inside
    assert (place / "a").names() == []


def test_a_missing_file_raises_file_not_found(place: StoragePath) -> None:
    with pytest.raises(FileNotFoundError):
        (place / "none").read_text()
    with pytest.raises(FileNotFoundError), (place / "none").reading() as path:
        path.read_bytes()


def test_create_text_does_not_overwrite(place: StoragePath) -> None:
    (place / "manifest.json").create_text("mine")
    with pytest.raises(FileExistsError):
        (place / "manifest.json").create_text("yours")
    assert (place / "manifest.json").read_text() == "mine"


def test_large_files_are_written_and_read(place: StoragePath) -> None:
    data = bytes(range(256)) * 80_000  # 20 MB: in several parts
    with (place / "state.pt").writing() as path:
        path.write_bytes(data)
        assert place.names() == []
    assert place.names() == ["state.pt"]
    with (place / "state.pt").reading() as path:
        assert path.read_bytes() == data


def test_a_failed_write_leaves_the_old_file(place: StoragePath) -> None:
    (place / "a").write_text("whole")

    def write_half() -> None:
        with (place / "a").writing() as path:
            path.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert place.names() == ["a"]
    assert (place / "a").read_text() == "whole"


def test_files_and_folders_are_uploaded(place: StoragePath, tmp_path: Path) -> None:
    local = tmp_path / "events"
    (local / "worker").mkdir(parents=True)
    (local / "a").write_text("1")
    (local / "worker" / "b").write_text("2")
    place.upload(local, "tensorboard")
    (local / "a").write_text("3")
    place.upload(local, "tensorboard")
    place.upload(local / "a", "copy")
    assert place.names() == ["copy", "tensorboard"]
    assert (place / "tensorboard").names() == ["a", "worker"]
    assert (place / "tensorboard" / "a").read_text() == "3"
    assert (place / "tensorboard" / "worker" / "b").read_text() == "2"
    assert (place / "copy").read_text() == "3"


def test_remove_deletes_only_the_folder(place: StoragePath) -> None:
    for name in ("run", "run-2"):
        (place / name / "state").write_text(name)
    (place / "run").remove()
    (place / "run").remove()  # does nothing
    assert (place / "run").names() == []
    assert (place / "run-2" / "state").read_text() == "run-2"


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "s3:///x", "https://host/x"])
def test_malformed_uris_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="s3://bucket/name"):
        storage_path(uri)


def test_uris_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (storage_path("runs/a").uri, str(storage_path("runs/a"))) == (str(tmp_path / "runs" / "a"), "runs/a")
    assert storage_path("s3://bucket/runs/a/") == S3Path("bucket", "runs/a")
    assert storage_path("s3://bucket") / "a" == S3Path("bucket", "a")


def test_for_ray(tmp_path: Path) -> None:
    assert for_ray(storage_path(tmp_path / "run")) == (None, str(tmp_path / "run"))
    filesystem, path = for_ray(storage_path("s3://bucket/ray/run"))
    assert (type(filesystem), path) == (RayStorage, "bucket/ray/run")

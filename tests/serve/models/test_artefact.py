"""The reader verifies everything before anything is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from roadseg_serve.errors import ArtefactError
from roadseg_serve.models import artefact
from roadseg_serve.models.store import S3Folder


def test_reads_an_intact_version(red_artefact: Path) -> None:
    version = artefact.read(red_artefact)
    assert (version.manifest.name, version.manifest.version) == ("red", "1")
    assert version.path_of("model.onnx").is_file()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "breaks the artefact contract"),
        (lambda folder: (folder / "model.onnx").unlink(), "is missing"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"short"), "has 5 bytes"),
        (lambda folder: (folder / "model.pt2").write_bytes(b"Not loaded on CPU"), "sha256"),
    ],
)
def test_refuses_a_damaged_version_and_says_why(
    spoil: Callable[[Path], object], says: str, tmp_path: Path, write_red_artefact: Callable[..., Path]
) -> None:
    folder = write_red_artefact(tmp_path / "1")
    spoil(folder)
    with pytest.raises(ArtefactError, match=says):
        artefact.read(folder)


def test_reads_only_the_files_that_are_needed(tmp_path: Path, write_red_artefact: Callable[..., Path]) -> None:
    folder = write_red_artefact(tmp_path / "1")
    (folder / "model.pt2").unlink()
    assert artefact.read(folder, ["model.onnx"]).folder == folder
    with pytest.raises(ArtefactError, match=r"model\.pt2 is missing"):
        artefact.read(folder, ["model.pt2"])
    with pytest.raises(ArtefactError, match=r"model\.pt2 is missing"):
        artefact.check(folder, ["model.onnx"])  # before it is served, all of a version is verified


def test_a_program_that_is_not_listed_is_refused(red_artefact: Path) -> None:
    for look in (artefact.read, artefact.check):
        with pytest.raises(ArtefactError, match=r"has no model\.trt"):
            look(red_artefact, ["model.onnx", "model.trt"])


def test_resolves_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artefact.resolve("store/red/1") == tmp_path / "store" / "red" / "1"
    assert artefact.resolve(str(tmp_path)) == tmp_path
    assert artefact.resolve(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert artefact.resolve("bundled:small") == artefact.BUNDLED_FOLDER / "road-small" / "3"


def test_resolves_s3() -> None:
    assert artefact.resolve("s3://bucket/models/red/1/") == S3Folder("bucket", "models/red/1")


@pytest.mark.parametrize(
    "uri",
    ["bundled:huge", "s3://", "s3://bucket", "s3://bucket/", "s3:bucket/1", "https://host/red", "file://host/red"],
)
def test_refuses_other_uris(uri: str) -> None:
    with pytest.raises(ArtefactError):
        artefact.resolve(uri)


@pytest.mark.parametrize("name", artefact.BUNDLED)
def test_bundled_versions_are_intact(name: str) -> None:
    folder = artefact.resolve(f"bundled:{name}")
    assert isinstance(folder, Path)
    if not folder.exists():
        pytest.skip("the bundled model is not in this checkout")
    manifest = artefact.read(folder).manifest
    assert f"{manifest.name}/{manifest.version}" == artefact.BUNDLED[name]
    # They stay in the repository, so they must be small.
    assert sum(file.size_bytes for file in manifest.files.values()) <= {"small": 10, "full": 25}[name] * 1_000_000

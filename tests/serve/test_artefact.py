"""The reader: what it accepts is what the schema accepts, and nothing is read before it is verified."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from roadseg_serve import artefact
from roadseg_serve.artefact import Manifest, Quantisation
from roadseg_serve.errors import ArtefactError
from roadseg_serve.store import S3Folder

SCHEMA = Path(__file__).parents[2] / "docs" / "artefact.schema.json"
DELETE = object()

QUANTISATION = {
    "calibrated_on": "fit",
    "num_calibration_images": 32,
    "split": "heldout",
    "seen_in_training": False,
    "num_images": 73,
    "road_iou_float32": 0.93,
    "road_iou_int8": 0.929,
    "allowed_drop": 0.003,
}
INT8_FILE = {"sha256": "0" * 64, "size_bytes": 1}

# path of a field, and a value that breaks the contract there
BREACHES: list[tuple[str, Any]] = [
    ("schema_version", 2),
    ("schema_version", "1"),
    ("name", "Red"),
    ("name", ""),
    ("version", "v 1"),
    ("created", "yesterday"),
    ("created", DELETE),
    ("git_commit", "abc"),
    ("git_commit", DELETE),
    ("surprise", 1),
    ("files", {}),
    ("files/model.pt2", DELETE),
    ("files/extra.bin", {"sha256": "0" * 64, "size_bytes": 1}),
    ("files/model.onnx/sha256", "0" * 63),
    ("files/model.onnx/size_bytes", 0),
    ("files/model.onnx/size_bytes", "17"),
    ("input/dtype", "float32"),
    ("input/layout", "BCHW"),
    ("input/size/short_side_px", 8),
    ("input/size/multiple_px", 0),
    ("input/size/multiple_px", 1.5),
    ("input/mean", [0, 0, 0]),
    ("output/meaning", "logit"),
    ("threshold", 1.1),
    ("threshold", None),
    ("threshold", "0.5"),
    ("classes", ["road", "not road"]),
    ("classes", ["not road", "road", "kerb"]),
    ("parameters", 0),
    ("parameters", True),
    ("agreement/tolerance", 0),
    ("agreement/max_abs_difference", -1),
    ("agreement/sizes_BHW", []),
    ("agreement/sizes_BHW", [[1, 64]]),
    ("agreement/sizes_BHW", [[1, 64, 0]]),
    ("metrics/measured_on", "other weights"),
    ("metrics/num_images", 0),
    ("metrics/split", ""),
    ("metrics/overall/f1", 1.5),
    ("metrics/overall/f1", DELETE),
    ("metrics/by_drive", {}),
    ("metrics/by_drive/red", {}),
    ("quantisation", QUANTISATION),  # without its program
    ("training", None),
    ("libraries/onnx", DELETE),
    ("libraries/torch", 2),
]

# the same for a version that has an int8 program
INT8_BREACHES: list[tuple[str, Any]] = [
    ("quantisation", DELETE),
    ("quantisation", None),
    ("files/model.int8.onnx", DELETE),
    ("quantisation/calibrated_on", ""),
    ("quantisation/num_calibration_images", 0),
    ("quantisation/split", DELETE),
    ("quantisation/seen_in_training", "no"),
    ("quantisation/num_images", 1.5),
    ("quantisation/road_iou_int8", 1.5),
    ("quantisation/allowed_drop", None),
    ("quantisation/surprise", 1),
]

# path of a field, and another value that keeps the contract
VARIANTS: list[tuple[str, Any]] = [
    ("git_commit", "0123456789abcdef0123456789abcdef01234567"),
    ("git_commit", "0123456789abcdef0123456789abcdef01234567+"),
    ("threshold", 0),
    ("threshold", 1),
    ("version", "2026.01.02_a-b"),
    ("training", {"steps": 10, "nested": {"rate": 0.1, "names": ["a", None]}}),
    ("libraries/ray", "2.60.0"),
    ("agreement/sizes_BHW", [[1, 64, 64], [4, 32, 96]]),
    ("quantisation", None),
]


def with_field(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    *parents, last = path.split("/")
    place = changed
    for parent in parents:
        place = place[parent]
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.fixture
def manifest(red_artefact: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((red_artefact / "manifest.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def accepts(document: dict[str, Any]) -> bool:
    try:
        Manifest.model_validate_json(json.dumps(document))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("path", "value"), BREACHES)
def test_schema_and_reader_refuse_the_same(
    path: str, value: Any, manifest: dict[str, Any], schema: jsonschema.Draft202012Validator
) -> None:
    breach = with_field(manifest, path, value)
    assert (schema.is_valid(breach), accepts(breach)) == (False, False)


@pytest.mark.parametrize(("path", "value"), VARIANTS)
def test_schema_and_reader_accept_the_same(
    path: str, value: Any, manifest: dict[str, Any], schema: jsonschema.Draft202012Validator
) -> None:
    variant = with_field(manifest, path, value)
    assert (schema.is_valid(variant), accepts(variant)) == (True, True)


@pytest.mark.parametrize(("path", "value"), INT8_BREACHES)
def test_schema_and_reader_refuse_the_same_of_int8(
    path: str, value: Any, manifest: dict[str, Any], schema: jsonschema.Draft202012Validator
) -> None:
    whole = with_field(with_field(manifest, "files/model.int8.onnx", INT8_FILE), "quantisation", QUANTISATION)
    assert (schema.is_valid(whole), accepts(whole)) == (True, True)
    breach = with_field(whole, path, value)
    assert (schema.is_valid(breach), accepts(breach)) == (False, False)


def test_schema_and_reader_have_the_same_fields() -> None:
    document = json.loads(SCHEMA.read_text())
    properties = document["properties"]
    assert set(Quantisation.model_fields) == set(document["$defs"]["quantisation"]["properties"])
    assert set(Manifest.model_fields) == set(properties)
    for part in ("input", "output", "agreement", "metrics"):
        fields = Manifest.model_fields[part].annotation
        assert fields is not None
        assert set(fields.model_fields) == set(properties[part]["properties"])


def test_reads_a_whole_version(red_artefact: Path) -> None:
    version = artefact.read(red_artefact)
    assert (version.manifest.name, version.manifest.version) == ("red", "1")
    assert version.path_of("model.onnx").is_file()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "does not keep the artefact contract"),
        (lambda folder: (folder / "model.onnx").unlink(), "is missing though the manifest lists it"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"short"), "has 5 bytes"),
        (lambda folder: (folder / "model.pt2").write_bytes(b"Not loaded on CPU"), "sha256"),
    ],
)
def test_refuses_a_spoilt_version_and_says_why(
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
        artefact.check(folder, ["model.onnx"])  # before a version is served, all of it is looked at


def test_a_program_that_is_not_listed_is_refused(red_artefact: Path) -> None:
    for look in (artefact.read, artefact.check):
        with pytest.raises(ArtefactError, match=r"has no model\.trt"):
            look(red_artefact, ["model.onnx", "model.trt"])


def test_resolves_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artefact.resolve("store/red/1") == tmp_path / "store" / "red" / "1"
    assert artefact.resolve(str(tmp_path)) == tmp_path
    assert artefact.resolve(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert artefact.resolve("bundled:small") == artefact.BUNDLED_FOLDER / "road-small" / "2"


def test_resolves_s3() -> None:
    assert artefact.resolve("s3://bucket/models/red/1/") == S3Folder("bucket", "models/red/1")


@pytest.mark.parametrize(
    "uri",
    ["bundled:huge", "s3://", "s3://bucket", "s3://bucket/", "s3:bucket/1", "https://host/red", "file://host/red"],
)
def test_refuses_other_uris(uri: str) -> None:
    with pytest.raises(ArtefactError):
        artefact.resolve(uri)


@pytest.mark.parametrize("key", artefact.BUNDLED)
def test_bundled_versions_are_whole(key: str) -> None:
    folder = artefact.resolve(f"bundled:{key}")
    assert isinstance(folder, Path)
    if not folder.exists():
        pytest.skip("the bundled model is not in this checkout")
    manifest = artefact.read(folder).manifest
    assert f"{manifest.name}/{manifest.version}" == artefact.BUNDLED[key]
    # They are in the repository for ever, so they are small.
    assert sum(file.size_bytes for file in manifest.files.values()) <= {"small": 10, "full": 25}[key] * 1_000_000

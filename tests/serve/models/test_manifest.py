"""What the reader accepts is what the schema accepts."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from roadseg_serve.models.manifest import Manifest, Quantisation

SCHEMA = Path(__file__).parents[3] / "docs" / "artefact.schema.json"
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

"""The red model: a published version whose answer a person computes in the head. Road probability is red / 255."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def red_program() -> bytes:
    """ONNX: the road probability of a pixel is its red value / 255."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["image", "red"], ["red_BHW"], axis=3),
            helper.make_node("Cast", ["red_BHW"], ["float_BHW"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["float_BHW", "full"], ["prob"]),
        ],
        "red",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["B", "H", "W"])],
        [
            helper.make_tensor("red", TensorProto.INT64, [], [0]),
            helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    program: bytes = model.SerializeToString()
    return program


def red_manifest(files: dict[str, bytes]) -> dict[str, Any]:
    """A whole and true manifest for these files."""
    scores = {"road_iou": 1.0, "mean_image_iou": 1.0, "f1": 1.0, "max_f": 1.0}
    return {
        "schema_version": 1,
        "name": "red",
        "version": "1",
        "created": "2026-01-02T03:04:05Z",
        "git_commit": None,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in files.items()
        },
        "input": {
            "name": "image",
            "dtype": "uint8",
            "layout": "BHWC",
            "channels": "RGB",
            "size": {"short_side_px": 64, "max_long_side_px": 160, "multiple_px": 16},
        },
        "output": {"name": "prob", "dtype": "float32", "layout": "BHW", "meaning": "road probability"},
        "threshold": 0.5,
        "classes": ["not road", "road"],
        "parameters": 1,
        "agreement": {"max_abs_difference": 0.0, "tolerance": 0.001, "sizes_BHW": [[1, 64, 64]]},
        "metrics": {
            "dataset": "red pictures",
            "split": "all",
            "measured_on": "these weights",
            "num_images": 1,
            "overall": scores,
            "by_drive": {"red": scores},
        },
        "training": {},
        "libraries": {"python": "3.11", "torch": "2.10", "onnx": "1.19"},
    }


def write_red(folder: Path, **replaced: Any) -> Path:
    """Write the red model into a folder as a published version; keywords replace manifest fields."""
    # The CPU engine verifies model.pt2 but never loads it.
    files = {"model.onnx": red_program(), "model.pt2": b"not loaded on CPU"}
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = red_manifest(files) | replaced
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

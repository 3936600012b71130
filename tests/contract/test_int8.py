"""The int8 program, from calibration to the engine: made by train of the weights that serve ships."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image

from docs.scenes import Scene, draw
from roadseg_serve.engines.batch import quantise
from roadseg_serve.engines.engine import create_engine
from roadseg_serve.messages import UInt8Array
from roadseg_serve.models import artefact as reader
from roadseg_serve.models.artefact import Artefact
from roadseg_serve.stages.preprocess import fit
from roadseg_train.config import TrainConfig, tiny
from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.data.geometry import SizeRule
from roadseg_train.network.half import round_to_half
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.publish import artefact as writer
from roadseg_train.publish import quantise as quantiser
from roadseg_train.publish.quantise import QuantisationFrames, quantise_program
from roadseg_train.storage.path import storage_path
from tests.contract.test_artefact import SCHEMA, evaluation_of, member_of

# What docs/engines.md states: how much masks overlap at the threshold 0.5, and how far levels (0 to 255) may differ.
MIN_MASK_IOU, MAX_MEAN_LEVELS = 0.995, 0.5

BUNDLED = reader.BUNDLED_FOLDER / reader.BUNDLED["small"]
RULE = SizeRule(**reader.read(BUNDLED).manifest.input.size.model_dump())
ROAD, TREE = 3, 5  # CamVid's
CALIBRATION = [Scene(seed=seed, light=0.3 + 0.1 * seed, bend=seed - 4, wet=seed / 8) for seed in range(8)]
HELDOUT = [Scene(seed=9, cars=((3.1, 12.0),)), Scene(seed=10, light=0.4), Scene(seed=11, shadow=0.5, bend=3)]


def write_camvid(folder: Path, pictures: dict[str, tuple[UInt8Array, npt.NDArray[np.bool_]]]) -> list[Frame]:
    """Pictures and their road masks as frames of a CamVid folder."""
    for part in ("train", "trainannot"):
        (folder / part).mkdir(parents=True)
    for name, (image_HWC, road_HW) in pictures.items():
        Image.fromarray(image_HWC).save(folder / "train" / f"{name}.png")
        Image.fromarray(np.where(road_HW, ROAD, TREE).astype(np.uint8)).save(folder / "trainannot" / f"{name}.png")
    return find_frames(folder)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> QuantisationFrames:
    """Drawn streets, of which the drive 0006R0 is held out."""
    pictures = {f"0001TP_{place:05d}": draw(scene) for place, scene in enumerate(CALIBRATION)}
    pictures |= {f"0006R0_{place:05d}": draw(scene) for place, scene in enumerate(HELDOUT)}
    found = write_camvid(tmp_path_factory.mktemp("data") / "CamVid", pictures)
    by_drive = {drive: [frame for frame in found if frame.drive == drive] for drive in ("0001TP", "0006R0")}
    return QuantisationFrames("fit", by_drive["0001TP"], "heldout", by_drive["0006R0"], seen_in_training=False)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, frames: QuantisationFrames) -> Artefact:
    """The bundled weights with an int8 program."""
    folder = tmp_path_factory.mktemp("store") / "road-small" / "1"
    shutil.copytree(BUNDLED, folder)
    quantisation = quantise_program(folder, frames, rule=RULE, threshold=0.5)
    assert quantisation.is_offered, quantisation.text()
    manifest = json.loads((folder / "manifest.json").read_text())
    program = (folder / "model.int8.onnx").read_bytes()
    manifest["files"]["model.int8.onnx"] = {
        "sha256": hashlib.sha256(program).hexdigest(),
        "size_bytes": len(program),
    }
    manifest["quantisation"] = quantisation.model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return reader.read(folder)


@pytest.fixture(scope="module")
def streets() -> UInt8Array:
    """image_BHWC of the held-out streets, at the model's size."""
    rule = reader.read(BUNDLED).manifest.input.size
    return np.stack([fit(draw(scene)[0], rule).input_HWC for scene in HELDOUT])


def test_it_is_smaller_and_has_the_same_input_and_output(version: Artefact) -> None:
    float32, int8 = onnx.load(version.path_of("model.onnx")), onnx.load(version.path_of("model.int8.onnx"))
    # A byte for each weight, and some for the rest; the float program may store two or four.
    assert version.manifest.files["model.int8.onnx"].size_bytes < 1.3 * version.manifest.parameters
    for one, other in ((float32.graph.input, int8.graph.input), (float32.graph.output, int8.graph.output)):
        assert [(value.name, value.type.tensor_type.elem_type) for value in one] == [
            (value.name, value.type.tensor_type.elem_type) for value in other
        ]


def test_openvino_computes_it_in_int8(version: Artefact) -> None:
    program = openvino.Core().compile_model(
        version.path_of("model.int8.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    infos = [node.get_rt_info() for node in program.get_runtime_model().get_ops()]
    precisions = [
        info["runtimePrecision"].astype(str) for info in infos if info["layerType"].astype(str) == "Convolution"
    ]
    # Of 32 convolutions the first and the last stay as they are.
    assert sorted(precisions) == ["f32"] * 2 + ["u8"] * 30


def test_int8_says_what_float32_says(version: Artefact, streets: UInt8Array) -> None:
    float32 = create_engine("openvino", version, num_threads=2).predict(streets)
    int8 = create_engine("openvino-int8", version, num_threads=2).predict(streets)
    session = onnxruntime.InferenceSession(version.path_of("model.int8.onnx"), providers=["CPUExecutionProvider"])
    elsewhere = quantise(session.run(["prob"], {"image": streets})[0])
    for other in (float32, elsewhere):
        assert_alike(int8, other)
    assert not np.array_equal(int8, float32)


@pytest.mark.parametrize("name", reader.BUNDLED)
def test_bundled_int8_says_what_float32_says(name: str, streets: UInt8Array) -> None:
    bundled = reader.read(reader.BUNDLED_FOLDER / reader.BUNDLED[name])
    int8, float32 = (
        create_engine(engine, bundled, num_threads=2).predict(streets) for engine in ("openvino-int8", "openvino")
    )
    assert_alike(int8, float32)


def assert_alike(one: UInt8Array, other: UInt8Array) -> None:
    mask_iou = ((one >= 128) & (other >= 128)).sum() / ((one >= 128) | (other >= 128)).sum()
    assert mask_iou >= MIN_MASK_IOU
    assert np.abs(one.astype(int) - other).mean() <= MAX_MEAN_LEVELS


def test_a_bad_calibration_is_seen_and_left_out(tmp_path: Path, frames: QuantisationFrames) -> None:
    # An empty picture of the grey that normalises to 0 says that activations are small: streets overrun their ranges.
    image_HWC, road_HW = draw(CALIBRATION[0])
    grey = write_camvid(tmp_path / "CamVid", {"0001TP_00000": (np.full_like(image_HWC, 102), road_HW)})
    shutil.copy(BUNDLED / "model.onnx", tmp_path)
    quantisation = quantise_program(tmp_path, replace(frames, calibration=grey), rule=RULE, threshold=0.5)
    assert quantisation.road_iou_float32 > 0.8
    assert not quantisation.is_offered


@pytest.mark.parametrize(("allowed_drop", "offered"), [(1.0, True), (-1.0, False)])
def test_what_is_offered_is_written_and_read(
    allowed_drop: float, offered: bool, tmp_path: Path, frames: QuantisationFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantiser, "ALLOWED_DROP", allowed_drop)
    config: TrainConfig = tiny().model_copy(update={"widths": (16, 16, 16)})
    torch.manual_seed(0)
    published = writer.publish(
        storage_path(tmp_path),
        "road",
        "1",
        program=RoadProgram(round_to_half(UNet(config.widths).eval())).eval(),
        members=[member_of(config)],
        fitted_on="fit",
        evaluation=evaluation_of(config),
        int8_frames=frames,
    )
    folder = Path(published.place.uri)
    assert published.quantisation is not None
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), SCHEMA)
    version = reader.read(folder)
    assert ("model.int8.onnx" in version.manifest.files) == offered == (folder / "model.int8.onnx").exists()
    if version.manifest.quantisation:
        assert version.manifest.quantisation.model_dump() == published.quantisation.model_dump()
        assert create_engine("openvino-int8", version, num_threads=1).predict(np.zeros((1, 32, 32, 3), np.uint8)).any()

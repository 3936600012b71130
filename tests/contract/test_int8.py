"""The int8 program from calibration to the engine, made by train from the weights that serve bundles."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
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
from roadseg_serve.engines.engine import Engine, create_engine
from roadseg_serve.messages import UInt8Array
from roadseg_serve.models import artefact as reader
from roadseg_serve.models.artefact import Artefact
from roadseg_serve.stages.postprocess import resize_back
from roadseg_serve.stages.preprocess import resize_and_pad
from roadseg_train.config import TrainConfig, tiny
from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.data.geometry import SizeRule
from roadseg_train.network.half import round_to_half
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.publish import artefact as writer
from roadseg_train.publish import quantise as quantiser
from roadseg_train.publish.quantise import ALLOWED_DROP, QuantisationFrames, quantise_program
from roadseg_train.storage.path import storage_path
from tests.contract.test_artefact import SCHEMA, evaluation_of, record_of

# As docs/engines.md states: the IoU of the masks at threshold 0.5, and the mean difference in levels (0 to 255).
MIN_MASK_IOU, MAX_MEAN_LEVELS = 0.995, 0.5

# Data of cameras and countries that the bundled weights, fitted on CamVid, have never seen.
DATA = Path(os.environ.get("ROADSEG_DATA") or Path(__file__).parents[3] / "shared" / "data")
UNSEEN = ("idd_lite/val", "labelmefacade", "lums_campus")
NUM_UNSEEN = 8  # images of each

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
    """Drawn streets; the drive 0006R0 is held out."""
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
    """The held-out streets as image_BHWC, uint8, at the model's size."""
    rule = reader.read(BUNDLED).manifest.input.size
    return np.stack([resize_and_pad(draw(scene)[0], rule).input_HWC for scene in HELDOUT])


def test_it_is_small_and_has_the_same_input_and_output(version: Artefact) -> None:
    float32, int8 = onnx.load(version.path_of("model.onnx")), onnx.load(version.path_of("model.int8.onnx"))
    # One byte per weight, and some for the rest; the float program stores two or four.
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
    # The first and the last of the 32 convolutions stay float32.
    assert sorted(precisions) == ["f32"] * 2 + ["u8"] * 30


def test_int8_computes_what_float32_computes(version: Artefact, streets: UInt8Array) -> None:
    float32 = create_engine("openvino", version, num_threads=2).predict(streets)
    int8 = create_engine("openvino-int8", version, num_threads=2).predict(streets)
    session = onnxruntime.InferenceSession(version.path_of("model.int8.onnx"), providers=["CPUExecutionProvider"])
    elsewhere = quantise(session.run(["prob"], {"image": streets})[0])
    for other in (float32, elsewhere):
        assert_alike(int8, other)
    assert not np.array_equal(int8, float32)


@pytest.mark.parametrize("name", reader.BUNDLED)
def test_bundled_int8_computes_what_float32_computes(name: str, streets: UInt8Array) -> None:
    bundled = reader.read(reader.BUNDLED_FOLDER / reader.BUNDLED[name])
    int8, float32 = (
        create_engine(engine, bundled, num_threads=2).predict(streets) for engine in ("openvino-int8", "openvino")
    )
    assert_alike(int8, float32)


@pytest.mark.parametrize("name", reader.BUNDLED)
def test_bundled_int8_is_as_accurate_on_drawn_streets(name: str) -> None:
    assert_as_accurate(name, [(image_HWC, np.where(road_HW, 255, 0)) for image_HWC, road_HW in map(draw, HELDOUT)])


@pytest.mark.parametrize("name", reader.BUNDLED)
def test_bundled_int8_is_as_accurate_on_unseen_images(name: str) -> None:
    if not all((DATA / folder).is_dir() for folder in UNSEEN):
        pytest.skip(f"{DATA} lacks one of {', '.join(UNSEEN)}; set ROADSEG_DATA to the folder that has them")
    assert_as_accurate(name, [pair for folder in UNSEEN for pair in read_pairs(DATA / folder)])


def read_pairs(folder: Path) -> list[tuple[UInt8Array, UInt8Array]]:
    """(image_HWC, mask_HW) of images spread over a folder, uint8; masks are 255 road, 0 not road, 127 void."""
    images = {path.stem: path for path in (folder / "images").iterdir()}
    masks = sorted(path for path in (folder / "masks").iterdir() if path.stem in images)
    chosen = masks[:: len(masks) // NUM_UNSEEN][:NUM_UNSEEN]
    assert len(chosen) == NUM_UNSEEN
    return [(np.array(Image.open(images[mask.stem]).convert("RGB")), np.array(Image.open(mask))) for mask in chosen]


def assert_as_accurate(name: str, pairs: Sequence[tuple[UInt8Array, UInt8Array]]) -> None:
    """The bundled int8 program loses no more road IoU than `publish --int8` allows."""
    bundled = reader.read(reader.BUNDLED_FOLDER / reader.BUNDLED[name])
    engines = (
        create_engine("openvino", bundled, num_threads=2),
        create_engine("openvino-int8", bundled, num_threads=2),
    )
    float32, int8 = (pooled_road_iou(engine, bundled, pairs) for engine in engines)
    assert float32 > 0.6
    assert float32 - int8 <= ALLOWED_DROP, (float32, int8)


def pooled_road_iou(engine: Engine, version: Artefact, pairs: Sequence[tuple[UInt8Array, UInt8Array]]) -> float:
    overlap, union = 0, 0
    for image_HWC, mask_HW in pairs:
        fitted = resize_and_pad(image_HWC, version.manifest.input.size)
        is_predicted = resize_back(engine.predict(fitted.input_HWC[None])[0], fitted.placement) >= 128
        is_road, is_labelled = mask_HW == 255, mask_HW != 127
        overlap += int((is_predicted & is_road).sum())
        union += int(((is_predicted | is_road) & is_labelled).sum())
    return overlap / union


def assert_alike(one: UInt8Array, other: UInt8Array) -> None:
    mask_iou = ((one >= 128) & (other >= 128)).sum() / ((one >= 128) | (other >= 128)).sum()
    assert mask_iou >= MIN_MASK_IOU
    assert np.abs(one.astype(int) - other).mean() <= MAX_MEAN_LEVELS


def test_a_bad_calibration_is_not_published(tmp_path: Path, frames: QuantisationFrames) -> None:
    # An image of the grey that normalises to 0 has small activations; those of streets exceed its ranges.
    image_HWC, road_HW = draw(CALIBRATION[0])
    grey = write_camvid(tmp_path / "CamVid", {"0001TP_00000": (np.full_like(image_HWC, 102), road_HW)})
    shutil.copy(BUNDLED / "model.onnx", tmp_path)
    quantisation = quantise_program(tmp_path, replace(frames, calibration=grey), rule=RULE, threshold=0.5)
    assert quantisation.road_iou_float32 > 0.8
    assert not quantisation.is_offered


@pytest.mark.parametrize(("allowed_drop", "offered"), [(1.0, True), (-1.0, False)])
def test_an_accurate_int8_program_is_written_and_read(
    allowed_drop: float, offered: bool, tmp_path: Path, frames: QuantisationFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantiser, "ALLOWED_DROP", allowed_drop)
    config: TrainConfig = tiny().model_copy(update={"widths": (16, 16, 16)})
    torch.manual_seed(0)
    quantisation = writer.publish(
        storage_path(tmp_path),
        "road",
        "1",
        program=RoadProgram(round_to_half(UNet(config.widths).eval())).eval(),
        record=record_of(config),
        step=config.num_steps,
        evaluation=evaluation_of(config),
        int8_frames=frames,
    )
    folder = tmp_path / "road" / "1"
    assert quantisation is not None
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), SCHEMA)
    version = reader.read(folder)
    assert ("model.int8.onnx" in version.manifest.files) == offered == (folder / "model.int8.onnx").exists()
    if version.manifest.quantisation:
        assert version.manifest.quantisation.model_dump() == quantisation.model_dump()
        assert create_engine("openvino-int8", version, num_threads=1).predict(np.zeros((1, 32, 32, 3), np.uint8)).any()

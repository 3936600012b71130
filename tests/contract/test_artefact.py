"""Writer, schema and reader of artefacts agree, although the two packages share no code."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openvino
import pytest
import torch

from roadseg_serve.engines.batch import quantise
from roadseg_serve.engines.engine import create_engine
from roadseg_serve.errors import ArtefactError as UnreadableArtefactError
from roadseg_serve.models import artefact as reader
from roadseg_serve.stages import postprocess, preprocess
from roadseg_train import metrics
from roadseg_train.config import TrainConfig, tiny
from roadseg_train.data import geometry
from roadseg_train.errors import ArtefactError
from roadseg_train.evaluate.evaluate import Detail, Evaluation
from roadseg_train.fit.run import RunRecord
from roadseg_train.metrics import Scores
from roadseg_train.network.half import round_to_half
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.views import Views
from roadseg_train.publish import artefact as writer
from roadseg_train.storage.path import storage_path

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "artefact.schema.json").read_text())
SCORES = Scores(road_iou=0.9, mean_image_iou=0.88, f1=0.95, max_f=0.96)
DETAIL = Detail(num_images=1, kitti=None, intervals=None)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return tiny().model_copy(update={"widths": (16, 16, 16)})


@pytest.fixture(scope="module")
def program(config: TrainConfig) -> RoadProgram:
    torch.manual_seed(0)
    return RoadProgram(round_to_half(UNet(config.widths).eval())).eval()


def record_of(config: TrainConfig, split: str = "fit") -> RunRecord:
    return RunRecord(config=config, data=["CamVid"], split=split, fit_frames=[])


def evaluation_of(config: TrainConfig, /, **changes: object) -> Evaluation:
    return Evaluation(
        created=datetime.now(UTC),
        run="runs/first",
        config=config,
        step=config.num_steps,
        fitted_on="fit",
        data=["CamVid"],
        dataset="CamVid",
        split="heldout",
        seen_in_training=False,
        threshold=0.5,
        num_images=1,
        overall=SCORES,
        by_drive={"0001TP": SCORES},
        overall_detail=DETAIL,
        detail_by_drive={"0001TP": DETAIL},
        reliability=None,
        robustness=None,
        images=[],
        road_at_level=[],
        not_road_at_level=[],
    ).model_copy(update=changes)


def publish(
    store: Path,
    program: RoadProgram,
    evaluation: Evaluation,
    *,
    config: TrainConfig,
    name: str = "road-small",
    version: str = "1.0",
    fitted_on: str = "fit",
) -> Path:
    writer.publish(
        storage_path(store),
        name,
        version,
        program=program,
        record=record_of(config, fitted_on),
        step=config.num_steps,
        evaluation=evaluation,
    )
    return store / name / version


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, program: RoadProgram, config: TrainConfig) -> Path:
    return publish(tmp_path_factory.mktemp("store"), program, evaluation_of(config), config=config)


def test_a_written_manifest_matches_the_schema(published: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((published / "manifest.json").read_text()), SCHEMA)


def test_a_written_artefact_is_read(published: Path, config: TrainConfig) -> None:
    manifest = reader.read(reader.resolve(str(published))).manifest
    assert (manifest.name, manifest.version) == ("road-small", "1.0")
    assert manifest.metrics.overall.road_iou == SCORES.road_iou
    assert manifest.metrics.measured_on == "these weights"
    assert manifest.training == {
        "fitted_on": "fit",
        "step": config.num_steps,
        "config": json.loads(config.model_dump_json()),
    }


def test_a_read_artefact_computes_what_was_trained(published: Path, program: RoadProgram) -> None:
    artefact = reader.read(published)
    image_BHWC = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    engine = openvino.Core().compile_model(artefact.path_of("model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        expected_BHW = program(torch.from_numpy(image_BHWC)).numpy()
    np.testing.assert_allclose(engine(image_BHWC)[artefact.manifest.output.name], expected_BHW, atol=1e-5)


def test_views_are_described_and_computed(tmp_path: Path, config: TrainConfig) -> None:
    torch.manual_seed(1)
    network, views = round_to_half(UNet(config.widths).eval()), Views(mirror=True, scales=(0.5, 1))
    evaluation = evaluation_of(config, mirror=True, scales=(0.5, 1))
    folder = publish(tmp_path, RoadProgram(network, views=views).eval(), evaluation, config=config)
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), SCHEMA)
    artefact = reader.read(folder)
    assert artefact.manifest.training == {
        "fitted_on": "fit",
        "step": config.num_steps,
        "config": config.model_dump(mode="json"),
        "mirror": True,
        "scales": [0.5, 1],
    }
    image_BHWC = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    with torch.inference_mode():
        seen = (torch.from_numpy(image_BHWC), torch.from_numpy(image_BHWC).flip(2))
        alone = [RoadProgram(network, views=Views(scales=(scale,))) for scale in (0.5, 1)]
        straight, mirrored = (sum(program(image) for program in alone) / 2 for image in seen)
        expected_BHW = quantise(((straight + mirrored.flip(2)) / 2).numpy())
    for engine in ("openvino", "onnxruntime", "torch"):
        levels_BHW = create_engine(engine, artefact, num_threads=1).predict(image_BHWC)
        assert np.abs(levels_BHW.astype(int) - expected_BHW).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(176, 240), (375, 1242), (1280, 720), (51, 2048), (1, 1), (3, 9000)])
def test_both_packages_resize_an_image_alike(published: Path, config: TrainConfig, height: int, width: int) -> None:
    image_HWC = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    served = preprocess.resize_and_pad(image_HWC, reader.read(published).manifest.input.size)
    np.testing.assert_array_equal(served.input_HWC, geometry.scale_and_pad(image_HWC, geometry.SizeRule.of(config)))


@pytest.mark.parametrize(("height", "width"), [(176, 240), (375, 1242), (1280, 720), (1, 1), (3, 9000)])
def test_both_packages_resize_a_probability_alike(
    published: Path, config: TrainConfig, height: int, width: int
) -> None:
    frame = preprocess.resize_and_pad(
        np.zeros((height, width, 3), np.uint8), reader.read(published).manifest.input.size
    )
    prob_HW = np.random.default_rng(3).integers(0, 256, frame.input_HWC.shape[:2], dtype=np.uint8)
    trained_HW = geometry.crop_and_scale_back(prob_HW, geometry.SizeRule.of(config), height, width)
    np.testing.assert_array_equal(postprocess.resize_back(prob_HW, frame.placement), trained_HW)


def test_both_packages_apply_a_threshold_alike() -> None:
    for threshold in [level / 255 for level in range(256)] + [percent / 100 for percent in range(101)]:
        assert postprocess.threshold_level(threshold) == metrics.threshold_level(threshold), threshold


def test_other_files_survive_publishing(tmp_path: Path, program: RoadProgram, config: TrainConfig) -> None:
    mine = tmp_path / "road-small" / "1.0" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    publish(tmp_path, program, evaluation_of(config), config=config)
    assert mine.read_text() == "mine"


def test_a_published_version_never_changes(published: Path, program: RoadProgram, config: TrainConfig) -> None:
    before = (published / "manifest.json").read_bytes()
    with pytest.raises(ArtefactError, match="versions never change"):
        publish(published.parents[1], program, evaluation_of(config), config=config)
    assert (published / "manifest.json").read_bytes() == before


def test_an_interrupted_attempt_is_not_a_version(tmp_path: Path, program: RoadProgram, config: TrainConfig) -> None:
    folder = tmp_path / "road-small" / "1.0"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"half")
    with pytest.raises(UnreadableArtefactError, match="written last"):
        reader.read(folder)
    assert publish(tmp_path, program, evaluation_of(config), config=config) == folder
    assert reader.read(folder).manifest.version == "1.0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seen_in_training": True}, "was trained on images"),
        ({"step": 1}, "another configuration or step"),
        ({"config": tiny()}, "another configuration or step"),
        ({"mirror": True}, "publish with the same --mirror and --scales"),
        ({"scales": (0.5, 1.0)}, "publish with the same --mirror and --scales"),
    ],
)
def test_scores_of_other_weights_are_refused(
    tmp_path: Path, program: RoadProgram, config: TrainConfig, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtefactError, match=message):
        publish(tmp_path, program, evaluation_of(config, **changes), config=config)
    assert not any(tmp_path.iterdir())


def test_scores_of_the_same_recipe_are_marked(tmp_path: Path, program: RoadProgram, config: TrainConfig) -> None:
    # The published weights were trained on everything; the scores are of a run that held the split out.
    folder = publish(tmp_path, program, evaluation_of(config), config=config, fitted_on="trainval")
    assert reader.read(folder).manifest.metrics.measured_on == "same recipe, split held out"


@pytest.mark.parametrize(("name", "version"), [("Road", "1"), ("road", "../1"), ("", "1"), ("road", "latest version")])
def test_malformed_names_are_refused(
    tmp_path: Path, program: RoadProgram, config: TrainConfig, name: str, version: str
) -> None:
    with pytest.raises(ArtefactError, match="lower-case"):
        publish(tmp_path, program, evaluation_of(config), config=config, name=name, version=version)

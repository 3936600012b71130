from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization.shape_inference import quant_pre_process

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import read_image
from roadseg_train.data.geometry import SizeRule, scale_and_pad
from roadseg_train.fit.run import RunRecord
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.views import Views
from roadseg_train.publish.export import export_programs
from roadseg_train.publish.quantise import INT8_FILE, Quantisation, choose_frames, float_convolutions, quantise_program

MAX_ERROR = 0.05  # root mean square, as a share of the standard deviation of the float32 probability
QUANTISATION = Quantisation(
    calibrated_on="fit",
    num_calibration_images=32,
    split="heldout",
    seen_in_training=False,
    num_images=73,
    road_iou_float32=0.5,
    road_iou_int8=0.5,
    allowed_drop=0.25,
)


@pytest.mark.parametrize(
    ("fitted_on", "chosen"),
    [
        ("fit", ("fit", "heldout", False)),
        ("without:0006R0", ("without:0006R0", "drive:0006R0", False)),
        ("trainval", ("fit", "heldout", True)),
    ],
)
def test_calibration_and_scoring_share_no_frame(
    camvid: Path, config: TrainConfig, fitted_on: str, chosen: tuple[str, str, bool]
) -> None:
    frames = choose_frames(RunRecord.of(config=config, data=[str(camvid)], split=fitted_on))
    assert (frames.calibrated_on, frames.split, frames.seen_in_training) == chosen
    assert frames.calibration
    assert frames.heldout
    assert not {frame.identity for frame in frames.calibration} & {frame.identity for frame in frames.heldout}


@pytest.mark.parametrize(("road_iou_int8", "offered"), [(0.6, True), (0.5, True), (0.25, True), (0.249, False)])
def test_int8_is_published_up_to_the_allowed_drop(road_iou_int8: float, offered: bool) -> None:
    quantisation = QUANTISATION.model_copy(update={"road_iou_int8": road_iou_int8})
    assert quantisation.is_offered == offered
    assert ("not published" not in quantisation.text()) == offered


@pytest.mark.parametrize("views", [Views(), Views(scales=(0.5, 1.0))])
def test_the_first_and_last_convolutions_stay_float(tmp_path: Path, program: RoadProgram, views: Views) -> None:
    export_programs(RoadProgram(program.network, views=views).eval(), tmp_path, multiple_px=16)
    quant_pre_process(tmp_path / "model.onnx", tmp_path / "prepared.onnx", skip_symbolic_shape=True)
    graph = onnx.load(tmp_path / "prepared.onnx").graph
    # The nodes are sorted: every convolution of a view depends on its first one, and its last depends on all others.
    names = [node.name for node in graph.node if node.op_type == "Conv"]
    found = float_convolutions(graph)
    assert len(found) == 2 * views.count < len(names)
    assert {names[0], names[-1]} <= set(found)


@pytest.mark.parametrize("views", [Views(), Views(mirror=True, scales=(0.5, 1.5))])
def test_int8_computes_what_float32_computes(
    tmp_path: Path, camvid: Path, config: TrainConfig, program: RoadProgram, views: Views
) -> None:
    program = RoadProgram(program.network, views=views).eval()
    export_programs(program, tmp_path, multiple_px=config.multiple_px)
    frames, rule = choose_frames(RunRecord.of(config=config, data=[str(camvid)], split="fit")), SizeRule.of(config)
    quantisation = quantise_program(tmp_path, frames, rule=rule, threshold=0.5)
    assert (quantisation.num_calibration_images, quantisation.num_images) == (16, 4)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.pt2", INT8_FILE}
    image_BHWC = np.stack([scale_and_pad(read_image(frame.image), rule) for frame in frames.heldout])
    float32_BHW, int8_BHW = (
        onnxruntime.InferenceSession(tmp_path / name).run(["prob"], {"image": image_BHWC})[0]
        for name in ("model.onnx", INT8_FILE)
    )
    # Random weights: their outputs lie close together, so the error is measured against their spread.
    error, spread = np.sqrt(np.mean((int8_BHW - float32_BHW) ** 2)), float32_BHW.std()
    assert 0 < error < MAX_ERROR * spread, error / spread

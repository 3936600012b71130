"""The int8 program of an artefact: static quantisation of model.onnx, published only if it is as accurate.

Weights are signed, 7 bits per channel, and activations uint8: an eighth bit gains nothing measurable, and overflows the
16-bit sums of CPUs without VNNI. Convolutions read int8 and write float32. The first and the last one, which read
pixels and write the probability, stay float32; they cost little. Quantising the outputs too saves no time, and OpenVINO
2026.4 computes some of those graphs wrongly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from pydantic import BaseModel
from tqdm import tqdm

from roadseg_train.data.dataset import Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule, scale_and_pad
from roadseg_train.data.split import other_side
from roadseg_train.evaluate.evaluate import spread
from roadseg_train.fit.run import RunRecord
from roadseg_train.metrics import histogram, score
from roadseg_train.network.predict import to_frame
from roadseg_train.publish.export import INPUT_NAME, ONNX_FILE, OUTPUT_NAME

INT8_FILE = "model.int8.onnx"
ALLOWED_DROP = 0.003  # of the road IoU, below float32
NUM_CALIBRATION_FRAMES = 32


@dataclass(frozen=True)
class QuantisationFrames:
    """Frames to make and to score an int8 program with."""

    calibrated_on: str  # the split of `calibration`
    calibration: Sequence[Frame]  # to measure the ranges of activations on
    split: str  # of `heldout`
    heldout: Sequence[Frame]  # to score on; none of them is in `calibration`
    seen_in_training: bool  # whether the network was trained on some of `heldout`


class Quantisation(BaseModel, extra="forbid", frozen=True):
    """The field `quantisation` of the manifest."""

    calibrated_on: str
    num_calibration_images: int
    split: str
    seen_in_training: bool
    num_images: int
    road_iou_float32: float
    road_iou_int8: float
    allowed_drop: float

    @property
    def is_offered(self) -> bool:
        """Whether int8 loses at most `allowed_drop` of road IoU."""
        return self.road_iou_float32 - self.road_iou_int8 <= self.allowed_drop

    def text(self) -> str:
        """The result in one line."""
        scores = f"road IoU {self.road_iou_int8:.4f} on {self.split!r}, float32 {self.road_iou_float32:.4f}"
        if self.is_offered:
            return f"int8: {scores}; published as {INT8_FILE}"
        return f"int8: {scores}; not published, because it loses more than {self.allowed_drop:g}"


def choose_frames(record: RunRecord) -> QuantisationFrames:
    """Calibration frames from the split of a run, and frames to score on from the split that it held out.

    If the run held nothing out, these are `fit` and `heldout`. The network was trained on both, but the difference
    between int8 and float32 can still be measured.

    Raises:
        DataError: the data is missing, or has no frame of these splits.
        StorageError: the download fails.
    """
    other = other_side(record.split)
    calibrated_on, split = (record.split, other) if other else ("fit", "heldout")
    calibration, heldout = record.frames(calibrated_on), record.frames(split)
    fitted = set(record.fit_frames)
    return QuantisationFrames(
        calibrated_on=calibrated_on,
        calibration=[calibration[i] for i in spread(len(calibration), NUM_CALIBRATION_FRAMES)],
        split=split,
        heldout=heldout,
        seen_in_training=any(frame.identity in fitted for frame in heldout),
    )


def quantise_program(folder: Path, frames: QuantisationFrames, *, rule: SizeRule, threshold: float) -> Quantisation:
    """Write model.int8.onnx beside the model.onnx of a folder, and score both on the same frames in ONNX Runtime.

    Raises:
        DataError: a frame cannot be read.
    """
    prepared, float32, int8 = folder / "prepared.onnx", folder / ONNX_FILE, folder / INT8_FILE
    # Symbolic shapes only help operators that this network does not have.
    quant_pre_process(float32, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        int8,
        CalibrationFrames(frames.calibration, rule),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=float_convolutions(onnx.load(prepared).graph),
        extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
    )
    prepared.unlink()
    return Quantisation(
        calibrated_on=frames.calibrated_on,
        num_calibration_images=len(frames.calibration),
        split=frames.split,
        seen_in_training=frames.seen_in_training,
        num_images=len(frames.heldout),
        road_iou_float32=road_iou(float32, frames.heldout, rule=rule, threshold=threshold),
        road_iou_int8=road_iou(int8, frames.heldout, rule=rule, threshold=threshold),
        allowed_drop=ALLOWED_DROP,
    )


def float_convolutions(graph: onnx.GraphProto) -> list[str]:
    """Names of the first and the last convolutions, one each per view: the only ones with 3 inputs or 4 outputs.

    The network reads RGB, and its head writes the four pixels of a 2x2 block.
    """
    shapes = {weights.name: weights.dims for weights in graph.initializer}  # outputs, inputs, height, width
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if shapes[node.input[1]][0] == 4 or shapes[node.input[1]][1] == 3]


def road_iou(onnx_path: Path, frames: Sequence[Frame], *, rule: SizeRule, threshold: float) -> float:
    """Pooled road IoU of an ONNX program at the frames' own sizes and a threshold in [0, 1].

    Raises:
        DataError: a frame cannot be read.
    """
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    counts = []
    for frame in tqdm(frames, unit="image", desc=onnx_path.stem, dynamic_ncols=True):
        image_HWC, target_HW = read_frame(frame)
        (prob_BHW,) = session.run([OUTPUT_NAME], {INPUT_NAME: scale_and_pad(image_HWC, rule)[None]})
        counts.append(histogram(to_frame(prob_BHW[0], rule, *target_HW.shape), target_HW))
    return score(counts, threshold).road_iou


class CalibrationFrames(CalibrationDataReader):  # type: ignore[misc]  # it ships no types
    """Frames as ONNX Runtime reads them: one input after the other, then None."""

    def __init__(self, frames: Sequence[Frame], rule: SizeRule) -> None:
        self._inputs = ({INPUT_NAME: scale_and_pad(read_frame(frame)[0], rule)[None]} for frame in frames)

    def get_next(self) -> dict[str, UInt8Array] | None:
        """The next input."""
        return next(self._inputs, None)

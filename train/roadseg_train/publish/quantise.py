"""The int8 program of an artefact: made from model.onnx by calibration, offered only if it scores as well.

Weights are signed, 7 bits per channel, and activations uint8: the eighth bit of a weight gains nothing measurable here,
and overflows the 16-bit sums of CPUs without VNNI. Convolutions read int8 and write float32, except for the first and
the last of each network, which read pixels and write probability, and cost little. Quantising what they write, too,
gains no time, and OpenVINO 2026.4 computes some such graphs wrongly, depending on what else reads the values.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from roadseg_train.data.dataset import Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule, scale_and_pad
from roadseg_train.data.split import other_side
from roadseg_train.evaluate.robustness import spread
from roadseg_train.fit.run import RunRecord
from roadseg_train.metrics import histogram, score
from roadseg_train.network.predict import to_frame
from roadseg_train.publish.export import INPUT_NAME, ONNX_FILE, OUTPUT_NAME

INT8_FILE = "model.int8.onnx"
ALLOWED_DROP = 0.003  # of the road IoU, below float32
NUM_CALIBRATION_FRAMES = 32


@dataclass(frozen=True)
class QuantisationFrames:
    """What an int8 program is made and measured by.

    Attributes:
        calibrated_on: name of the split that `calibration` is of.
        calibration: frames that say how large activations become.
        split: name of the split that `heldout` is.
        heldout: frames to score on, none of them in `calibration`.
        seen_in_training: whether the weights were fitted on some of `heldout`.
    """

    calibrated_on: str
    calibration: Sequence[Frame]
    split: str
    heldout: Sequence[Frame]
    seen_in_training: bool


class Quantisation(BaseModel):
    """The manifest's `quantisation`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        """Whether int8 lost no more than is allowed."""
        return self.road_iou_float32 - self.road_iou_int8 <= self.allowed_drop

    def text(self) -> str:
        """One line for people."""
        scores = f"road IoU {self.road_iou_int8:.4f} on {self.split!r}, float32 {self.road_iou_float32:.4f}"
        if self.is_offered:
            return f"int8: {scores}; offered as {INT8_FILE}"
        return f"int8: {scores}; left out, as it loses more than {self.allowed_drop:g}"


def choose_frames(record: RunRecord) -> QuantisationFrames:
    """The frames for a run: its own split and the other side of it; where nothing was held out, `fit` and `heldout`.

    The weights of the latter have seen both. What int8 loses to float32 of the same weights can still be told there.

    Raises:
        DataError: the data is gone, or has no frame of these splits.
        StorageError: the data cannot be fetched.
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
    """Write model.int8.onnx beside model.onnx, and score both on the same frames, in ONNX Runtime.

    Args:
        folder: holds model.onnx.
        frames: to calibrate with, and to score on.
        rule: how a frame is brought to the program's input.
        threshold: probability from which a pixel is called road, in [0, 1].

    Raises:
        DataError: a frame cannot be read.
    """
    prepared, float32, int8 = folder / "prepared.onnx", folder / ONNX_FILE, folder / INT8_FILE
    # Symbolic shapes would only help operators that this network has none of.
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
    """Names of what stays float32: the first and the last convolution of each network.

    The graph's nodes stand in an order in which they can be computed.
    """
    nodes = list(graph.node)
    forth = [(node, node.input, node.output) for node in nodes]
    back = [(node, node.output, node.input) for node in reversed(nodes)]
    return _first_convolutions(forth) + _first_convolutions(back)


def _first_convolutions(walk: Iterable[tuple[onnx.NodeProto, Sequence[str], Sequence[str]]]) -> list[str]:
    """Names of the convolutions with none before them on the way: nodes, the values each comes from and leads to."""
    reached: set[str] = set()  # values behind a convolution
    first = []
    for node, comes_from, leads_to in walk:
        is_behind = not reached.isdisjoint(comes_from)
        if node.op_type == "Conv" and not is_behind:
            first.append(node.name)
        if node.op_type == "Conv" or is_behind:
            reached.update(leads_to)
    return first


def road_iou(onnx_path: Path, frames: Sequence[Frame], *, rule: SizeRule, threshold: float) -> float:
    """Pooled road IoU of an ONNX program at each frame's own size.

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
    """Frames as ONNX Runtime asks for them: one input after the other, then None."""

    def __init__(self, frames: Sequence[Frame], rule: SizeRule) -> None:
        self._inputs: Iterator[dict[str, UInt8Array]] = (
            {INPUT_NAME: scale_and_pad(read_frame(frame)[0], rule)[None]} for frame in frames
        )

    def get_next(self) -> dict[str, UInt8Array] | None:
        """The next input."""
        return next(self._inputs, None)

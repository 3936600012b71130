"""How much of the score is left in bad weather and with a bad camera."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, read_frame
from roadseg_train.data.geometry import SizeRule
from roadseg_train.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from roadseg_train.metrics import Histogram, histogram, score
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict


class Robustness(BaseModel):
    """Pooled road IoU of the same frames with and without synthetic corruptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_frames: int
    clean_road_iou: float
    road_iou: dict[str, list[float]]  # by corruption, at severities 1, 2, 3


def spread(num_frames: int, limit: int) -> list[int]:
    """At most `limit` indices, evenly spread over `num_frames`."""
    return [round(place) for place in np.linspace(0, num_frames - 1, min(num_frames, limit)).tolist()]


def measure_robustness(
    program: RoadProgram, frames: Sequence[Frame], *, config: TrainConfig, threshold: float
) -> Robustness:
    """Score frames as they are, and under every corruption at every severity.

    Args:
        program: in eval mode.
        frames: at least one.
        config: the configuration of the program.
        threshold: lowest probability that counts as road, in [0, 1].

    Raises:
        DataError: a frame cannot be read.
    """
    rule = SizeRule.of(config)
    clean: list[Histogram] = []
    counts: dict[tuple[str, int], list[Histogram]] = {(kind, s): [] for kind in CORRUPTIONS for s in SEVERITIES}
    for seed, frame in enumerate(tqdm(frames, unit="image", desc="robustness", dynamic_ncols=True)):
        image_HWC, target_HW = read_frame(frame)
        clean.append(histogram(predict(program, image_HWC, rule), target_HW))
        for (kind, severity), images in counts.items():
            prob_HW = predict(program, corrupt(image_HWC, kind, severity, seed), rule)
            images.append(histogram(prob_HW, target_HW))
    return Robustness(
        num_frames=len(frames),
        clean_road_iou=score(clean, threshold).road_iou,
        road_iou={
            kind: [score(counts[kind, severity], threshold).road_iou for severity in SEVERITIES] for kind in CORRUPTIONS
        },
    )

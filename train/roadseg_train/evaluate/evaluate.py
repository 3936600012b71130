"""The evaluation of a run on a split: the fields of metrics.json, and how they are measured."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, read_frame
from roadseg_train.data.geometry import SizeRule
from roadseg_train.errors import RunError
from roadseg_train.evaluate.bootstrap import Intervals, bootstrap, split_into_blocks
from roadseg_train.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from roadseg_train.fit.run import RunRecord
from roadseg_train.metrics import Histogram, KittiScores, Scores, confusion, histogram, kitti_scores, pool, score
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict, predict_frames
from roadseg_train.network.views import Scales, Views
from roadseg_train.storage.path import StoragePath

NUM_BINS = 15  # of the reliability diagram


class FrameScore(BaseModel, extra="forbid", frozen=True):
    """The IoU of a single image."""

    name: str
    drive: str
    road_iou: float


class Detail(BaseModel, extra="forbid", frozen=True):
    """What a set of images has beside its `Scores`."""

    num_images: int
    kitti: KittiScores | None  # None if the masks have no road
    intervals: Intervals | None  # None if there are too few blocks


class Bin(BaseModel, extra="forbid", frozen=True):
    """The labelled pixels whose probability is in one of 15 equal ranges."""

    mean_probability: float
    road_share: float
    num_pixels: int


class Reliability(BaseModel, extra="forbid", frozen=True):
    """Whether a probability of 0.8 is right eight times in ten."""

    ece: float  # mean distance between probability and share over all pixels, in [0, 1]
    bins: list[Bin]  # without the empty ones


class Robustness(BaseModel, extra="forbid", frozen=True):
    """Pooled road IoU of the same frames with and without synthetic corruptions."""

    num_frames: int
    clean_road_iou: float
    road_iou: dict[str, list[float]]  # by corruption, at severities 1, 2, 3


class Evaluation(BaseModel, extra="forbid", frozen=True):
    """metrics.json: what was measured, on which images, with which weights."""

    created: datetime
    run: str
    config: TrainConfig
    step: int
    mirror: bool = False  # see Views
    scales: Scales = (1.0,)
    fitted_on: str
    data: list[str]
    dataset: str
    split: str
    seen_in_training: bool
    threshold: float
    num_images: int
    overall: Scores
    by_drive: dict[str, Scores]
    overall_detail: Detail
    detail_by_drive: dict[str, Detail]
    reliability: Reliability | None  # None if no pixel is labelled
    robustness: Robustness | None  # None if it was switched off
    images: list[FrameScore]
    # Labelled pixels of all images by their 8-bit probability; every pooled score can be computed from these.
    road_at_level: list[int]
    not_road_at_level: list[int]

    @property
    def views(self) -> Views:
        """How the network looked at each image."""
        return Views(mirror=self.mirror, scales=self.scales)


def evaluate_frames(
    program: RoadProgram,
    frames: Sequence[Frame],
    *,
    run: str,
    record: RunRecord,
    step: int,
    split: str,
    threshold: float,
    num_robustness_frames: int,
) -> Evaluation:
    """Predict and score one or more frames, each at its own size.

    The program is in eval mode, from the run's checkpoint at `step`. `run` is the user's name for the run, and
    `record.data` says where the frames are. Probabilities of at least `threshold`, in [0, 1], count as road.
    `num_robustness_frames` of the frames, evenly spread, are also scored under corruptions.

    Raises:
        DataError: a frame cannot be read.
    """
    shown = tqdm(frames, unit="image", desc=split, dynamic_ncols=True)
    counts = list(predict_frames(program, shown, record.config))
    blocks, pooled, fitted = split_into_blocks(frames), pool(counts), set(record.fit_frames)
    drives, scored = sorted({frame.drive for frame in frames}), list(zip(frames, counts, strict=True))
    robust = [frames[i] for i in spread(len(frames), num_robustness_frames)]
    return Evaluation(
        created=datetime.now(UTC),
        run=run,
        config=record.config,
        step=step,
        **program.views.model_dump(),
        fitted_on=record.split,
        data=record.data,
        dataset=" + ".join(sorted({frame.dataset for frame in frames})),
        split=split,
        seen_in_training=any(frame.identity in fitted for frame in frames),
        threshold=threshold,
        num_images=len(frames),
        overall=score(counts, threshold),
        by_drive={d: score([own for frame, own in scored if frame.drive == d], threshold) for d in drives},
        overall_detail=_detail(counts, blocks, threshold),
        detail_by_drive={d: _detail(counts, [b for b in blocks if frames[b[0]].drive == d], threshold) for d in drives},
        reliability=measure_reliability(pooled),
        robustness=measure_robustness(program, robust, config=record.config, threshold=threshold) if robust else None,
        images=[
            FrameScore(name=frame.name, drive=frame.drive, road_iou=score([own], threshold).road_iou)
            for frame, own in scored
        ],
        road_at_level=pooled.road.tolist(),
        not_road_at_level=pooled.not_road.tolist(),
    )


def measure_reliability(counts: Histogram) -> Reliability | None:
    """Reliability of the counts (256,) of all images together; None without a labelled pixel.

    Source: reliability diagram and expected calibration error (ECE), Guo et al. 2017 (arXiv 1706.04599); here of the
    probability of road instead of the likelier class, to show both ends.
    """
    probability = np.arange(256) / 255
    number = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    num_pixels = np.bincount(number, counts.road + counts.not_road)
    filled = num_pixels > 0
    if not filled.any():
        return None
    total = num_pixels[filled]
    mean = np.bincount(number, (counts.road + counts.not_road) * probability)[filled] / total
    share = np.bincount(number, counts.road)[filled] / total
    columns = zip(mean, share, total, strict=True)
    return Reliability(
        ece=float(np.average(np.abs(mean - share), weights=total)),
        bins=[Bin(mean_probability=m, road_share=s, num_pixels=int(n)) for m, s, n in columns],
    )


def spread(num_frames: int, limit: int) -> list[int]:
    """At most `limit` indices, evenly spread over `num_frames`."""
    return [round(place) for place in np.linspace(0, num_frames - 1, min(num_frames, limit)).tolist()]


def measure_robustness(
    program: RoadProgram, frames: Sequence[Frame], *, config: TrainConfig, threshold: float
) -> Robustness:
    """Score one or more frames as they are, and under every corruption at every severity.

    The program must be in eval mode; the threshold is in [0, 1].

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


def read_evaluation(path: StoragePath) -> Evaluation:
    """Read a metrics.json.

    Raises:
        RunError: it does not exist, or another version wrote it.
    """
    try:
        return Evaluation.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; make it with roadseg-train evaluate") from error
    except ValidationError as error:
        raise RunError(f"{path} is not a metrics.json of this version ({error}); evaluate again") from error


def _detail(counts: Sequence[Histogram], blocks: Sequence[Sequence[int]], threshold: float) -> Detail:
    pooled = [pool([counts[i] for i in block]) for block in blocks]
    return Detail(
        num_images=sum(len(block) for block in blocks),
        kitti=kitti_scores(confusion(pool(pooled))),
        intervals=bootstrap(pooled, threshold),
    )

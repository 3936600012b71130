"""The evaluation of a run on a split: the fields of metrics.json, and how they are measured."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame
from roadseg_train.errors import RunError
from roadseg_train.evaluate.bootstrap import Intervals, bootstrap, split_into_blocks
from roadseg_train.evaluate.reliability import Reliability, measure_reliability
from roadseg_train.evaluate.robustness import Robustness, measure_robustness, spread
from roadseg_train.fit.run import RunRecord
from roadseg_train.metrics import Histogram, KittiScores, Scores, confusion, kitti_scores, pool, score
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict_frames
from roadseg_train.network.views import Scales, Views
from roadseg_train.storage.path import StoragePath


class FrameScore(BaseModel):
    """The IoU of a single image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    drive: str
    road_iou: float


class Detail(BaseModel):
    """What a set of images has beside its `Scores`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_images: int
    kitti: KittiScores | None  # None if the masks have no road
    intervals: Intervals | None  # None if there are too few blocks


class Evaluation(BaseModel):
    """metrics.json: what was measured, on which images, with which weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    """Predict and score every frame at its own size.

    Args:
        program: in eval mode.
        frames: at least one.
        run: the user's name for the run that the program comes from.
        record: of that run; `data` says where `frames` are.
        step: of the program's checkpoint.
        split: name of the split of `frames`.
        threshold: lowest probability that counts as road, in [0, 1].
        num_robustness_frames: how many frames, spread over all, to score under corruptions; 0 for none.

    Raises:
        DataError: a frame cannot be read.
    """
    shown = tqdm(frames, unit="image", desc=split, dynamic_ncols=True)
    counts = list(predict_frames(program, shown, record.config))
    blocks, pooled, fitted = split_into_blocks(frames), pool(counts), set(record.fit_frames)
    drives = {
        drive: [i for i, f in enumerate(frames) if f.drive == drive] for drive in sorted({f.drive for f in frames})
    }
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
        by_drive={drive: score([counts[i] for i in chosen], threshold) for drive, chosen in drives.items()},
        overall_detail=_detail(counts, blocks, threshold),
        detail_by_drive={
            drive: _detail(counts, [b for b in blocks if frames[b[0]].drive == drive], threshold) for drive in drives
        },
        reliability=measure_reliability(pooled),
        robustness=measure_robustness(program, robust, config=record.config, threshold=threshold) if robust else None,
        images=[
            FrameScore(name=frame.name, drive=frame.drive, road_iou=score([own], threshold).road_iou)
            for frame, own in zip(frames, counts, strict=True)
        ],
        road_at_level=pooled.road.tolist(),
        not_road_at_level=pooled.not_road.tolist(),
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

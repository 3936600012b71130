"""Evaluation of a run on a named split: what metrics.json holds, and how it is measured."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, read_frame
from roadseg_train.data.geometry import SizeRule
from roadseg_train.errors import RunError
from roadseg_train.evaluate.blocks import Intervals, bootstrap, cut_blocks
from roadseg_train.evaluate.calibration import Calibration, Pixels, calibrate, sample_pixels
from roadseg_train.evaluate.leak import Leak
from roadseg_train.evaluate.robustness import Robustness, measure_robustness, spread
from roadseg_train.fit.run import Member
from roadseg_train.metrics import (
    Histogram,
    KittiScores,
    Scores,
    confusion,
    histogram,
    iou,
    kitti_scores,
    pool,
    score,
    threshold_level,
)
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict_input, to_frame
from roadseg_train.network.views import Scales, Views
from roadseg_train.storage.path import StoragePath


class FrameScore(BaseModel):
    """One picture's own IoU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    drive: str
    road_iou: float


class Detail(BaseModel):
    """More about a set of pictures than `Scores` says; what cannot be had is None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_images: int
    kitti: KittiScores | None  # None where no road is there to be found
    intervals: Intervals | None  # None where there are too few blocks


class Evaluation(BaseModel):
    """metrics.json: what was measured, on what, by which weights.

    `run`, `config` and `step` are of the first network; the probability is the mean of its own and that of `others`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    created: datetime
    run: str
    config: TrainConfig
    step: int
    others: list[Member] = []
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
    calibration: Calibration | None  # None where one block is all there is
    robustness: Robustness | None  # None where it was switched off
    leak: Leak | None  # None where the data has too few frames, or no neighbours
    images: list[FrameScore]
    # Labelled pixels of all pictures by their 8-bit probability: every pooled score follows from these.
    road_at_level: list[int]
    not_road_at_level: list[int]

    @property
    def members(self) -> list[Member]:
        """Every network, the first one included."""
        return [Member(run=self.run, config=self.config, step=self.step), *self.others]

    @property
    def views(self) -> Views:
        """What each of them saw of a picture."""
        return Views(mirror=self.mirror, scales=self.scales)


def evaluate_frames(
    program: RoadProgram,
    frames: Sequence[Frame],
    *,
    members: Sequence[Member],
    fitted_on: str,
    fitted: Collection[str],
    data: Sequence[str],
    split: str,
    threshold: float,
    num_robustness_frames: int,
    leak: Leak | None,
) -> Evaluation:
    """Predict and score every frame at its own size.

    Args:
        program: in eval mode.
        frames: what to score, at least one.
        members: where each network of the program came from.
        fitted_on: name of the split that they were fitted on.
        fitted: identities of the frames that any was fitted on; an overlap with `frames` is recorded.
        data: where the frames lie, to be told.
        split: name of the split that `frames` are.
        threshold: probability from which a pixel is called road, in [0, 1].
        num_robustness_frames: how many frames, spread over all, are scored under corruptions; 0 for none.
        leak: what a random split of the data pretends.

    Raises:
        DataError: a frame cannot be read.
    """
    first, *others = members
    rule = SizeRule.of(first.config)
    counts: list[Histogram] = []
    pixels: list[tuple[Pixels, Pixels]] = []
    for seed, frame in enumerate(tqdm(frames, unit="image", desc=split, dynamic_ncols=True)):
        image_HWC, target_HW = read_frame(frame)
        prob_HW = predict_input(program, image_HWC, rule)
        counts.append(histogram(to_frame(prob_HW, rule, *target_HW.shape), target_HW))
        pixels.append(sample_pixels(prob_HW, target_HW, rule, seed))

    blocks = cut_blocks(frames)
    drives = {
        drive: [i for i, f in enumerate(frames) if f.drive == drive] for drive in sorted({f.drive for f in frames})
    }
    robust = [frames[i] for i in spread(len(frames), num_robustness_frames)]
    pooled = pool(counts)
    return Evaluation(
        created=datetime.now(UTC),
        run=first.run,
        config=first.config,
        step=first.step,
        others=others,
        **program.views.model_dump(),
        fitted_on=fitted_on,
        data=list(data),
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
        calibration=calibrate(
            fitted=[pixels[i] for block in blocks[::2] for i in block],
            shown=[pixels[i] for block in blocks[1::2] for i in block],
        ),
        robustness=measure_robustness(program, robust, config=first.config, threshold=threshold) if robust else None,
        leak=leak,
        images=[
            FrameScore(name=frame.name, drive=frame.drive, road_iou=_own_iou(own, threshold))
            for frame, own in zip(frames, counts, strict=True)
        ],
        road_at_level=pooled.road.tolist(),
        not_road_at_level=pooled.not_road.tolist(),
    )


def read_evaluation(path: StoragePath) -> Evaluation:
    """Read a metrics.json.

    Raises:
        RunError: there is none, or it is not of this version.
    """
    try:
        return Evaluation.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; make it with roadseg-train evaluate") from error
    except ValidationError as error:
        raise RunError(f"{path} is no metrics.json of this version ({error}); evaluate again") from error


def read_leaky_iou(path: StoragePath, *, members: Sequence[Member], views: Views, split: str) -> float:
    """The road IoU that the same recipe claims on its random split.

    Args:
        path: metrics.json of that.
        members: the recipe to compare with; the seeds may differ.
        views: how it looks at pictures.
        split: the split that is evaluated beside it.

    Raises:
        RunError: the two cannot be compared.
    """
    leaky = read_evaluation(path)
    if (leaky.fitted_on, leaky.split) != ("random-fit", "random-heldout"):
        raise RunError(
            f"{path} is of split {leaky.split!r} by a run fitted on {leaky.fitted_on!r}; "
            "give one fitted on 'random-fit' and evaluated on 'random-heldout'"
        )
    recipes = [
        [member.config.model_copy(update={"seed": 0}) for member in program] for program in (leaky.members, members)
    ]
    if recipes[0] != recipes[1] or leaky.views != views or split != "heldout":
        raise RunError(
            f"{path} is not of the same recipe; fit both with the same options and evaluate this on 'heldout'"
        )
    return leaky.overall.road_iou


def _detail(counts: Sequence[Histogram], blocks: Sequence[Sequence[int]], threshold: float) -> Detail:
    pooled = [pool([counts[i] for i in block]) for block in blocks]
    return Detail(
        num_images=sum(len(block) for block in blocks),
        kitti=kitti_scores(confusion(pool(pooled))),
        intervals=bootstrap(pooled, threshold),
    )


def _own_iou(counts: Histogram, threshold: float) -> float:
    return float(iou(confusion(counts))[threshold_level(threshold)])

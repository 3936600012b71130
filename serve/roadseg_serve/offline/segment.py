"""Segments files, videos and standard input with the pure functions of the graph, in one process.

Decoding and encoding run in threads beside the engine. Only a bounded number of pictures is in memory, however many
files there are and however long a video is.
"""

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.progress import Progress

from roadseg_serve.engines.engine import EngineChoice, create_engine, predict_all, program_of, warm_up
from roadseg_serve.errors import FileError, RoadsegError
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Prediction
from roadseg_serve.models import artefact
from roadseg_serve.offline.inputs import SUFFIXES, Job
from roadseg_serve.stages.postprocess import answer, binarise, overlay, resize_back
from roadseg_serve.stages.preprocess import Limits, frame_of, resize_and_pad

if TYPE_CHECKING:
    import av

    from roadseg_serve.offline.video import Reader

    IndexedFrame = tuple[int, av.VideoFrame]

# These files are the user's own; a picture of this size still fits into the memory of a laptop.
LIMITS = Limits(max_upload_bytes=1_000_000_000, max_pixels=89_000_000)

# Larger batches are no faster on a CPU, and each frame of them takes memory.
MAX_BATCH_SIZE = 4

RETRY = "Fix that and run this again; --skip-existing skips what is done."

T = TypeVar("T")
R = TypeVar("R")


class Segmenter:
    """A model in this process, on the CPU; see `artefact.resolve` and `create_engine`.

    `num_threads` is that of one prediction; None means one for each CPU that this process may use.
    """

    def __init__(self, uri: str, *, engine: EngineChoice = "auto", num_threads: int | None = None) -> None:
        num_threads = num_threads or len(os.sched_getaffinity(0))
        version = artefact.read(artefact.resolve(uri), [program_of(engine, gpu=False)])
        self.size_rule = version.manifest.input.size
        self.threshold = version.manifest.threshold
        self._name = ModelName(version.manifest.name, version.manifest.version)
        self._engine = create_engine(engine, version, num_threads=num_threads)
        warm_up(self._engine, self.size_rule)

    def predict(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Predict frames of any sizes, those of equal shape together; one thread at a time."""
        started_s = time.perf_counter()
        probs_HW = predict_all(self._engine, [frame.input_HWC for frame in frames])
        infer_s = (time.perf_counter() - started_s) / len(frames)
        return [
            frame.predicted(prob_HW, threshold=self.threshold, model=self._name, infer_s=infer_s)
            for frame, prob_HW in zip(frames, probs_HW, strict=True)
        ]


@dataclass(frozen=True)
class Options:
    """How to segment files."""

    threshold: float | None = None  # in [0, 1]; None means the model's own
    every: int = 1  # of a video, only the frames whose index is a multiple of this
    skip_existing: bool = False  # skip inputs whose output exists
    num_jobs: int = 2  # threads that decode and encode


@dataclass(frozen=True)
class Outcome:
    """The result of one input."""

    source: Path
    target: Path  # the output file or folder
    width: int = 0  # of the upright picture, pixels; 0 if it was not read
    height: int = 0
    num_images: int = 0  # 1, or the number of frames in a video; 0 if none was segmented
    road_share: float = 0.0  # of all pixels, in [0, 1], averaged over the images
    seconds: float = 0.0  # of processing; for a picture, without waiting for others
    fault: str = ""  # what went wrong and what to do
    note: str = ""  # what the user should know although nothing went wrong

    @property
    def state(self) -> str:
        """`failed`, `written`, or `skipped` if the output existed already."""
        if self.fault:
            return "failed"
        return "written" if self.num_images else "skipped"


def segment_bytes(segmenter: Segmenter, data: bytes, answer_options: AnswerOptions) -> Answer:
    """Segment one picture, with the same result as from a server; raises RequestError if it cannot be read."""
    frame = frame_of(data, LIMITS, segmenter.size_rule, keep_picture=answer_options.format is Format.OVERLAY)
    [prediction] = segmenter.predict([frame])
    return answer(prediction, answer_options, frame, None)


def segment_files(
    segmenter: Segmenter, jobs: Sequence[Job], options: Options, progress: Progress
) -> Generator[Outcome, None, None]:
    """Segment files, pictures before videos; if one fails, its outcome says so and the rest goes on.

    `progress` gets a bar for the frames of each video.
    """
    todo = []
    for job in jobs:
        if options.skip_existing and job.target.is_file():
            yield Outcome(job.source, job.target)
        else:
            todo.append(job)
    yield from _segment_pictures(segmenter, [job for job in todo if not job.is_video], options)
    for job in todo:
        if job.is_video:
            yield _segment_video(segmenter, job, options, progress)


def run_batches(
    items: Iterable[T],
    prepare: Callable[[T], Frame],
    predict: Callable[[Sequence[Frame]], list[Prediction]],
    finish: Callable[[T, Frame, Prediction], R],
    *,
    num_jobs: int,
) -> Generator[tuple[T, R | RoadsegError], None, None]:
    """Prepare items in threads, predict those that are ready as a batch, and finish them in threads.

    Items are iterated in the caller's thread, only as fast as results are. Results are in the order of the items,
    except that a failed preparation is reported at once. `predict` has a thread of its own beside the `num_jobs`.

    Yields:
        Each item with the result of `finish`, or with the RoadsegError that was raised on the way.
    """
    preparing: deque[tuple[T, Future[Frame]]] = deque()
    predicting: deque[tuple[list[tuple[T, Frame]], Future[list[Prediction]]]] = deque()
    finishing: deque[tuple[T, Future[R]]] = deque()
    remaining = iter(items)
    pool, engine_thread = ThreadPoolExecutor(num_jobs), ThreadPoolExecutor(1)
    try:
        while True:
            for item in islice(remaining, MAX_BATCH_SIZE + num_jobs - len(preparing)):
                preparing.append((item, pool.submit(prepare, item)))
            if not (preparing or predicting or finishing):
                return
            batch: list[tuple[T, Frame]] = []
            while preparing and len(batch) < MAX_BATCH_SIZE and (not batch or preparing[0][1].done()):
                item, prepared = preparing.popleft()
                try:
                    batch.append((item, prepared.result()))
                except RoadsegError as error:
                    yield item, error
            if batch:
                predicting.append((batch, engine_thread.submit(predict, [frame for _, frame in batch])))
            if predicting and (len(predicting) > 1 or not batch):  # so the engine always has a batch waiting
                batch, predictions = predicting.popleft()
                for (item, frame), prediction in zip(batch, predictions.result(), strict=True):
                    finishing.append((item, pool.submit(finish, item, frame, prediction)))
            while finishing and (
                finishing[0][1].done() or len(finishing) > MAX_BATCH_SIZE or not (preparing or predicting)
            ):
                item, finished = finishing.popleft()
                try:
                    result: R | RoadsegError = finished.result()
                except RoadsegError as error:
                    result = error
                yield item, result
    finally:
        for threads in (engine_thread, pool):
            threads.shutdown(cancel_futures=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it if the block succeeds, and is removed if not.

    Raises FileError if it cannot be written.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror}). {RETRY}") from error


def _segment_pictures(segmenter: Segmenter, jobs: Sequence[Job], options: Options) -> Generator[Outcome, None, None]:
    def prepare(job: Job) -> Frame:
        try:
            with job.source.open("rb") as stream:
                data = stream.read(LIMITS.max_upload_bytes + 1)  # one more, so that too large a file is noticed
        except OSError as error:
            raise FileError(f"It cannot be read ({error.strerror}). {RETRY}") from error
        return frame_of(data, LIMITS, segmenter.size_rule, keep_picture=job.format is Format.OVERLAY)

    def finish(job: Job, frame: Frame, prediction: Prediction) -> Outcome:
        made = _write_answer(job.target, prediction, AnswerOptions(job.format, options.threshold), frame)
        return Outcome(
            source=job.source,
            target=job.target,
            width=frame.placement.frame_width,
            height=frame.placement.frame_height,
            num_images=1,
            road_share=made.road_share,
            seconds=sum(made.times_s.values()),
        )

    with closing(run_batches(jobs, prepare, segmenter.predict, finish, num_jobs=options.num_jobs)) as results:
        for job, result in results:
            yield result if isinstance(result, Outcome) else Outcome(job.source, job.target, fault=str(result))


def _segment_video(segmenter: Segmenter, job: Job, options: Options, progress: Progress) -> Outcome:
    from roadseg_serve.offline.video import Reader  # noqa: PLC0415  # PyAV is loaded only for videos

    started_s = time.perf_counter()
    is_overlay = job.format is Format.OVERLAY
    segment = _overlay_video if is_overlay else _frame_files
    road_shares: list[float] = []
    task = progress.add_task(job.source.name, total=None)
    try:
        with (
            Reader(job.source, every=options.every, with_sound=is_overlay) as reader,
            closing(segment(segmenter, job, options, reader)) as results,
        ):
            progress.update(task, total=reader.num_expected or None)
            for road_share in results:
                road_shares.append(road_share)
                progress.advance(task)
            height, width = reader.size
    except FileError as error:
        return Outcome(job.source, job.target, fault=str(error))
    finally:
        progress.remove_task(task)
    return Outcome(
        source=job.source,
        target=job.target,
        width=width,
        height=height,
        num_images=len(road_shares),
        road_share=float(np.mean(road_shares)) if road_shares else 0.0,
        seconds=time.perf_counter() - started_s,
        fault=reader.fault,
        note=reader.note,
    )


def _overlay_video(segmenter: Segmenter, job: Job, options: Options, reader: "Reader") -> Generator[float, None, None]:
    """Write the video with its road coloured, and yield the road share of each frame."""
    from roadseg_serve.offline.video import Writer, to_yuv  # noqa: PLC0415  # as above

    threshold = segmenter.threshold if options.threshold is None else options.threshold

    def prepare(item: "IndexedFrame") -> Frame:
        return resize_and_pad(reader.picture_of(item[1]), segmenter.size_rule, keep_picture=True)

    def finish(_item: "IndexedFrame", frame: Frame, prediction: Prediction) -> "tuple[av.VideoFrame, float]":
        assert frame.picture_HWC is not None
        mask_HW = binarise(resize_back(prediction.prob_HW, prediction.placement), threshold)
        return to_yuv(overlay(frame.picture_HWC, mask_HW)), np.count_nonzero(mask_HW) / mask_HW.size

    results = run_batches(reader, prepare, segmenter.predict, finish, num_jobs=options.num_jobs)
    with closing(results), atomic_file(job.target) as part, ExitStack() as stack:
        writer: Writer | None = None
        for (_, frame), result in results:
            if isinstance(result, RoadsegError):
                raise result
            picture, road_share = result
            assert frame.pts is not None  # the reader sets it
            writer = writer or stack.enter_context(Writer(part, reader))  # needs the first frame's size
            writer.write(picture, frame.pts)
            yield road_share


def _frame_files(segmenter: Segmenter, job: Job, options: Options, reader: "Reader") -> Generator[float, None, None]:
    """Write one file for each frame, named by its index, and yield the road share of each."""

    def target_of(item: "IndexedFrame") -> Path:
        return job.target / f"{item[0]:06d}{SUFFIXES[job.format]}"

    def prepare(item: "IndexedFrame") -> Frame:
        return resize_and_pad(reader.picture_of(item[1]), segmenter.size_rule)

    def finish(item: "IndexedFrame", _frame: Frame, prediction: Prediction) -> float:
        answer_options = AnswerOptions(job.format, options.threshold)
        return _write_answer(target_of(item), prediction, answer_options, None).road_share

    frames = (item for item in reader if not (options.skip_existing and target_of(item).exists()))
    with closing(run_batches(frames, prepare, segmenter.predict, finish, num_jobs=options.num_jobs)) as results:
        for _, result in results:
            if isinstance(result, RoadsegError):
                raise result
            yield result


def _write_answer(path: Path, prediction: Prediction, answer_options: AnswerOptions, frame: Frame | None) -> Answer:
    made = answer(prediction, answer_options, frame, None)
    with atomic_file(path) as part:
        part.write_bytes(made.body)
    return made

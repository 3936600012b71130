"""Masks without a server: the pure functions of the graph in one process, on files, videos and standard input.

Decoding and encoding run in threads beside the engine. How much is under way at a time is bounded, however many files
there are and however long a video is.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from roadseg_serve.engines.engine import EngineName, create_engine, predict_all, program_of, warm_up
from roadseg_serve.errors import FileError, RoadsegError
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Prediction
from roadseg_serve.models import artefact
from roadseg_serve.offline.inputs import SUFFIXES, Job
from roadseg_serve.offline.outcome import Outcome
from roadseg_serve.stages.postprocess import answer, binarise, overlay, resize_back
from roadseg_serve.stages.preprocess import Limits, frame_of, resize_and_pad

if TYPE_CHECKING:
    import av
    from tqdm import tqdm

    from roadseg_serve.offline.video import Reader, VideoFrame

# The files are the user's own; this much of one picture fits into the memory of a laptop.
LIMITS = Limits(max_upload_bytes=1_000_000_000, max_pixels=89_000_000)

# Larger batches are no quicker on a CPU, and each frame of them is in memory.
MAX_BATCH_SIZE = 4

# How many batches the engine has before it: one to compute, one so that it never waits.
BATCHES_AHEAD = 2

AGAIN = "Mend that and run this again; --skip-existing leaves out what is done."

T = TypeVar("T")
R = TypeVar("R")


class Segmenter:
    """A model in this process.

    Args:
        uri: names the model version; see `artefact.resolve`.
        engine: what computes, on the CPU; see `create_engine`.
        num_threads: CPU threads of one prediction.

    Raises:
        ArtefactError: the model cannot be read, or has no program for the engine.
        StartError: the engine cannot run here.
    """

    def __init__(self, uri: str, *, engine: EngineName | Literal["auto"] = "auto", num_threads: int) -> None:
        version = artefact.read(artefact.resolve(uri), [program_of(engine, gpu=False)])
        self.size_rule = version.manifest.input.size
        self._name = ModelName(version.manifest.name, version.manifest.version)
        self.threshold = version.manifest.threshold
        self._engine = create_engine(engine, version, num_threads=num_threads)
        warm_up(self._engine, self.size_rule)

    def predict(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Predict frames of any sizes, those of equal shape together; not for two threads at a time."""
        started_s = time.perf_counter()
        probs_HW = predict_all(self._engine, [frame.input_HWC for frame in frames])
        infer_s = (time.perf_counter() - started_s) / len(frames)
        return [
            frame.predicted(prob_HW, threshold=self.threshold, model=self._name, infer_s=infer_s)
            for frame, prob_HW in zip(frames, probs_HW, strict=True)
        ]


@dataclass(frozen=True)
class Options:
    """How files are segmented.

    Attributes:
        threshold: in [0, 1], instead of the model's own.
        every: of a video, each frame whose index is a multiple of this.
        skip_existing: leave alone what has an answer already.
        num_jobs: threads that decode and encode.
    """

    threshold: float | None = None
    every: int = 1
    skip_existing: bool = False
    num_jobs: int = 2


def segment_bytes(segmenter: Segmenter, data: bytes, wish: AnswerOptions) -> Answer:
    """One picture, as a server would answer it.

    Raises:
        RequestError: it cannot be read.
    """
    frame = frame_of(data, LIMITS, segmenter.size_rule, keep_picture=wish.format is Format.OVERLAY)
    [prediction] = segmenter.predict([frame])
    return answer(prediction, wish, frame, None)


def segment_files(
    segmenter: Segmenter, jobs: Sequence[Job], options: Options, bar: "tqdm[Any]"
) -> Generator[Outcome, None, None]:
    """Segment files, pictures before videos; what goes wrong with one is told by its outcome, and the rest goes on.

    Args:
        segmenter: the model.
        jobs: what to segment, and where the answers go.
        options: how.
        bar: moves on with each image; its total is a step for each job and grows by what is in the videos.
    """
    todo = []
    for job in jobs:
        if options.skip_existing and job.target.is_file():
            bar.update()
            yield Outcome(job.source, job.target)
        else:
            todo.append(job)
    pictures = [job for job in todo if not job.is_video]
    with closing(_segment_pictures(segmenter, pictures, options)) as outcomes:
        for outcome in outcomes:
            bar.update()
            yield outcome
    for job in todo:
        if job.is_video:
            yield _segment_video(segmenter, job, options, bar)


def flow(
    items: Iterable[T],
    prepare: Callable[[T], Frame],
    predict: Callable[[Sequence[Frame]], list[Prediction]],
    finish: Callable[[T, Frame, Prediction], R],
    *,
    num_jobs: int,
) -> Generator[tuple[T, R | RoadsegError], None, None]:
    """Prepare items in threads, predict those that are ready together, finish them in threads.

    Items are taken only as fast as results are. Results come in the order of the items, but what failed comes as soon
    as it is noticed.

    Args:
        items: iterated in the caller's thread.
        prepare: an item to a frame, in a thread.
        predict: frames to predictions, in a thread that does nothing else.
        finish: the rest of the work on an item, in a thread.
        num_jobs: threads for `prepare` and `finish`.

    Yields:
        Each item with what `finish` made of it, or with the RoadsegError that was raised on the way.
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
            if len(predicting) < BATCHES_AHEAD and preparing and (preparing[0][1].done() or not predicting):
                batch, failed = _take_batch(preparing)
                yield from failed
                if batch:
                    predicting.append((batch, engine_thread.submit(predict, [frame for _, frame in batch])))
            elif predicting:
                batch, predictions = predicting.popleft()
                for (item, frame), prediction in zip(batch, predictions.result(), strict=True):
                    finishing.append((item, pool.submit(finish, item, frame, prediction)))
            while finishing and (
                finishing[0][1].done() or len(finishing) > MAX_BATCH_SIZE or not (preparing or predicting)
            ):
                item, finished = finishing.popleft()
                result = _result_or_fault(finished)
                yield item, result
    finally:
        for threads in (engine_thread, pool):
            threads.shutdown(cancel_futures=True)


def _take_batch(
    preparing: deque[tuple[T, Future[Frame]]],
) -> tuple[list[tuple[T, Frame]], list[tuple[T, RoadsegError]]]:
    """Take the frames that are ready, but wait for the first; and what failed before them."""
    batch: list[tuple[T, Frame]] = []
    failed: list[tuple[T, RoadsegError]] = []
    while preparing and len(batch) < MAX_BATCH_SIZE and (not batch or preparing[0][1].done()):
        item, prepared = preparing.popleft()
        frame = _result_or_fault(prepared)
        if isinstance(frame, RoadsegError):
            failed.append((item, frame))
        else:
            batch.append((item, frame))
    return batch, failed


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to: it takes the place of `path` when the block ends well, else it is removed.

    Raises:
        FileError: it cannot be written.
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
        raise FileError(f"{path} cannot be written ({error.strerror}). {AGAIN}") from error


def _segment_pictures(segmenter: Segmenter, jobs: Sequence[Job], options: Options) -> Generator[Outcome, None, None]:
    def prepare(job: Job) -> Frame:
        keep_picture = job.format is Format.OVERLAY
        return frame_of(_read(job.source), LIMITS, segmenter.size_rule, keep_picture=keep_picture)

    def finish(job: Job, frame: Frame, prediction: Prediction) -> Outcome:
        made = answer(prediction, AnswerOptions(job.format, options.threshold), frame, None)
        _write(job.target, made.body)
        return Outcome(
            source=job.source,
            target=job.target,
            width=frame.placement.frame_width,
            height=frame.placement.frame_height,
            num_images=1,
            road_share=made.road_share,
            seconds=sum(made.times_s.values()),
        )

    with closing(flow(jobs, prepare, segmenter.predict, finish, num_jobs=options.num_jobs)) as results:
        for job, result in results:
            if isinstance(result, Outcome):
                yield result
            else:
                yield Outcome(job.source, job.target, fault=str(result))


def _segment_video(segmenter: Segmenter, job: Job, options: Options, bar: "tqdm[Any]") -> Outcome:
    # PyAV is loaded by those who have videos.
    from roadseg_serve.offline.video import Reader  # noqa: PLC0415

    started_s = time.perf_counter()
    num_before, num_expected = bar.n, 1
    road_shares: list[float] = []
    try:
        is_overlay = job.format is Format.OVERLAY
        with Reader(job.source, every=options.every, with_sound=is_overlay) as reader:
            num_expected = reader.num_expected
            _grow(bar, num_expected - 1)
            segment = _overlay_video if is_overlay else _frame_files
            with closing(segment(segmenter, job, options, reader)) as results:
                for road_share in results:
                    road_shares.append(road_share)
                    bar.update()
            (height, width), fault = reader.size, reader.fault
    except FileError as error:
        return Outcome(job.source, job.target, fault=str(error))
    finally:
        _grow(bar, bar.n - num_before - num_expected)  # the header may have promised more or less
    return Outcome(
        source=job.source,
        target=job.target,
        width=width,
        height=height,
        num_images=len(road_shares),
        road_share=float(np.mean(road_shares)) if road_shares else 0.0,
        seconds=time.perf_counter() - started_s,
        fault=fault,
        note=reader.note,
    )


def _overlay_video(segmenter: Segmenter, job: Job, options: Options, reader: "Reader") -> Generator[float, None, None]:
    """Write the video with its road coloured; gives the road share of each frame."""
    from roadseg_serve.offline.video import Writer, to_yuv  # noqa: PLC0415 as above

    threshold = segmenter.threshold if options.threshold is None else options.threshold

    def prepare(frame: "VideoFrame") -> Frame:
        return resize_and_pad(reader.picture_of(frame), segmenter.size_rule, keep_picture=True)

    def finish(_frame: "VideoFrame", frame: Frame, prediction: Prediction) -> "tuple[av.VideoFrame, float]":
        assert frame.picture_HWC is not None
        mask_HW = binarise(resize_back(prediction.prob_HW, prediction.placement), threshold)
        return to_yuv(overlay(frame.picture_HWC, mask_HW)), np.count_nonzero(mask_HW) / mask_HW.size

    results = flow(reader, prepare, segmenter.predict, finish, num_jobs=options.num_jobs)
    with closing(results), whole(job.target) as part, ExitStack() as stack:
        writer: Writer | None = None
        for frame, result in results:
            if isinstance(result, RoadsegError):
                raise result
            picture, road_share = result
            if writer is None:
                writer = stack.enter_context(Writer(part, reader))
            writer.write(picture, frame.pts)
            yield road_share


def _frame_files(segmenter: Segmenter, job: Job, options: Options, reader: "Reader") -> Generator[float, None, None]:
    """Write the answer to each frame into the target's folder, by its index; gives the road share of each."""

    def target_of(frame: "VideoFrame") -> Path:
        return job.target / f"{frame.index:06d}{SUFFIXES[job.format]}"

    def prepare(frame: "VideoFrame") -> Frame:
        return resize_and_pad(reader.picture_of(frame), segmenter.size_rule)

    def finish(video_frame: "VideoFrame", _frame: Frame, prediction: Prediction) -> float:
        made = answer(prediction, AnswerOptions(job.format, options.threshold), None, None)
        _write(target_of(video_frame), made.body)
        return made.road_share

    frames = (frame for frame in reader if not (options.skip_existing and target_of(frame).exists()))
    with closing(flow(frames, prepare, segmenter.predict, finish, num_jobs=options.num_jobs)) as results:
        for _, result in results:
            if isinstance(result, RoadsegError):
                raise result
            yield result


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(LIMITS.max_upload_bytes + 1)  # one more, so that too many are noticed
    except OSError as error:
        raise FileError(f"It cannot be read ({error.strerror}). {AGAIN}") from error


def _write(path: Path, data: bytes) -> None:
    with whole(path) as part:
        part.write_bytes(data)


def _result_or_fault(future: Future[T]) -> T | RoadsegError:
    """What came of it; an exception that is nobody's fault but ours is raised."""
    try:
        return future.result()
    except RoadsegError as error:
        return error


def _grow(bar: "tqdm[Any]", num_more: float) -> None:
    bar.total = (bar.total or 0) + num_more
    bar.refresh()

"""The check of all data before any work: every faulty file is reported at once."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from roadseg_train.data.dataset import Frame, UInt8Array, check_size, read_image, read_target, scan
from roadseg_train.data.faults import Fault, Problem
from roadseg_train.data.split import select
from roadseg_train.errors import DataError, FaultyDataError

T = TypeVar("T")


def check_data(roots: Iterable[Path], splits: Sequence[str], *, everything: bool = False) -> list[Path]:
    """Check dataset folders: that pictures and masks pair up, and that every file of the splits is whole and in form.

    Every file is decoded once, in as many threads as there are cores.

    Args:
        roots: dataset folders.
        splits: the splits that will be used.
        everything: whether the frames of other splits will be used as well.

    Returns:
        Pictures that are left out because their only truth is a lane mask.

    Raises:
        FaultyDataError: with every faulty file.
        DataError: a split is unknown or empty.
    """
    scans = [scan(root) for root in roots]
    faults = [fault for found in scans for fault in found.faults]
    frames = [frame for found in scans for frame in found.frames]
    try:
        used = list(dict.fromkeys(frame for split in splits for frame in select(frames, split)))
    except DataError:
        if faults:  # the reason why a split is empty
            raise FaultyDataError(faults) from None
        raise
    faults += _check_each(check_frame, frames if everything else used)
    if faults:
        raise FaultyDataError(faults)
    return sorted(picture for found in scans for picture in found.lane_only)


def check_pictures(paths: Sequence[Path]) -> None:
    """Check that pictures without truth can be decoded.

    Raises:
        FaultyDataError: with every one that cannot.
    """
    faults = _check_each(_check_picture, paths)
    if faults:
        raise FaultyDataError(faults)


def check_frame(frame: Frame) -> list[Fault]:
    """All that is wrong with the contents of a frame's files."""
    faults: list[Fault] = []
    with _collect(faults):
        image_HWC = read_image(frame.image)
    with _collect(faults):
        target_HW = read_target(frame)
    if not faults:
        with _collect(faults):
            check_size(frame, image_HWC, target_HW)
        if _is_lane_mask(frame, target_HW):
            faults.append(Fault(frame.mask, Problem.LANE_MASK))
    return faults


def _check_picture(path: Path) -> list[Fault]:
    faults: list[Fault] = []
    with _collect(faults):
        read_image(path)
    return faults


def _check_each(check: Callable[[T], list[Fault]], things: Sequence[T]) -> list[Fault]:
    """The faults of all things; Pillow decodes outside the interpreter's lock, so that threads are enough."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = tqdm(pool.map(check, things), total=len(things), desc="check", unit="frame", dynamic_ncols=True)
        return [fault for found in checks for fault in found]


@contextmanager
def _collect(faults: list[Fault]) -> Iterator[None]:
    """Add what goes wrong inside to the faults, and go on."""
    try:
        yield
    except FaultyDataError as error:
        faults += error.faults


def _is_lane_mask(frame: Frame, target_HW: UInt8Array) -> bool:
    """Whether a KITTI road mask shows just what the lane mask beside it shows."""
    lane = replace(frame, mask=frame.mask.with_name(frame.mask.name.replace("_road_", "_lane_")))
    if frame.form != "kitti" or not lane.mask.is_file():
        return False
    try:
        return np.array_equal(target_HW, read_target(lane))
    except FaultyDataError:
        return False  # lane masks are not used, so a damaged one is no fault

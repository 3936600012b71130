import pickle
from pathlib import Path

from roadseg_train.data.faults import Fault, Problem
from roadseg_train.errors import FaultyDataError


def test_one_fault_is_one_line_and_several_are_grouped(tmp_path: Path) -> None:
    a, b, c = (
        Fault(tmp_path / "a.png", Problem.NO_MASK),
        Fault(tmp_path / "b.png", Problem.NO_MASK),
        Fault(tmp_path / "c.png", Problem.UNREADABLE, "truncated"),
    )
    assert str(FaultyDataError([c])) == f"{tmp_path}/c.png cannot be decoded (truncated); replace the file"
    assert str(FaultyDataError([b, c, a])).splitlines() == [
        "the data has 3 faults; nothing was started",
        "  has no mask (2); add the mask, or remove the picture:",
        f"    {tmp_path}/a.png",
        f"    {tmp_path}/b.png",
        "  cannot be decoded (1); replace the file:",
        f"    {tmp_path}/c.png (truncated)",
    ]


def test_the_error_comes_whole_out_of_a_worker(tmp_path: Path) -> None:
    error = FaultyDataError([Fault(tmp_path, Problem.EMPTY)])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # our own bytes


def test_hundreds_are_all_told(tmp_path: Path) -> None:
    faults = [Fault(tmp_path / f"{i}.png", Problem.NO_MASK) for i in range(300)]
    text = str(FaultyDataError(faults))
    assert all(f"{fault.path}\n" in f"{text}\n" for fault in faults)

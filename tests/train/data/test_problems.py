import pickle
from pathlib import Path

from roadseg_train.data.problems import InvalidDataError, Problem, ProblemKind


def test_one_problem_is_one_line_and_several_are_grouped(tmp_path: Path) -> None:
    a, b, c = (
        Problem(tmp_path / "a.png", ProblemKind.NO_MASK),
        Problem(tmp_path / "b.png", ProblemKind.NO_MASK),
        Problem(tmp_path / "c.png", ProblemKind.UNREADABLE, "truncated"),
    )
    assert str(InvalidDataError([c])) == f"{tmp_path}/c.png cannot be decoded (truncated); replace the file"
    assert str(InvalidDataError([b, c, a])).splitlines() == [
        "the data has 3 problems; nothing was started",
        "  has no mask (2); add the mask, or remove the image:",
        f"    {tmp_path}/a.png",
        f"    {tmp_path}/b.png",
        "  cannot be decoded (1); replace the file:",
        f"    {tmp_path}/c.png (truncated)",
    ]


def test_the_error_survives_pickling(tmp_path: Path) -> None:
    error = InvalidDataError([Problem(tmp_path, ProblemKind.EMPTY)])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # our own bytes


def test_hundreds_are_all_listed(tmp_path: Path) -> None:
    problems = [Problem(tmp_path / f"{i}.png", ProblemKind.NO_MASK) for i in range(300)]
    text = str(InvalidDataError(problems))
    assert all(f"{problem.path}\n" in f"{text}\n" for problem in problems)

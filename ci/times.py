"""Print how long each stage of .ci/run took, and each test or journey step of 10 s or more.

    python3 ci/times.py FOLDER

FOLDER holds stages.tsv, with a line "SECONDS<tab>STATE<tab>STAGE" for each stage. A stage may have a report beside it:
NAME.xml (JUnit, from pytest) or NAME.json (the figures of the journey), where NAME is test for ci/test, e2e for ci/e2e.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

SHORTEST_S = 10.0
STEPS = "seconds by step"  # in the journey's figures
PASSED, BESIDE = "passed", "beside"


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        duration_s: how long it took.
        state: PASSED, BESIDE (it ran beside other stages, so it does not count towards the total) or what went wrong.
        name: the command.
    """

    duration_s: float
    state: str
    name: str


def read_stages(text: str) -> list[Stage]:
    """The stages in stages.tsv, those that ran beside others last."""
    rows = (line.split("\t") for line in text.splitlines())
    stages = [Stage(float(seconds), state, name) for seconds, state, name in rows]
    return sorted(stages, key=lambda stage: stage.state == BESIDE)


def slow_tests(junit: str) -> list[tuple[float, str]]:
    """Seconds and name of each slow test in a JUnit report, slowest first."""
    cases = ET.fromstring(junit).iter("testcase")  # noqa: S314  # we wrote the file
    times = [(float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}") for case in cases]
    return sorted((one for one in times if one[0] >= SHORTEST_S), reverse=True)


def slow_steps(figures: str) -> list[tuple[float, str]]:
    """Seconds and name of each slow step of the journey, in order."""
    steps = json.loads(figures).get(STEPS, {})
    return [(seconds, name) for name, seconds in steps.items() if seconds >= SHORTEST_S]


def details(folder: Path, stage: Stage) -> list[tuple[float, str]]:
    """The slow parts of a stage, where it left a readable report."""
    words = stage.name.split()
    name = Path(words[0]).name if words else ""
    for suffix, read in ((".xml", slow_tests), (".json", slow_steps)):
        try:
            return read((folder / name).with_suffix(suffix).read_text(encoding="utf-8"))
        except (OSError, ET.ParseError, json.JSONDecodeError):  # no report, or one that was cut off
            continue
    return []


def table(folder: Path) -> Iterator[str]:
    """The lines of the table."""
    stages = read_stages((folder / "stages.tsv").read_text(encoding="utf-8"))
    yield "seconds  stage, and each test or step of 10 s or more"
    for stage in stages:
        yield f"{stage.duration_s:7.0f}  {stage.name}" + ("" if stage.state == PASSED else f" ({stage.state})")
        for duration_s, name in details(folder, stage):
            yield f"{'':9}{duration_s:6.0f}  {name}"
    total_s = sum(stage.duration_s for stage in stages if stage.state != BESIDE)
    yield f"{total_s:7.0f}  in all ({total_s / 60:.0f} min)"


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))

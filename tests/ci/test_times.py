import json
from pathlib import Path

import pytest

from ci.times import table

JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" tests="3">
<testcase classname="tests.e2e.test_fit" name="test_quick" time="9.994" />
<testcase classname="tests.e2e.test_fit" name="test_slow[a]" time="12.4"><failure message="no">no</failure></testcase>
<testcase classname="tests.web.test_page" name="test_slower" time="30.2" />
</testsuite></testsuites>
"""


def write(folder: Path, stages: str, **reports: str) -> Path:
    (folder / "stages.tsv").write_text(stages)
    for name, text in reports.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_slow_tests_and_steps_stand_under_their_stage(tmp_path: Path) -> None:
    figures = {"seconds by step": {"install the chart": 61.7, "upload": 2.0, "uninstall": 10.0}}
    beside = "20\tbeside\tci/tools/install helm\n"
    stages = "88\tpassed\tci/check\n300\tpassed\tci/test\n100\tpassed\tci/e2e --figures f\n"
    write(tmp_path, beside + stages, test_xml=JUNIT, e2e_json=json.dumps(figures))
    assert list(table(tmp_path)) == [
        "seconds  stage, and each test or step of 10 s or more",
        "     88  ci/check",
        "    300  ci/test",
        "             30  tests.web.test_page::test_slower",
        "             12  tests.e2e.test_fit::test_slow[a]",
        "    100  ci/e2e --figures f",
        "             62  install the chart",
        "             10  uninstall",
        "     20  ci/tools/install helm (beside)",
        "    488  in all (8 min)",
    ]


@pytest.mark.parametrize("report", ["", "<testsuites><testsuite>"], ids=["empty", "cut off"])
def test_a_stage_that_failed_is_named_even_without_its_report(tmp_path: Path, report: str) -> None:
    write(tmp_path, "7\tFAILED\tci/test\n", test_xml=report)
    assert list(table(tmp_path))[1:] == ["      7  ci/test (FAILED)", "      7  in all (0 min)"]


def test_no_stage_is_no_error(tmp_path: Path) -> None:
    assert list(table(write(tmp_path, "")))[1:] == ["      0  in all (0 min)"]

import pytest

from bench.observe import report


def test_ratios_are_those_of_the_same_turn(capsys: pytest.CaptureFixture[str]) -> None:
    report({"bare": [100, 200, 400], "plain": [90, 100, 320]})
    # The ratios are 0.9, 0.5 and 0.8; that of the medians would be 0.5.
    assert [row.split() for row in capsys.readouterr().out.splitlines()[1:]] == [
        ["bare", "200.0", "1.000", "1.000", "1.000"],
        ["plain", "100.0", "0.800", "0.500", "0.900"],
    ]

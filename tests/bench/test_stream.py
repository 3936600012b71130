from functools import partial

import pytest

from bench.stream import report


def test_ratios_are_those_of_the_same_turn(capsys: pytest.CaptureFixture[str]) -> None:
    warm_up = 1000
    ways = {"one by one": iter([warm_up, 10, 20, 40]), "one waiting": iter([warm_up, 30, 22, 44])}
    report({name: partial(next, rates) for name, rates in ways.items()}, 3)
    # The ratios are 3, 1.1 and 1.1; that of the medians would be 1.5.
    assert [row.split()[-4:] for row in capsys.readouterr().out.splitlines()[1:]] == [
        ["20.0", "10.0", "40.0", "1.00"],
        ["30.0", "22.0", "44.0", "1.10"],
    ]

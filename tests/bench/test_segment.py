from functools import partial

import pytest

from bench.segment import rate_of, row
from tests.bench.clock import Clock


def test_ratios_are_those_of_the_same_pair() -> None:
    # The ratios are 3, 1.1 and 1.1; that of the medians would be 1.5.
    line = row("480x360 JPEG", [(10, 30), (20, 22), (40, 44)])
    assert line.split() == ["480x360", "JPEG", "20.0", "30.0", "1.10", "1.10", "3.00"]


def test_a_rate_is_pictures_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert rate_of(partial(clock.go_on, 4), 16) == 4

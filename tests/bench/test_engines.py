from collections.abc import Callable

import numpy as np
import pytest

from bench.engines import Setting, report
from roadseg_serve.messages import UInt8Array
from tests.bench.clock import Clock


def test_times_are_those_of_one_image_and_answers_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)

    def run(batch_size: int, prob: int, *times_s: float) -> Callable[[], UInt8Array]:
        turns = iter([1000, *times_s])  # the first warms up

        def predict() -> UInt8Array:
            clock.go_on(next(turns))
            return np.full((batch_size, 4, 4), prob, np.uint8)

        return predict

    runs: dict[Setting, Callable[[], UInt8Array]] = {
        (1, 1, "openvino"): run(1, 250, 0.5, 0.25, 1),
        (2, 2, "torch"): run(2, 0, 0.125, 0.5, 2),
    }
    report(runs, repeats=3)
    # Of two images, 62.5, 250 and 1000 ms each.
    assert [row.split() for row in capsys.readouterr().out.splitlines()[1:]] == [
        ["1", "1", "openvino", "500.00", "250.00", "1000.00", "1.00x", "0/255"],
        ["2", "2", "torch", "250.00", "62.50", "1000.00", "2.00x", "250/255"],
    ]

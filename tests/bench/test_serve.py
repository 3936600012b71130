import io
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.load import Served, file_of
from bench.serve import create_pipeline, note, print_stages, rate_of, report
from tests.bench.clock import Clock


def test_medians_stand_beside_the_bare_work_s(capsys: pytest.CaptureFixture[str]) -> None:
    warm_up = 1000
    rates = {
        "bare work, 1 thread": iter([warm_up, 10, 30, 20]),
        "bare work, 2 threads": iter([warm_up, 50, 40, 60]),
        "fused": iter([warm_up, 45, 25, 24]),
    }
    report({name: partial(next, values) for name, values in rates.items()}, 3)
    _, *rows = capsys.readouterr().out.splitlines()
    # Median, least, most; of one thread's median, 20; of the best one, 50.
    assert [row.split()[-5:] for row in rows] == [
        ["20.0", "10.0", "30.0", "1.00", "0.40"],
        ["50.0", "40.0", "60.0", "2.50", "1.00"],
        ["25.0", "24.0", "45.0", "1.25", "0.50"],
    ]
    assert [row.strip().startswith(name) for row, name in zip(rows, rates, strict=True)] == [True] * 3


def test_stages_are_medians_over_all_turns(capsys: pytest.CaptureFixture[str]) -> None:
    turns = [
        Served(stage_ms=[{"decode": 1, "infer": 20}, {"decode": 2, "infer": 40}]),
        Served(stage_ms=[{"decode": 9, "infer": 30}]),
    ]
    served: dict[str, list[Served]] = {}
    assert note(served.setdefault("staged", []), lambda: Served(num_answers=6, duration_s=2)) == 3
    served["staged"] += turns
    print_stages(served | {"fused": [Served(stage_ms=[{"decode": 4, "queue": 7}])]})
    assert [row.split() for row in capsys.readouterr().out.splitlines()] == [
        ["ms,", "median", "decode", "infer", "queue"],
        ["staged", "2.0", "30.0", "0.0"],
        ["fused", "4.0", "0.0", "7.0"],
    ]


def test_the_last_call_counts_with_all_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # Begun at 0, 0.75 and 1.5 s, the last ends 0.25 s late.
    assert rate_of([partial(clock.go_on, 0.75)], 2) == 3 / 2.25


def test_workers_count_together() -> None:
    calls, lock = count(1), threading.Lock()

    def call() -> None:
        with lock:
            next(calls)
        time.sleep(0.001)

    started_s = time.perf_counter()
    rate = rate_of([call, call], 0.05)
    taken_s = time.perf_counter() - started_s
    num_calls = next(calls) - 1
    assert num_calls / taken_s <= rate <= num_calls / 0.05


def test_the_bare_work_makes_the_mask(red_artefact: Path) -> None:
    picture = Image.new("RGB", (128, 64))
    picture.paste((255, 0, 0), (0, 0, 64, 64))
    mask_HW = np.asarray(Image.open(io.BytesIO(create_pipeline(str(red_artefact))(file_of(picture, "PNG")))))
    assert np.array_equal(mask_HW >= 128, np.asarray(picture)[:, :, 0] == 255)

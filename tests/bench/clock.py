"""A clock that goes on only when a test says so."""

import time

import pytest


class Clock:
    """In place of `time.perf_counter`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_s = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.time_s)

    def go_on(self, seconds: float) -> None:
        self.time_s += seconds

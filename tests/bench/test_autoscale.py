import math
from xml.etree import ElementTree

import pytest

from bench.autoscale import PROFILE, Measurement, Phase, draw, in_steps, quantile_s, reaction_s, sending_times, table

MEASURED = Measurement(
    phases=[("idle", 0), ("ramp", 10), ("idle", 30), ("step", 50), ("idle", 60), ("spike", 70)],
    uploads=[
        (10, 1.0, 200),
        (20, 3.0, 200),
        (30, 9.0, 503),
        (31, 60.0, 0),
        (49.9, 2.0, 200),
        (50, 0.4, 200),
        (70, 5.0, 503),
    ],
    series={
        "desired": [(0, 1), (10, 1), (15, 1), (20, 2), (50, 2), (55, 2), (60, 3)],
        "target": [(0, 1), (25, 2), (55, 1), (65, 2)],
        "actual": [(30, 1), (75, 2)],
        "requests": [(0, 0), (20, 4)],
        "pods": [],
    },
)


def test_a_steady_rate_sends_at_even_times() -> None:
    assert sending_times([Phase("step", 3, (1, 1))], 2) == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3], abs=0.02)


def test_a_ramp_sends_where_the_area_under_it_is_whole() -> None:
    # The rate is 4 t / 8, so that the area is t^2 / 4, and the upload n is due at 2 sqrt(n).
    times_s = sending_times([Phase("ramp", 8, (0, 1))], 4)
    assert times_s[:15] == pytest.approx([2 * math.sqrt(n) for n in range(1, 16)], abs=0.02)
    assert len(times_s) in {15, 16}  # the last is due with the end itself


def test_what_a_phase_leaves_over_counts_for_the_next() -> None:
    times_s = sending_times([Phase("step", 0.75, (1, 1)), Phase("idle", 10, (0, 0)), Phase("step", 1, (1, 1))], 1)
    assert times_s == pytest.approx([11], abs=0.02)


def test_the_profile_offers_what_its_table_says() -> None:
    times_s = sending_times(PROFILE, 11)
    # A ramp of 60 s to 11 per second and 40 s at it; 60 s of 11; 15 s of 33.
    for start_s, end_s, expected in ((20, 120, 770), (200, 260, 660), (340, 355, 495)):
        assert sum(start_s <= at_s < end_s for at_s in times_s) == pytest.approx(expected, abs=1)
    assert len(times_s) == pytest.approx(770 + 660 + 495, abs=1)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param([(0, 1), (10, 1), (15, 2), (20, 3)], 5, id="the first rise"),
        pytest.param([(0, 1), (5, 3), (15, 1), (20, 3), (25, 4)], 15, id="above what it was when the load began"),
        pytest.param([(0, 1), (10, 2), (15, 2)], None, id="with the load, not after it"),
        pytest.param([(0, 1), (30, 2)], None, id="with the next load"),
        pytest.param([(20, 1)], 10, id="of what was not there before"),
        pytest.param([], None, id="nothing is known"),
    ],
)
def test_a_reaction_is_a_rise_while_the_load_lasts(series: list[tuple[float, float]], expected: float | None) -> None:
    assert reaction_s(series, 10, 30) == expected


def test_quantiles_are_those_of_answers() -> None:
    uploads = [(0.0, 5.0, 200), (0.0, 1.0, 200), (0.0, 99.0, 503), (0.0, 3.0, 200), (0.0, 60.0, 0)]
    assert quantile_s(uploads, 0.5) == 3
    assert quantile_s(uploads, 0.95) == pytest.approx(3 + 0.9 * 2)  # 0.95 of the way over two gaps
    assert quantile_s(uploads[:1], 0.95) == 5
    assert math.isnan(quantile_s([(0.0, 1.0, 503)], 0.5))


def test_steps_hold_what_was_sent_in_them() -> None:
    early, late, last = (0.0, 1.0, 200), (4.9, 1.0, 200), (5.0, 1.0, 200)
    assert in_steps([early, late, last], 12) == [[early, late], [last], []]


def test_the_table_has_each_load_to_the_beginning_of_the_next() -> None:
    assert table(MEASURED).splitlines()[2:] == [
        "| ramp | 10 s | 15 s | 20 s | none | 5 | 2 | 2.0 s, 2.9 s |",
        "| step | 10 s | none | none | none | 1 | 0 | 0.4 s, 0.4 s |",
        "| spike | none | none | 5 s | none | 1 | 1 | nan s, nan s |",
    ]


def test_the_same_numbers_are_drawn_as_the_same_file() -> None:
    drawn = draw(MEASURED)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")  # noqa: S314  # it is our own
    assert drawn == draw(MEASURED)

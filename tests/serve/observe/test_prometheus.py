"""Arithmetic on exposition text, which is written by hand here."""

import pytest

from roadseg_serve.observe.prometheus import increases, mean_of_integers, parse, quantile, sums


def test_only_the_named_series_are_read() -> None:
    text = (
        "# HELP ray_node_mem_used bytes\n# TYPE ray_node_mem_used gauge\nray_node_mem_used 7\n"
        "# HELP ray_roadseg_model_loaded which\n# TYPE ray_roadseg_model_loaded gauge\n"
        'ray_roadseg_model_loaded{model="a \\"b\\"",version="1"} 1.0\n'
        'ray_roadseg_model_loaded_more{model="c"} 1.0\n'
    )
    names = ("ray_roadseg_model_loaded",)
    labels = frozenset({("model", 'a "b"'), ("node", "n"), ("version", "1")})
    assert parse(text, names, node="n") == {("ray_roadseg_model_loaded", labels): 1.0}
    assert parse("", names, node="n") == {}


def test_a_counter_that_shrank_was_restarted() -> None:
    grown, restarted, new, gone = (("total", frozenset({("replica", name)})) for name in "abcd")
    before = {grown: 5.0, restarted: 90.0, gone: 50.0}
    assert increases(before, {grown: 7.0, restarted: 4.0, new: 6.0}) == {grown: 2.0, restarted: 4.0, new: 6.0}


def test_sums_are_by_label() -> None:
    text = 'a{x="1",y="1"} 1\na{x="1",y="2"} 2\na{x="2",y="1"} 4\na{y="1"} 8\nb{x="1",y="1"} 16\nc{x="1"} 32\n'
    series = parse(text, ("a", "b", "c"), node="n")
    assert sums(series, "a", by="x") == {"1": 3, "2": 4, "": 8}
    assert sums(series, "a", "b", by="x", y="1") == {"1": 17, "2": 4, "": 8}


@pytest.mark.parametrize(
    ("buckets", "fraction", "expected"),
    [
        ({"10": 0.0, "+Inf": 0.0}, 0.5, None),
        ({}, 0.5, None),
        ({"10": 4.0, "20": 8.0, "+Inf": 8.0}, 0.25, 5.0),
        ({"10": 4.0, "20": 8.0, "+Inf": 8.0}, 0.5, 10.0),
        ({"10": 4.0, "20": 8.0, "+Inf": 8.0}, 0.75, 15.0),
        ({"10": 4.0, "20": 4.0, "40": 8.0, "+Inf": 8.0}, 0.75, 30.0),  # none is between 10 and 20
        ({"10": 4.0, "20": 8.0, "+Inf": 16.0}, 0.95, 20.0),  # above all bounds
        ({"10": 0.0, "20": 0.0, "+Inf": 16.0}, 0.5, 20.0),
    ],
)
def test_a_quantile_is_interpolated_in_its_bucket(
    buckets: dict[str, float], fraction: float, expected: float | None
) -> None:
    assert quantile(buckets, fraction) == expected


def test_a_mean_batch() -> None:
    # Two of 1, one of 2, one of 5 or 6.
    assert mean_of_integers({"1.0": 2, "2.0": 3, "4.0": 3, "6.0": 4, "+Inf": 4}) == (1 + 1 + 2 + 5.5) / 4
    assert mean_of_integers({}) is None

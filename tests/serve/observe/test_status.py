"""What is made of the exposition text of several nodes, which is written by hand here."""

import pytest

from roadseg_serve.observe.status import Look, Status, mean_of_whole_numbers, moment_of, parse, quantile, summarise

STEPS = ("decode", "infer", "encode")
HEALTHY = {"Model": ("HEALTHY", {"RUNNING": 2})}


def histogram(name: str, labels: str, *counts: int) -> str:
    """Of the bounds 10, 20, 50 and infinity."""
    return "".join(
        f'{name}_bucket{{{labels},le="{le}"}} {count}\n'
        for le, count in zip(("10.0", "20.0", "50.0", "+Inf"), counts, strict=True)
    )


def steps_of(worker: str, *counts: int) -> str:
    labels = f'WorkerId="{worker}",deployment="Ingress"'
    return "".join(
        histogram("ray_roadseg_stage_latency_ms", f'{labels},stage="{step}"', *counts) for step in ("infer", "encode")
    )


def posts(status: int, num: int) -> str:
    return f'ray_serve_num_http_requests_total{{method="POST",route="/upload",status_code="{status}"}} {num}\n'


def look(time_s: float, *texts: str, problems: tuple[str, ...] = ()) -> Look:
    series = {key: value for n, text in enumerate(texts) for key, value in parse(text, f"node-{n}").items()}
    return Look(time_s, series, HEALTHY, problems)


def status_of(*looks: Look) -> Status:
    return summarise(looks, STEPS)


def test_only_what_matters_is_read() -> None:
    text = (
        "# HELP ray_node_mem_used bytes\n# TYPE ray_node_mem_used gauge\nray_node_mem_used 7\n"
        "# HELP ray_roadseg_model_loaded which\n# TYPE ray_roadseg_model_loaded gauge\n"
        'ray_roadseg_model_loaded{model="a \\"b\\"",version="1"} 1.0\n'
        'ray_roadseg_model_loaded_more{model="c"} 1.0\n'
    )
    key = ("ray_roadseg_model_loaded", (("model", 'a "b"'), ("node", "n"), ("version", "1")))
    assert parse(text, "n") == {key: 1.0}
    assert parse("", "n") == {}


def test_rates_are_of_all_nodes_and_replicas() -> None:
    before = look(100, steps_of("a", 0, 10, 10, 10) + posts(200, 10), steps_of("b", 1, 1, 1, 1))
    # Twenty more on one node, ten on the other: one a second. Those that were there before do not count.
    now = look(130, steps_of("a", 0, 30, 30, 30) + posts(200, 30), steps_of("b", 1, 1, 11, 11) + posts(503, 10))
    status = status_of(before, now)
    assert (status.window_s, status.pictures_per_s) == (30, 1.0)
    assert (status.requests, status.failed_share) == ({"200": 20, "503": 10}, 10 / 30)
    # Of 30, 20 lie between 10 and 20, 10 between 20 and 50: half at 10 + 10 * 15/20, 28.5 at 20 + 30 * 8.5/10.
    assert status.latency_ms["infer"].model_dump() == {"p50": 17.5, "p95": 45.5}
    assert list(status.latency_ms) == ["infer", "encode"]  # no picture was decoded, and no total is known
    assert moment_of(status).pictures_per_s == 1.0


def test_a_replica_that_began_anew_counts_from_nothing_and_one_that_went_takes_nothing_away() -> None:
    before = look(0, steps_of("a", 90, 90, 90, 90) + steps_of("gone", 50, 50, 50, 50))
    now = look(20, steps_of("a", 4, 4, 4, 4) + steps_of("new", 6, 6, 6, 6))
    assert status_of(before, now).pictures_per_s == 0.5


def test_what_is_watched_for_too_short_a_time_has_no_rates() -> None:
    status = status_of(look(0, posts(500, 5)), look(14.9, posts(500, 9) + steps_of("a", 1, 1, 1, 1)))
    assert (status.window_s, status.pictures_per_s, status.failed_share, status.requests) == (0, None, None, {})
    assert status.latency_ms == {}


def test_what_is_older_than_a_minute_is_not_in_the_window() -> None:
    looks = [look(time_s, posts(200, num)) for time_s, num in ((0, 0), (40, 70), (61, 100), (100, 130))]
    assert (status_of(*looks).window_s, status_of(*looks).requests) == (60, {"200": 60})


def test_refusals_are_counted_by_reason() -> None:
    def refused(kind: str, replica: str, num: int) -> str:
        return f'ray_roadseg_rejected_uploads_total{{reason="{kind}",replica="{replica}"}} {num}\n'

    before = look(0, refused("not-an-image", "a", 3) + refused("overloaded", "a", 2))
    by_ray = 'ray_roadseg_refused_by_ray_total{reason="overloaded"} 4\n'
    texts = [refused("not-an-image", "a", 5), refused("not-an-image", "b", 1), refused("overloaded", "a", 3), by_ray]
    assert status_of(before, look(20, "".join(texts))).refusals == {"not-an-image": 3, "overloaded": 5}


def test_stages_have_their_replicas_and_queues() -> None:
    text = (
        'ray_serve_autoscaling_target_replicas{deployment="Model"} 3\n'
        'ray_serve_replica_processing_queries{deployment="Model",replica="a"} 4\n'
        'ray_serve_replica_processing_queries{deployment="Model",replica="b"} 5\n'
        'ray_serve_deployment_queued_queries{deployment="Model",handle="x"} 2\n'
        'ray_serve_batch_queue_length{deployment="Model",replica="a"} 1\n'
        'ray_roadseg_model_loaded{model="road",version="1",replica="a"} 1\n'
        'ray_roadseg_model_loaded{model="road",version="2",replica="b"} 1\n'
    )
    status = status_of(look(0, text, problems=("one is silent",)))
    assert [stage.model_dump() for stage in status.deployments] == [
        {"name": "Model", "state": "HEALTHY", "target": 3, "replicas": {"RUNNING": 2}, "working": 9, "waiting": 3}
    ]
    assert [(model.version, model.replicas) for model in status.models] == [("1", 1), ("2", 1)]
    assert status.problems == ["one is silent"]
    assert moment_of(status).waiting == 3


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({"10": 0.0, "+Inf": 0.0}, 0.5, None),
        ({}, 0.5, None),
        ({"10": 4.0, "20": 8.0, "+Inf": 8.0}, 0.25, 5.0),
        ({"10": 4.0, "20": 8.0, "+Inf": 8.0}, 0.75, 15.0),
        ({"10": 4.0, "20": 4.0, "40": 8.0, "+Inf": 8.0}, 0.75, 30.0),  # none is between 10 and 20
        ({"10": 4.0, "20": 8.0, "+Inf": 16.0}, 0.95, 20.0),  # above all bounds
    ],
)
def test_a_quantile_is_interpolated_in_its_bucket(
    buckets: dict[str, float], share: float, expected: float | None
) -> None:
    assert quantile(buckets, share) == expected


def test_a_mean_batch() -> None:
    # Two of 1, one of 2, one of 5 or 6.
    assert mean_of_whole_numbers({"1.0": 2, "2.0": 3, "4.0": 3, "6.0": 4, "+Inf": 4}) == (1 + 1 + 2 + 5.5) / 4
    assert mean_of_whole_numbers({}) is None

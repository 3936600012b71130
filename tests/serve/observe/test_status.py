"""The status from the exposition text of several nodes, which is written by hand here, and when snapshots are taken."""

import asyncio
import threading
import time

import pytest

from roadseg_serve.errors import ModelUnavailableError
from roadseg_serve.observe import snapshot as snapshot_module
from roadseg_serve.observe import status as module
from roadseg_serve.observe.prometheus import parse
from roadseg_serve.observe.status import NAMES, Snapshot, Status, StatusMonitor, moment_of, summarise
from tests.server import free_port

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


def snapshot(time_s: float, *texts: str, problems: tuple[str, ...] = ()) -> Snapshot:
    series = {key: value for n, text in enumerate(texts) for key, value in parse(text, NAMES, node=f"node-{n}").items()}
    return Snapshot(time_s, series, HEALTHY, problems)


def status_of(*snapshots: Snapshot) -> Status:
    return summarise(snapshots[0], snapshots[-1], STEPS)


def test_rates_are_of_all_nodes_and_replicas() -> None:
    before = snapshot(100, steps_of("a", 0, 10, 10, 10) + posts(200, 10), steps_of("b", 1, 1, 1, 1))
    # Twenty more on one node, ten on the other: one a second. Those that were there before do not count.
    now = snapshot(130, steps_of("a", 0, 30, 30, 30) + posts(200, 30), steps_of("b", 1, 1, 11, 11) + posts(503, 10))
    status = status_of(before, now)
    assert (status.window_s, status.pictures_per_s) == (30, 1.0)
    assert (status.requests, status.failed_share) == ({"200": 20, "503": 10}, 10 / 30)
    # Of 30, 20 lie between 10 and 20, 10 between 20 and 50: half at 10 + 10 * 15/20, 28.5 at 20 + 30 * 8.5/10.
    assert status.latency_ms["infer"].model_dump() == {"p50": 17.5, "p95": 45.5}
    assert list(status.latency_ms) == ["infer", "encode"]  # no picture was decoded, and no total is known
    assert moment_of(status).pictures_per_s == 1.0


def test_a_restarted_replica_counts_from_zero_and_a_lost_one_subtracts_nothing() -> None:
    before = snapshot(0, steps_of("a", 90, 90, 90, 90) + steps_of("gone", 50, 50, 50, 50))
    now = snapshot(20, steps_of("a", 4, 4, 4, 4) + steps_of("new", 6, 6, 6, 6))
    assert status_of(before, now).pictures_per_s == 0.5


def test_there_are_no_rates_over_a_short_time() -> None:
    status = status_of(snapshot(0, posts(500, 5)), snapshot(14.9, posts(500, 9) + steps_of("a", 1, 1, 1, 1)))
    assert (status.window_s, status.pictures_per_s, status.failed_share, status.requests) == (0, None, None, {})
    assert status.latency_ms == {}


def test_refusals_are_counted_by_reason() -> None:
    def refused(kind: str, replica: str, num: int) -> str:
        return f'ray_roadseg_rejected_uploads_total{{reason="{kind}",replica="{replica}"}} {num}\n'

    before = snapshot(0, refused("not-an-image", "a", 3) + refused("overloaded", "a", 2))
    by_ray = 'ray_roadseg_refused_by_ray_total{reason="overloaded"} 4\n'
    texts = [refused("not-an-image", "a", 5), refused("not-an-image", "b", 1), refused("overloaded", "a", 3), by_ray]
    assert status_of(before, snapshot(20, "".join(texts))).refusals == {"not-an-image": 3, "overloaded": 5}


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
    status = status_of(snapshot(0, text, problems=("one is silent",)))
    assert [stage.model_dump() for stage in status.deployments] == [
        {"name": "Model", "state": "HEALTHY", "target": 3, "replicas": {"RUNNING": 2}, "working": 9, "waiting": 3}
    ]
    assert [(model.version, model.replicas) for model in status.models] == [("1", 1), ("2", 1)]
    assert status.problems == ["one is silent"]
    assert moment_of(status).waiting == 3


class Snapshots:
    """Gives snapshots at these times, and then at the present."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self.num = 0
        self._snapshots = list(snapshots)

    def __call__(self) -> Snapshot:
        self.num += 1
        return self._snapshots.pop(0) if self._snapshots else snapshot(time.time())


def ask(monitor: StatusMonitor, monkeypatch: pytest.MonkeyPatch) -> Status:
    """The status after `PERIOD_S`."""
    monkeypatch.setattr(module, "PERIOD_S", 0.0)
    return asyncio.run(monitor.status())


def test_nobody_asks_and_nothing_is_done() -> None:
    snapshots = Snapshots()
    StatusMonitor((), snapshots)
    time.sleep(0.1)
    assert snapshots.num == 0


def test_a_snapshot_serves_everyone_who_asks_within_the_period(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = Snapshots()
    monitor = StatusMonitor((), snapshots)

    async def ask_together() -> list[Status]:
        return await asyncio.gather(*(monitor.status() for _ in range(5)))

    asyncio.run(ask_together())
    asyncio.run(ask_together())
    assert snapshots.num == 1
    ask(monitor, monkeypatch)
    assert snapshots.num == 2


def test_rates_are_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    nums = {0: 0, 39: 50, 41: 70, 61: 100, 101: 130}
    monitor = StatusMonitor((), Snapshots(*(snapshot(time_s, posts(200, num)) for time_s, num in nums.items())))
    found = [ask(monitor, monkeypatch) for _ in nums]
    assert [(status.window_s, status.requests.get("200", 0)) for status in found] == [
        (0, 0), (39, 50), (41, 70), (61, 100), (60, 60),
    ]  # fmt: skip


def test_whoever_asks_every_few_minutes_gets_rates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = StatusMonitor((), Snapshots(snapshot(0, posts(200, 5)), snapshot(300, posts(200, 605))))
    ask(monitor, monkeypatch)
    status = ask(monitor, monkeypatch)
    assert (status.window_s, status.requests) == (300, {"200": 600})


def test_history_is_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = StatusMonitor((), Snapshots(snapshot(0), snapshot(200), snapshot(700), snapshot(701)))
    for _ in range(3):
        ask(monitor, monkeypatch)
    status = ask(monitor, monkeypatch)
    assert [moment.time_s for moment in status.history] == [200, 700, 701]
    assert status.window_s == 501


def test_a_node_that_hangs_is_asked_once_and_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    num = 0

    def hang() -> Snapshot:
        nonlocal num
        num += 1
        answers.wait()
        return snapshot(0)

    async def ask_twice() -> Status:
        monitor = StatusMonitor((), hang)
        monkeypatch.setattr(module, "PERIOD_S", 0.0)
        monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
        for _ in range(2):
            with pytest.raises(ModelUnavailableError, match="Try again"):
                await monitor.status()
        monkeypatch.setattr(module, "TIMEOUT_S", 60)
        answers.set()
        return await monitor.status()

    assert asyncio.run(ask_twice()).problems == []
    assert num == 1


def test_a_failure_is_an_error_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Snapshot] = []

    def fail() -> Snapshot:
        if not found:
            raise RuntimeError("Ray is not there")
        return found[0]

    monitor = StatusMonitor((), fail)
    with pytest.raises(ModelUnavailableError, match="Try again"):
        ask(monitor, monkeypatch)
    found.append(snapshot(0))
    assert ask(monitor, monkeypatch).problems == []


def test_a_node_that_is_not_there_is_no_error() -> None:
    assert snapshot_module._scrape(f"http://127.0.0.1:{free_port()}/metrics") is None

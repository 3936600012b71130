"""What Prometheus finds at the node of a real server, after uploads whose answers are known."""

import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client.samples import Sample

from tests.server import EXPORT_S, FORGET_S, Server, total
from tests.uploads import WHOLE
from tests.wire import wait_until


@dataclass(frozen=True)
class Silence:
    """What was exported while nobody asked.

    Attributes:
        loaded: whether the model is loaded, at each look.
        before: everything, at the end.
    """

    loaded: list[float | None]
    before: list[Sample]


@pytest.fixture(scope="module")
def silence(server: Server) -> Silence:
    """Longer than Ray takes to export everything, and to forget a gauge that is not set any more."""
    wait_until(lambda: server.metric("ray_roadseg_model_loaded") is not None)  # exported for the first time
    loaded, deadline_s = [], time.monotonic() + EXPORT_S + FORGET_S
    while time.monotonic() < deadline_s:
        time.sleep(1)
        loaded.append(server.metric("ray_roadseg_model_loaded", model="red", version="1"))
    return Silence(loaded, server.metrics())


def test_the_model_is_told_for_as_long_as_it_is_loaded(silence: Silence) -> None:
    assert len(silence.loaded) > 3
    assert set(silence.loaded) == {1}


def test_uploads_are_counted(server: Server, client: httpx.Client, silence: Silence) -> None:
    for _ in range(3):
        assert client.post("/upload", files={"file": WHOLE}).headers["x-road-share"] == "0.500000"
    assert client.post("/upload?threshold=0", files={"file": WHOLE}).headers["x-road-share"] == "1.000000"
    for _ in range(2):
        assert client.post("/upload", files={"file": b"no picture"}).status_code == 415
    assert client.post("/upload", data={"a": "b"}).status_code == 422
    server.wait_until_quiet()
    now = server.metrics()

    def added(name: str, **labels: str) -> float:
        return (total(now, name, **labels) or 0) - (total(silence.before, name, **labels) or 0)

    assert added("ray_roadseg_rejected_uploads_total", reason="missing-file") == 1
    assert added("ray_roadseg_rejected_uploads_total", reason="not-an-image") == 2
    assert added("ray_roadseg_rejected_uploads_total") == 3
    for stage in ("decode", "resize", "queue", "infer", "encode"):
        assert added("ray_roadseg_stage_latency_ms_count", stage=stage) == 4
        assert added("ray_roadseg_stage_latency_ms_bucket", stage=stage, le="+Inf") == 4
    assert added("ray_roadseg_road_share_count", model="red", version="1") == 4
    # A picture of a half is counted from the boundary at a half on, one that is all road at 1 only.
    shares = [added("ray_roadseg_road_share_bucket", le=le) for le in ("0.4", "0.5", "0.8", "1.0")]
    assert shares == [0, 3, 3, 4]
    # Uploads that came one after another went one by one.
    assert added("ray_roadseg_batch_size_count") == 4
    assert added("ray_roadseg_batch_size_bucket", le="1.0") == 4


def test_what_ray_refuses_is_counted_too(server: Server, client: httpx.Client) -> None:
    def refused() -> float:
        return server.metric("ray_roadseg_refused_by_ray_total", reason="request-timeout") or 0

    before, headers = refused(), {"x-request-timeout-seconds": "0.0001"}
    answer = client.post("/upload", files={"file": WHOLE}, headers=headers)
    assert answer.json()["type"] == "urn:roadseg:request-timeout"
    wait_until(lambda: refused() == before + 1)


def test_the_status_is_of_all_stages(client: httpx.Client) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = client.get("/v1/status").json()
        return found

    wait_until(lambda: status()["models"] == [{"name": "red", "version": "1", "replicas": 1}])
    stages = {stage["name"]: stage for stage in status()["deployments"]}
    assert set(stages) in ({"Fused"}, {"Ingress", "Preprocess", "Model", "Postprocess"})
    for stage in stages.values():
        assert (stage["state"], stage["replicas"], stage["target"]) == ("HEALTHY", {"RUNNING": 1}, 1)
    assert status()["problems"] == []

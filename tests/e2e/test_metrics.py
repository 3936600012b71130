"""What Prometheus finds at the node of a real server, after uploads whose answers are known."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.uploads import WHOLE
from tests.server import Server, StartServer
from tests.wire import wait_until

ANSWER_TIMEOUT_S = 120
# Ray exports every ten seconds, and forgets a gauge that was not set anew for twenty.
EXPORT_S, FORGET_S = 10, 20


@pytest.fixture(scope="module", params=["staged", "fused"])
def server(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    red_artefact: Path,
) -> Iterator[Server]:
    """The stages each on its own, or all in the process that listens."""
    settings = {"model": str(red_artefact), "form": request.param}
    with start_server(settings=settings) as server:
        server.wait_until_ready()
        yield server


def test_uploads_are_counted(server: Server) -> None:
    def all_batches() -> float | None:
        return server.metric("ray_roadseg_batch_size_count")

    wait_until(lambda: all_batches() is not None)  # /health has asked the model, as the server started
    before = all_batches()
    assert before is not None
    with httpx.Client(base_url=server.url, timeout=ANSWER_TIMEOUT_S) as client:
        for _ in range(3):
            assert client.post("/upload", files={"file": WHOLE}).headers["x-road-share"] == "0.500000"
        assert client.post("/upload?threshold=0", files={"file": WHOLE}).headers["x-road-share"] == "1.000000"
        for _ in range(2):
            assert client.post("/upload", files={"file": b"no picture"}).status_code == 415
        assert client.post("/upload", data={"a": "b"}).status_code == 422
    # What happened last is the last to be exported.
    wait_until(lambda: server.metric("ray_roadseg_rejected_uploads_total", reason="missing-file") is not None)
    wait_until(lambda: all_batches() != before)
    assert server.metric("ray_roadseg_rejected_uploads_total", reason="missing-file") == 1
    assert server.metric("ray_roadseg_rejected_uploads_total", reason="not-an-image") == 2
    assert server.metric("ray_roadseg_rejected_uploads_total") == 3
    for stage in ("decode", "resize", "queue", "infer", "encode"):
        assert server.metric("ray_roadseg_stage_latency_ms_count", stage=stage) == 4
        assert server.metric("ray_roadseg_stage_latency_ms_bucket", stage=stage, le="+Inf") == 4
    assert server.metric("ray_roadseg_road_share_count", model="red", version="1") == 4
    # A picture of a half is counted from the boundary at a half on, one that is all road at 1 only.
    shares = [server.metric("ray_roadseg_road_share_bucket", le=le) for le in ("0.4", "0.5", "0.8", "1.0")]
    assert shares == [0, 3, 3, 4]
    # Uploads that came one after another went one by one.
    assert all_batches() == before + 4
    assert server.metric("ray_roadseg_batch_size_bucket", le="1.0") == before + 4


def test_what_ray_refuses_is_counted_too(server: Server) -> None:
    headers = {"x-request-timeout-seconds": "0.0001"}
    answer = httpx.post(f"{server.url}/upload", files={"file": WHOLE}, headers=headers, timeout=ANSWER_TIMEOUT_S)
    assert answer.json()["type"] == "urn:roadseg:request-timeout"
    wait_until(lambda: server.metric("ray_roadseg_refused_by_ray_total", reason="request-timeout") == 1)


def test_the_status_is_of_all_stages(server: Server) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{server.url}/v1/status", timeout=ANSWER_TIMEOUT_S).json()
        return found

    wait_until(lambda: status()["models"] == [{"name": "red", "version": "1", "replicas": 1}])
    stages = {stage["name"]: stage for stage in status()["deployments"]}
    assert set(stages) in ({"Fused"}, {"Ingress", "Preprocess", "Model", "Postprocess"})
    for stage in stages.values():
        assert (stage["state"], stage["replicas"], stage["target"]) == ("HEALTHY", {"RUNNING": 1}, 1)
    assert status()["problems"] == []


def test_the_model_is_told_for_as_long_as_it_is_loaded(server: Server) -> None:
    time.sleep(EXPORT_S + FORGET_S)  # in which nobody asks
    assert server.metric("ray_roadseg_model_loaded", model="red", version="1") == 1

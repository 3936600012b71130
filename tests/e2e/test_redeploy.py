"""The served version is changed in place while uploads keep coming: as on a cluster, by putting a Serve config."""

import io
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.head import DEADLINE_S, Head
from tests.red import red_manifest, red_program
from tests.seaweed import BUCKET, Seaweed

NUM_CLIENTS = 4
PAUSE_S = 0.05  # leaves the replicas that start some of the machine
# How long the model waits for a second frame, and an upload is in it; a probe of its health may take 5 s.
GATHER_S = 3.0
WAITING = {"predict": {"batch_wait_timeout_s": GATHER_S, "max_batch_size": 2}}

# Red is 0, 128 and 255 in three bands. Version 1 takes the last one for road, version 2 the last two: each threshold is
# half-way between two bands, so that the blur of resizing leaves the edge where it is.
BANDS = {"dark": slice(0, 64), "middle": slice(64, 128), "bright": slice(128, 256)}
VERSIONS: dict[str, dict[str, Any]] = {
    "1": {"threshold": 0.75, "short_side_px": 64, "road_from": 128},
    "2": {"threshold": 0.25, "short_side_px": 32, "road_from": 64},
}


def picture() -> bytes:
    image_HWC = np.zeros((128, 256, 3), np.uint8)
    image_HWC[:, BANDS["middle"], 0] = 128
    image_HWC[:, BANDS["bright"], 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def road_of(version: str) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    road_HW = np.zeros((128, 256), bool)
    road_HW[:, VERSIONS[version]["road_from"] :] = True
    return road_HW


@pytest.fixture(scope="module")
def publish(seaweed: Seaweed) -> Callable[..., str]:
    """Put a version into the store; keywords replace manifest fields. Gives its URI."""

    def put(version: str, **replaced: Any) -> str:
        files = {"model.onnx": red_program(), "model.pt2": b"not loaded on CPU"}
        manifest = red_manifest(files) | {"version": version} | replaced
        for name, data in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            seaweed.put(f"models/red/{version}/{name}", data)
        return f"s3://{BUCKET}/models/red/{version}"

    return put


@pytest.fixture(scope="module")
def versions(publish: Callable[..., str]) -> dict[str, str]:
    """URIs of the versions of `VERSIONS`."""
    uris = {}
    for version, rules in VERSIONS.items():
        size = {"short_side_px": rules["short_side_px"], "max_long_side_px": 256, "multiple_px": 16}
        source = red_manifest({})["input"] | {"size": size}
        uris[version] = publish(version, threshold=rules["threshold"], input=source)
    return uris


@dataclass
class Load:
    """What came of constant uploads.

    Attributes:
        answers: how often each version answered with its own mask.
        faults: everything else.
    """

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def upload(self, client: httpx.Client) -> None:
        """Upload once, and hold mask and header against each other."""
        try:
            response = client.post("/upload", files={"file": ("bands.png", picture())})
        except httpx.HTTPError as error:
            self.faults.append(repr(error))
            return
        version = response.headers.get("X-Model-Version")
        if response.status_code != 200 or version not in VERSIONS:
            self.faults.append(f"{response.status_code} {version}: {response.text[:200]}")
            return
        road_HW = np.asarray(Image.open(io.BytesIO(response.content))) >= 128
        if np.array_equal(road_HW, road_of(version)):
            self.answers[version] += 1
        else:
            self.faults.append(f"version {version} has a mask with road in {road_HW.mean():.3f} of the picture")

    def wait_until_only(self, version: str) -> None:
        """Wait until twenty answers in a row are of this version: it has taken over, or went on."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.faults and time.monotonic() < deadline:
            before = self.answers.copy()
            time.sleep(0.5)
            while self.answers.total() < before.total() + 20 and not self.faults and time.monotonic() < deadline:
                time.sleep(0.05)
            if set(self.answers - before) == {version}:
                return
        assert not self.faults, self.faults[:5]
        pytest.fail(f"version {version} has not taken over after {DEADLINE_S} s: {self.answers}")


@contextmanager
def constant_load(url: str) -> Iterator[Load]:
    """Upload from several clients at once, without a second attempt, while the block lasts."""
    load, stopped = Load(), threading.Event()

    def go_on() -> None:
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
            while not stopped.wait(PAUSE_S):
                load.upload(client)

    threads = [threading.Thread(target=go_on) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module", autouse=True)
def cluster(head: Head) -> Iterator[Head]:
    """Serve is gone when the module is done."""
    yield head
    head.stop_serving()


def test_a_version_that_is_not_whole_is_refused_before_any_replica_is_touched(
    cluster: Head, versions: dict[str, str], publish: Callable[..., str], seaweed: Seaweed
) -> None:
    cut = publish("cut")
    seaweed.put("models/red/cut/model.onnx", red_program()[:-1])
    cluster.serve(versions["1"])
    replicas = cluster.replicas()
    with constant_load(cluster.url) as load:
        cluster.put(cut)
        text = cluster.wait_for("DEPLOY_FAILED", f"models/red/cut/model.onnx has {len(red_program()) - 1} bytes")
        assert "ArtefactError" in text
        load.wait_until_only("1")
        cluster.serve(versions["1"])  # while it is refused, Ray tells of no replicas
        assert cluster.replicas() == replicas
    assert load.faults == []


def test_a_damage_that_only_a_replica_can_find_leaves_the_old_ones_answering(
    cluster: Head, versions: dict[str, str], publish: Callable[..., str], seaweed: Seaweed
) -> None:
    damaged = publish("damaged")
    seaweed.put("models/red/damaged/model.onnx", red_program()[:-1] + b"x")
    cluster.serve(versions["1"])
    with constant_load(cluster.url) as load:
        cluster.put(damaged)
        text = cluster.wait_for("DEPLOY_FAILED", "models/red/damaged/model.onnx is damaged")
        assert "ArtefactError" in text
        load.wait_until_only("1")
        cluster.put(versions["2"])
        load.wait_until_only("2")
        cluster.wait_for("RUNNING")
    assert load.faults == []


def test_versions_change_places_without_a_fault(cluster: Head, versions: dict[str, str]) -> None:
    """There as in the test before, which ends with a change from 1 to 2, and back."""
    cluster.serve(versions["2"])
    with constant_load(cluster.url) as load:
        load.wait_until_only("2")
        cluster.put(versions["1"], **WAITING)
        load.wait_until_only("1")
        cluster.wait_for("RUNNING")
    assert load.faults == []
    assert set(load.answers) == set(VERSIONS)


def test_a_client_whose_replica_is_killed_is_told_to_send_it_again(cluster: Head, versions: dict[str, str]) -> None:
    def upload() -> httpx.Response:
        return httpx.post(f"{cluster.url}/upload", files={"file": ("bands.png", picture())}, timeout=DEADLINE_S)

    cluster.serve(versions["1"], **WAITING)
    assert upload().status_code == 200  # the stages know each other
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(upload)
        time.sleep(GATHER_S / 2)
        (pid,) = cluster.pids("ServeReplica:roadseg:Model")
        os.kill(pid, signal.SIGKILL)
        refusal = answer.result()
    assert (refusal.status_code, refusal.json()["type"]) == (503, "urn:roadseg:model-unavailable")
    assert refusal.headers["content-type"] == "application/problem+json"
    assert int(refusal.headers["retry-after"]) >= 1
    assert "Send it again" in refusal.json()["detail"]
    # Meanwhile another replica starts, and the next client waits for it.
    assert upload().status_code == 200


def test_fused_stages_change_places_without_a_fault(cluster: Head, versions: dict[str, str]) -> None:
    cluster.serve(versions["1"], form="fused")
    with constant_load(cluster.url) as load:
        load.wait_until_only("1")
        cluster.put(versions["2"], form="fused")
        load.wait_until_only("2")
    assert load.faults == []

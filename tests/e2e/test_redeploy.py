"""The served version is changed in place while uploads keep coming: as on a cluster, by putting a Serve config."""

import io
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.red import red_manifest, red_program
from tests.seaweed import BUCKET, Seaweed, free_ports

HEAD = Path(__file__).with_name("ray_head.py")
DEADLINE_S = 240  # generous: the machine may be busy
NUM_STARTS = 3  # Ray gives each of its own processes 15 s to start, which a busy machine may not keep
NUM_CLIENTS = 4
PAUSE_S = 0.05  # leaves the replicas that start some of the machine

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


@dataclass
class Cluster:
    """Ray with a door for configs; Serve answers on another port.

    Attributes:
        url: where Serve answers.
    """

    config_port: int
    serve_port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.serve_port}"

    def put(self, model: str, *, form: str = "staged") -> None:
        """Ask for a version; what comes of it is in the status."""
        config = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.serve_port},
            "applications": [
                {
                    "name": "roadseg",
                    "import_path": "roadseg_serve.app:build",
                    "args": {"model": model, "form": form},
                }
            ],
        }
        self._http("PUT", json=config)

    def status(self) -> tuple[str, str]:
        """Of the application: the word, and everything that is said about it."""
        application = self._http("GET").json().get("applications", {}).get("roadseg", {})
        messages = [stage["message"] for stage in application.get("deployments", {}).values()]
        return application.get("status", ""), "\n".join([application.get("message", ""), *messages])

    def replicas(self) -> set[str]:
        """Of all stages."""
        stages = self._http("GET").json()["applications"]["roadseg"]["deployments"].values()
        return {replica["replica_id"] for stage in stages for replica in stage["replicas"]}

    def wait_for(self, wanted: str, says: str = "") -> str:
        """Wait until the application has this status, and its messages hold these words; gives them."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            status, text = self.status()
            if status == wanted and says in text:
                return text
            time.sleep(0.2)
        pytest.fail(f"not {wanted} {says!r} after {DEADLINE_S} s but {self.status()}")

    def _http(self, method: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.config_port}/api/serve/applications/"
        response = httpx.request(method, url, headers=headers, timeout=DEADLINE_S, **options)
        assert response.status_code == 200, response.text
        return response


@contextmanager
def start_head(port: int, env: dict[str, str], log: Path) -> Iterator[None]:
    """Start `ray_head.py`, and end it when the block is left."""
    for _ in range(NUM_STARTS):
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, HEAD, str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=env,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            if process.stdout.readline() == b"ready\n":
                yield
                return
        finally:
            process.communicate(timeout=DEADLINE_S)  # it ends with its standard input
    pytest.fail(f"Ray does not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def cluster(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An empty cluster on this machine, whose processes know the S3 server."""
    config_port, serve_port = free_ports(2)
    cluster = Cluster(config_port, serve_port, secrets.token_hex(32))
    folder = tmp_path_factory.mktemp("cluster")
    env = (
        os.environ
        | seaweed.env
        | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": cluster.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": str(DEADLINE_S),
            "ROADSEG_CACHE": str(folder / "cache"),
        }
    )
    with start_head(config_port, env, folder / "log"):
        yield cluster


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


@pytest.fixture
def damaged_folder(write_red_artefact: Callable[..., Path], tmp_path: Path) -> Path:
    """A version in a folder whose program has the right size."""
    folder = write_red_artefact(tmp_path / "1")
    (folder / "model.onnx").write_bytes(red_program()[:-1] + b"x")
    return folder


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


def test_versions_change_places_without_a_fault(cluster: Cluster, versions: dict[str, str]) -> None:
    cluster.put(versions["1"])
    cluster.wait_for("RUNNING")
    with constant_load(cluster.url) as load:
        load.wait_until_only("1")
        for version in ("2", "1"):
            cluster.put(versions[version])
            load.wait_until_only(version)
            cluster.wait_for("RUNNING")
    assert load.faults == []
    assert set(load.answers) == set(VERSIONS)


def test_a_version_that_is_not_whole_is_refused_before_any_replica_is_touched(
    cluster: Cluster, versions: dict[str, str], publish: Callable[..., str], seaweed: Seaweed, damaged_folder: Path
) -> None:
    cut = publish("cut")
    seaweed.put("models/red/cut/model.onnx", red_program()[:-1])
    refusals = {
        publish("next", schema_version=2): "models/red/next/manifest.json breaks the artefact contract",
        cut: f"models/red/cut/model.onnx has {len(red_program()) - 1} bytes",
        str(damaged_folder): f"{damaged_folder}/model.onnx is damaged",
    }
    cluster.put(versions["1"])
    cluster.wait_for("RUNNING")
    replicas = cluster.replicas()
    with constant_load(cluster.url) as load:
        for model, says in refusals.items():
            cluster.put(model)
            assert "ArtefactError" in cluster.wait_for("DEPLOY_FAILED", says)
            load.wait_until_only("1")
        cluster.put(versions["1"])
        cluster.wait_for("RUNNING")
        assert cluster.replicas() == replicas
        load.wait_until_only("1")
    assert load.faults == []


def test_a_damage_that_only_a_replica_can_find_leaves_the_old_ones_answering(
    cluster: Cluster, versions: dict[str, str], publish: Callable[..., str], seaweed: Seaweed
) -> None:
    damaged = publish("damaged")
    seaweed.put("models/red/damaged/model.onnx", red_program()[:-1] + b"x")
    cluster.put(versions["1"])
    cluster.wait_for("RUNNING")
    with constant_load(cluster.url) as load:
        cluster.put(damaged)
        text = cluster.wait_for("DEPLOY_FAILED", "models/red/damaged/model.onnx is damaged")
        assert "ArtefactError" in text
        load.wait_until_only("1")
        cluster.put(versions["2"])
        load.wait_until_only("2")
    assert load.faults == []


def test_fused_stages_change_places_without_a_fault(cluster: Cluster, versions: dict[str, str]) -> None:
    cluster.put(versions["1"], form="fused")
    cluster.wait_for("RUNNING")
    with constant_load(cluster.url) as load:
        load.wait_until_only("1")
        cluster.put(versions["2"], form="fused")
        load.wait_until_only("2")
    assert load.faults == []

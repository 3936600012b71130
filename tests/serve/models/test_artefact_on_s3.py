"""Model versions on a real S3 server: fetched once, verified, cached, and refused if damaged."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roadseg_serve.errors import ArtefactError, StoreUnreachableError
from roadseg_serve.models import artefact, cache, store
from tests.red import red_manifest, red_program
from tests.seaweed import BUCKET, Seaweed, free_ports
from tests.wire import Wire, wait_until

ONNX = ["model.onnx"]
LARGE = bytes(range(256)) * 4_000  # model.pt2: 1 MB, so that it can be cut off in its middle
Publish = Callable[..., str]


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test."""
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def wire(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What this test asks of the server passes through it."""
    with Wire(seaweed.url) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield wire


@pytest.fixture
def publish(seaweed: Seaweed, request: pytest.FixtureRequest) -> Publish:
    """Put a red model into the store; keywords replace manifest fields. Gives its URI."""

    def put(version: str = "1", **replaced: Any) -> str:
        prefix = f"{request.node.name}/red/{version}"
        files = {"model.onnx": red_program(), "model.pt2": LARGE}
        for name, data in files.items():
            seaweed.put(f"{prefix}/{name}", data)
        manifest = red_manifest(files) | {"version": version} | replaced
        seaweed.put(f"{prefix}/manifest.json", json.dumps(manifest).encode())
        return f"s3://{BUCKET}/{prefix}"

    return put


def read(uri: str, files: list[str] | None = None) -> artefact.Artefact:
    return artefact.read(artefact.resolve(uri), files)


def reader(uri: str) -> "subprocess.Popen[str]":
    """A process that reads the whole version and says where it is."""
    code = "import sys; from roadseg_serve.models import artefact as a; print(a.read(a.resolve(sys.argv[1])).folder)"
    return subprocess.Popen(
        [sys.executable, "-c", code, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def finish(process: "subprocess.Popen[str]") -> Path:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return Path(out.strip())


def key(uri: str, name: str) -> str:
    return f"{uri.removeprefix(f's3://{BUCKET}/')}/{name}"


def test_a_version_is_fetched_once_and_verified(publish: Publish, wire: Wire, models: Path) -> None:
    uri = publish()
    version = read(uri)
    assert version.folder.parent == models
    assert (version.manifest.name, version.manifest.version) == ("red", "1")
    assert version.path_of("model.onnx").read_bytes() == red_program()
    assert (version.folder / "model.pt2").read_bytes() == LARGE
    assert read(uri).folder == version.folder
    assert [wire.count(f"GET .*/{name}") for name in ("manifest.json", "model.onnx", "model.pt2")] == [2, 1, 1]


def test_only_what_is_needed_is_fetched(publish: Publish, wire: Wire) -> None:
    uri = publish()
    version = read(uri, ONNX)
    assert {path.name for path in version.folder.iterdir()} == {"manifest.json", "model.onnx", ".used"}
    assert wire.count(r"model\.pt2") == 0
    read(uri, ["model.pt2"])
    assert [wire.count(f"GET .*/{name}") for name in ("model.onnx", "model.pt2")] == [1, 1]


def test_a_check_fetches_no_weights(publish: Publish, wire: Wire, models: Path) -> None:
    assert artefact.check(artefact.resolve(publish())).version == "1"
    assert wire.count("GET") == 1
    assert [wire.count(f"HEAD .*/{name}") for name in ("model.onnx", "model.pt2")] == [1, 1]
    assert not models.exists()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("manifest.json", None, r"manifest\.json is missing"),
        ("manifest.json", b"{}", "breaks the artefact contract"),
        ("model.pt2", None, r"model\.pt2 is missing"),
        ("model.pt2", LARGE[:-1], "has 1023999 bytes, but the manifest says 1024000"),
        ("model.pt2", LARGE[:-1] + b"x", r"red/1/model\.pt2 is damaged: its sha256 differs from the manifest"),
    ],
)
def test_a_damaged_version_is_refused_and_never_kept(
    publish: Publish, seaweed: Seaweed, name: str, data: bytes | None, says: str
) -> None:
    uri = publish()
    if data is None:
        seaweed.client.delete_object(Bucket=BUCKET, Key=key(uri, name))
    else:
        seaweed.put(key(uri, name), data)
    if "sha256" not in says:  # for that it would have to be fetched
        with pytest.raises(ArtefactError, match=says):
            artefact.check(artefact.resolve(uri))
    for _ in range(2):
        with pytest.raises(ArtefactError, match=says) as caught:
            read(uri)
        assert "\n" not in str(caught.value)
        assert not list(cache.root().glob("*/model.pt2*"))


def test_processes_that_start_together_fetch_once(publish: Publish, wire: Wire) -> None:
    uri = publish()
    wire.stall_after_bytes = 100_000  # manifests and model.onnx pass, model.pt2 does not
    wire.flow.clear()
    processes = [reader(uri) for _ in range(3)]
    wait_until(lambda: wire.count("GET .*/manifest.json") == 3 and wire.count("GET .*/model.pt2") == 1)
    wire.flow.set()
    assert len({finish(process) for process in processes}) == 1
    assert [wire.count(f"GET .*/{name}") for name in ("model.onnx", "model.pt2")] == [1, 1]


def test_a_killed_process_leaves_no_file_that_is_used(publish: Publish, wire: Wire, models: Path) -> None:
    uri = publish()
    wire.stall_after_bytes = 100_000
    wire.flow.clear()
    first = reader(uri)
    wait_until(lambda: any(path.stat().st_size for path in models.glob("*/model.pt2.partial")))
    second = reader(uri)
    wait_until(lambda: wire.count("GET .*/manifest.json") == 2)
    assert second.poll() is None  # it waits
    first.kill()
    first.communicate()
    assert not list(models.glob("*/model.pt2"))
    wire.flow.set()
    folder = finish(second)
    assert (folder / "model.pt2").read_bytes() == LARGE
    assert wire.count("GET .*/model.pt2") == 2


def test_leftovers_of_a_killed_process_are_removed(publish: Publish) -> None:
    uri = publish()
    version = read(uri, ONNX)
    (version.folder / "model.pt2.partial").write_bytes(LARGE[:1000])
    read(uri, ONNX)
    assert not (version.folder / "model.pt2.partial").exists()


def test_a_download_survives_a_restart_of_the_server(
    publish: Publish, wire: Wire, seaweed: Seaweed, models: Path
) -> None:
    uri = publish()
    wire.stall_after_bytes = 100_000
    wire.flow.clear()
    process = reader(uri)
    wait_until(lambda: any(path.stat().st_size for path in models.glob("*/model.pt2.partial")))
    seaweed.kill()
    try:
        wire.flow.set()  # what was under way passes, and then nothing
    finally:
        seaweed.start()
    assert (finish(process) / "model.pt2").read_bytes() == LARGE


def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(
    publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    uri = publish()
    version = read(uri)
    version.path_of("model.onnx").write_bytes(b"damaged")
    assert read(uri).path_of("model.onnx").read_bytes() == red_program()
    assert ["fetching it again" in message for message in caplog.messages] == [True]


def test_a_version_published_twice_is_not_confused(publish: Publish) -> None:
    uri = publish(threshold=0.25)
    first = read(uri)
    assert publish(threshold=0.75) == uri  # against the rule
    second = read(uri)
    assert (first.manifest.threshold, second.manifest.threshold) == (0.25, 0.75)
    assert first.folder != second.folder


def test_an_intact_copy_serves_while_the_store_is_down(
    publish: Publish, seaweed: Seaweed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REQUEST_RETRY_S", 0.5)
    uri, other = publish("1"), publish("2")
    folder = read(uri, ONNX).folder
    read(other)
    seaweed.kill()
    try:
        version = read(uri, ONNX)
        assert (version.folder, version.manifest.version) == (folder, "1")
        assert [message.count("serving red 1 from the cache") for message in caplog.messages] == [1]
        assert artefact.check(artefact.resolve(uri), ONNX).version == "1"
        with pytest.raises(
            StoreUnreachableError,
            match=r"does not answer .* no intact copy .*model\.pt2 is missing",
        ):
            read(uri)
        with pytest.raises(StoreUnreachableError, match="does not answer"):
            read(f"{uri}0", ONNX)
        version.path_of("model.onnx").write_bytes(b"damaged")
        with pytest.raises(StoreUnreachableError, match=r"no intact copy .*model\.onnx has 7 bytes"):
            read(uri, ONNX)
    finally:
        seaweed.start()


def test_a_copy_from_another_server_does_not_count(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "REQUEST_RETRY_S", 0.5)
    uri = publish()
    read(uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        read(uri)


def test_the_cache_is_not_used_when_keys_are_refused(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = publish()
    read(uri)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ArtefactError, match="AWS_SECRET_ACCESS_KEY"):
        read(uri)


def test_a_version_just_read_outlives_many_others(publish: Publish) -> None:
    first = read(publish("first"), ONNX)
    for number in range(cache.MAX_VERSIONS + 1):
        read(publish(str(number)), ONNX)
    assert first.path_of("model.onnx").is_file()

"""A folder on a real S3 server: reading it, and the errors when that fails."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roadseg_serve.errors import ArtefactError, StoreUnreachableError
from roadseg_serve.models import store
from roadseg_serve.models.store import S3Folder
from tests.seaweed import BUCKET, Seaweed, free_ports
from tests.wire import Wire


def test_reads_objects_and_sizes(seaweed: Seaweed, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000  # in several pieces
    seaweed.put("store/files/a b+ü", data)
    folder = S3Folder.at(f"s3://{BUCKET}/store/files/")
    assert str(folder) == f"s3://{BUCKET}/store/files"
    assert folder.read("a b+ü") == data
    assert folder.size_bytes("a b+ü") == 2_560_000
    folder.download("a b+ü", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.usefixtures("seaweed")
def test_a_missing_object_is_an_error(tmp_path: Path) -> None:
    folder = S3Folder.at(f"s3://{BUCKET}/store/nothing")
    for ask in (folder.read, folder.size_bytes, lambda name: folder.download(name, tmp_path / "a")):
        with pytest.raises(ArtefactError, match="store/nothing/a is missing; give the complete folder"):
            ask("a")


@pytest.mark.usefixtures("seaweed")
@pytest.mark.parametrize(
    ("variables", "bucket", "says"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            BUCKET,
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their permissions",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "nobody"},
            BUCKET,
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their permissions",
        ),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, BUCKET, "without keys; set AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, BUCKET, "AWS_ENDPOINT_URL=http://host:port"),
        ({}, "no-such-bucket", "has no bucket 'no-such-bucket'; correct s3://no-such-bucket/store"),
        ({}, "a b", "cannot be read"),
    ],
)
def test_a_refusal_is_one_line_with_the_remedy(
    variables: dict[str, str | None], bucket: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # keys of the machine that runs the tests
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(ArtefactError, match=says) as caught:
        S3Folder(bucket, "store").read("a")
    assert not isinstance(caught.value, StoreUnreachableError)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("seaweed")
def test_a_server_that_is_down_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(StoreUnreachableError, match=f"does not answer at {url} .*; check AWS_ENDPOINT_URL"):
        S3Folder(BUCKET, "store").read("a")


@pytest.mark.usefixtures("seaweed")
def test_a_404_from_another_kind_of_server_does_not_mean_a_missing_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{other.server_port}")
        with pytest.raises(ArtefactError, match=r"cannot be read .*404.* or AWS_ENDPOINT_URL"):
            S3Folder(BUCKET, "store").read("a")
        other.shutdown()


def test_a_busy_server_and_a_broken_connection_are_retried(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 2_000
    seaweed.put("store/large", data)
    with Wire(seaweed.url) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        wire.num_busy = 2
        assert S3Folder(BUCKET, "store").read("large") == data
        assert wire.count("GET") == 3
        wire.num_cuts, wire.cut_after_bytes = 2, 300_000
        S3Folder(BUCKET, "store").download("large", tmp_path / "large")
        assert wire.num_cuts == 0
        assert wire.count("GET") == 6
    assert (tmp_path / "large").read_bytes() == data


def test_a_server_that_stays_busy_is_unreachable(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "REQUEST_RETRY_S", 0.5)
    with Wire(seaweed.url) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        wire.num_busy = 100
        with pytest.raises(StoreUnreachableError, match="503"):
            S3Folder(BUCKET, "store").read("a")
        assert wire.count("GET") > 1

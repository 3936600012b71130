"""Outages of a real S3 server, and pickling."""

import pickle
import threading
import time

import pytest

from roadseg_train.storage.path import storage_path
from roadseg_train.storage.s3 import RayStorage
from tests.seaweed import BUCKET, Seaweed


def test_an_outage_is_survived(seaweed: Seaweed, capsys: pytest.CaptureFixture[str]) -> None:
    place = storage_path(f"s3://{BUCKET}/outage")
    (place / "before").write_text("kept")
    seaweed.kill()

    def restart() -> None:
        time.sleep(5)
        seaweed.start()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        with (place / "state.pt").writing() as path:
            path.write_bytes(b"x" * 10_000_000)
    finally:
        thread.join()
    assert "does not answer" in capsys.readouterr().err
    assert place.names() == ["before", "state.pt"]
    assert len(seaweed.get("outage/state.pt")) == 10_000_000
    assert (place / "before").read_text() == "kept"


def test_the_file_system_for_ray_is_pickled_without_keys(seaweed: Seaweed) -> None:
    pickled = pickle.dumps(RayStorage())
    assert seaweed.env["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    there = pickle.loads(pickled)  # noqa: S301  # our own
    with there.open_output_stream(f"{BUCKET}/ray/run/marker") as stream:
        stream.write(b"x")
    assert seaweed.get("ray/run/marker") == b"x"

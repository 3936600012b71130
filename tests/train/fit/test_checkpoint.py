import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from roadseg_train.fit import checkpoint
from roadseg_train.storage.local import LocalPath
from roadseg_train.storage.path import StoragePath
from roadseg_train.storage.s3 import S3Path
from tests.seaweed import Seaweed


def save(run: StoragePath, step: int) -> None:
    checkpoint.save(run, {"step": step, "w": torch.full((3,), float(step))}, step=step, metrics={"loss": 1.0})


def test_the_newest_is_found_and_old_ones_go(place: StoragePath) -> None:
    for step in (2, 4, 10):
        save(place, step)
    assert place.names() == ["checkpoint_0000004", "checkpoint_0000010"]
    state = checkpoint.read_newest(place)
    assert state is not None
    assert state["step"] == 10
    assert state["w"].tolist() == [10.0, 10.0, 10.0]
    record = json.loads((place / "checkpoint_0000010" / checkpoint.RECORD).read_text())
    assert (record["step"], record["metrics"]) == (10, {"loss": 1.0})


@pytest.mark.parametrize("damage", ["cut", "no state", "no record", "half a record", "nothing but a part"])
def test_a_checkpoint_cut_short_is_never_used(
    place: StoragePath, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    save(place, 2)
    save(place, 4)
    broken = place / "checkpoint_0000004"
    with (broken / checkpoint.STATE).reading() as path:
        shutil.copy(path, tmp_path / checkpoint.STATE)
    record = (broken / checkpoint.RECORD).read_text()
    broken.remove()
    whole = (tmp_path / checkpoint.STATE).read_bytes()
    if damage != "no state":
        (tmp_path / checkpoint.STATE).write_bytes(whole[:-10] if damage == "cut" else whole)
        name = ".partial_state.pt" if damage == "nothing but a part" else checkpoint.STATE
        broken.upload(tmp_path / checkpoint.STATE, name)
    if damage in {"cut", "no state", "half a record"}:
        (broken / checkpoint.RECORD).write_text(record[:20] if damage == "half a record" else record)

    state = checkpoint.read_newest(place)
    assert state is not None
    assert state["step"] == 2
    assert "checkpoint_0000004 was cut short and is not used" in capsys.readouterr().err
    save(place, 4)  # what was left there is written over
    again = checkpoint.read_newest(place)
    assert again is not None
    assert again["step"] == 4
    assert broken.names() == [checkpoint.RECORD, checkpoint.STATE]


def test_an_empty_run_has_none(place: StoragePath) -> None:
    assert checkpoint.read_newest(place) is None


CUT_SHORT = """
import sys, torch
from roadseg_train.fit import checkpoint
from roadseg_train.storage import path as storage
run = storage.storage_path(sys.argv[1])
checkpoint.save(run, {"step": 1}, step=1, metrics={})
checkpoint.save(run, {"step": 2, "w": torch.zeros(75_000_000)}, step=2, metrics={})
"""


def test_a_writer_that_is_killed_leaves_the_former_checkpoint(
    place: StoragePath, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def has_begun() -> bool:
        if isinstance(place, LocalPath):
            return (place.path / checkpoint.folder_name(2) / ".partial_state.pt").exists()
        assert isinstance(place, S3Path)
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        uploads = seaweed.client.list_multipart_uploads(Bucket=place.bucket, Prefix=place.key)
        return "Uploads" in uploads

    environment = os.environ | {"TMPDIR": str(tmp_path)}  # where what it leaves is cleaned away
    writer = subprocess.Popen([sys.executable, "-c", CUT_SHORT, place.uri], env=environment)
    while not has_begun():
        assert writer.poll() is None
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    assert checkpoint.RECORD not in (place / checkpoint.folder_name(2)).names()
    state = checkpoint.read_newest(place)
    assert state == {"step": 1}


FULL_DISK = """
set -e
mount -t tmpfs -o size=600k tmpfs "$1"
shift
exec "$@"
"""
# Checkpoint 1 has 100 kB, the next a megabyte.
FILL_UP = """
import sys, torch
from roadseg_train import cli, errors
from roadseg_train.fit import checkpoint
from roadseg_train.storage import path as storage
run = storage.storage_path(sys.argv[1])
checkpoint.save(run, {"step": 1, "w": torch.zeros(25_000)}, step=1, metrics={})
try:
    checkpoint.save(run, {"step": 2, "w": torch.zeros(250_000)}, step=2, metrics={})
except errors.StorageError as error:
    print(error)
state = checkpoint.read_newest(run)
print(state["step"], run.names(), (run / "checkpoint_0000002").names())
"""


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    private = ("unshare", "--map-root-user", "--mount")  # a mount that only these processes see; needs no privilege
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*private, "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this machine permits no private mounts (unshare --map-root-user --mount)")
    program = (sys.executable, "-c", FILL_UP, disk / "run")
    done = subprocess.run(
        [*private, "bash", "-c", FULL_DISK, "bash", disk, *program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    told, left = done.stdout.splitlines()
    state = disk / "run" / "checkpoint_0000002" / "state.pt"
    assert told.startswith(f"cannot use {state} (No space left on device); free some space")
    assert left == "1 ['checkpoint_0000001', 'checkpoint_0000002'] []"

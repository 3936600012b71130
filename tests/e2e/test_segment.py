"""`roadseg-serve segment` as people run it, in the environment without torch."""

import csv
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.server import ROOT

PROGRAM = ROOT / ".venv" / "serve" / "bin" / "roadseg-serve"
TIMEOUT_S = 120


def draw(path: Path, num_road_columns: int) -> Path:
    """A picture of 96x64 whose left columns are red, which is road."""
    image_HWC = np.zeros((64, 96, 3), np.uint8)
    image_HWC[:, :num_road_columns, 0] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_HWC).save(path)
    return path


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Pictures in two folders, and the folder to stand in."""
    draw(tmp_path / "drive" / "a.png", 24)
    draw(tmp_path / "drive" / "left" / "a.png", 48)
    return tmp_path


@pytest.fixture
def segment(red_artefact: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the command in `tmp_path` with the red model."""

    def run(*words: str | Path, **options: bytes) -> subprocess.CompletedProcess[bytes]:
        command = [PROGRAM, "segment", "--model", red_artefact, *words]
        finished = subprocess.run(
            command, cwd=tmp_path, capture_output=True, timeout=TIMEOUT_S, check=False, input=options.get("stdin")
        )
        assert b"Traceback" not in finished.stderr
        return finished

    return run


Segment = Callable[..., subprocess.CompletedProcess[bytes]]


def test_a_folder(segment: Segment, drive: Path) -> None:
    finished = segment("drive", "--recursive", "--summary", "road.csv")
    assert (finished.returncode, finished.stderr) == (0, b"")
    # 24 of 96 and 48 of 96 columns.
    assert finished.stdout.startswith(b"2 images of 2 files in ")
    assert finished.stdout.endswith(b"mean road share 0.375; written to masks\n")
    assert np.count_nonzero(np.asarray(Image.open(drive / "masks" / "left" / "a.png"))) == 48 * 64
    with (drive / "road.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["path"], row["road_share"]) for row in rows] == [
        ("drive/a.png", "0.250000"),
        ("drive/left/a.png", "0.500000"),
    ]


def test_ray_is_not_even_loaded(red_artefact: Path, drive: Path) -> None:
    program = """if True:
        import sys
        from roadseg_serve.cli import cli
        cli(sys.argv[1:], standalone_mode=False)
        assert "ray" not in sys.modules
        """
    words = ["segment", "--model", str(red_artefact), "--quiet", "drive"]
    command = [str(PROGRAM.with_name("python")), "-c", program, *words]
    finished = subprocess.run(command, cwd=drive, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
    assert (drive / "masks" / "a.png").exists()


def test_a_pipe(segment: Segment, drive: Path) -> None:
    picture = (drive / "drive" / "a.png").read_bytes()
    finished = segment("-", stdin=picture)
    assert (finished.returncode, finished.stderr) == (0, b"")
    (drive / "mask.png").write_bytes(finished.stdout)
    assert np.count_nonzero(np.asarray(Image.open(drive / "mask.png"))) == 24 * 64
    finished = segment("-", stdin=picture[:50])
    assert (finished.returncode, finished.stdout) == (1, b"")
    assert finished.stderr.startswith(b"error: standard input: ")


def test_what_fails_is_named_and_the_rest_is_done(segment: Segment, drive: Path) -> None:
    (drive / "drive" / "b.png").write_bytes(b"no picture")
    (drive / "drive" / "clip.mp4").write_bytes(b"no video")
    finished = segment("drive")
    assert finished.returncode == 1
    first, second = finished.stderr.decode().splitlines()
    assert first.startswith("error: drive/b.png: ")
    assert second.startswith("error: drive/clip.mp4: ")
    assert b"1 image of 1 file" in finished.stdout
    assert b"2 failed" in finished.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("missing.png",), "missing.png does not exist"),
        (("drive/a.png", "--out", "drive"), "would overwrite the input"),
        (("drive/a.png", "drive/left/a.png"), "would both be written to"),
        (("drive", "--summary", "drive/a.png"), "would overwrite the input"),
        (("drive", "-"), "cannot be combined with other paths"),
        (("drive", "--threshold", "2"), "--threshold"),
        ((), "PATH"),
    ],
)
def test_nothing_is_begun_where_something_is_wrong(
    segment: Segment, drive: Path, words: tuple[str, ...], says: str
) -> None:
    before = sorted(drive.rglob("*"))
    finished = segment(*words)
    assert finished.returncode == 2
    assert says in finished.stdout.decode() + finished.stderr.decode()
    assert sorted(drive.rglob("*")) == before


def test_a_missing_model_is_one_clear_line(segment: Segment, drive: Path) -> None:
    finished = segment("drive", "--model", drive)
    assert finished.returncode == 1
    assert finished.stderr.decode().count("\n") == 1
    assert b"manifest.json is missing" in finished.stderr


@pytest.fixture
def many(drive: Path) -> Path:
    """More pictures than are done before a key is pressed."""
    data = (drive / "drive" / "a.png").read_bytes()
    for i in range(20_000):
        (drive / "drive" / f"{i:05d}.png").write_bytes(data)
    return drive


@pytest.fixture
def running(red_artefact: Path, many: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(PROGRAM), "segment", "--model", str(red_artefact), "drive", "--summary", "road.csv"]
    # Who runs the tests in the background of a shell has them ignore Ctrl-C, and all that they start.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, cwd=many, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def test_ctrl_c_leaves_only_complete_masks(running: subprocess.Popen[bytes], many: Path, segment: Segment) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while len(list((many / "masks").glob("*.png"))) < 50:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=TIMEOUT_S)
    assert (running.returncode, errors) == (130, b"")
    assert output.startswith(b"stopped: ")
    masks = list((many / "masks").iterdir())
    assert 50 <= len(masks) < 20_000
    for mask in masks:
        assert mask.suffix == ".png"
        Image.open(mask).load()  # raises if it is truncated
    rows = (many / "road.csv").read_text().splitlines()[1:]
    assert all(row.count(",") == 8 for row in rows)
    # And it goes on from there.
    some = [f"drive/{i:05d}.png" for i in range(5)]
    assert b"5 skipped" in segment(*some, "--skip-existing").stdout


def test_a_terminal_shows_a_bar_and_gets_no_picture(red_artefact: Path, drive: Path) -> None:
    def in_terminal(*words: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 120))
        command = [str(PROGRAM), "segment", "--model", str(red_artefact), *words]
        with subprocess.Popen(command, cwd=drive, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            try:
                while chunk := os.read(ours, 4096):
                    shown += chunk
            except OSError:  # how Linux says that the other side is closed
                pass
            os.close(ours)
        return process.returncode, shown.decode()

    code, shown = in_terminal("drive", "-r")
    assert code == 0
    assert "2/2" in shown
    assert "images/s" in shown
    code, shown = in_terminal("-")
    assert code == 2
    assert "> mask.png" in shown

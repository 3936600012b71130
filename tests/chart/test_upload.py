"""The script of `helm test`, against a server whose response each test chooses."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from docs.scenes import Scene, draw
from tests.chart.conftest import CHART

FILES = CHART / "files"


@contextmanager
def answering(mask: Image.Image, heard: list[tuple[str, dict[str, str], bytes]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            buffer = io.BytesIO()
            mask.save(buffer, "PNG")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def upload(mask: Image.Image, **env: str) -> tuple[subprocess.CompletedProcess[str], tuple[str, dict[str, str], bytes]]:
    heard: list[tuple[str, dict[str, str], bytes]] = []
    with answering(mask, heard) as url:
        done = subprocess.run(
            [sys.executable, FILES / "upload.py", url], capture_output=True, text=True, check=False, env=env
        )
    (request,) = heard
    return done, request


@pytest.fixture(scope="module")
def road() -> Image.Image:
    return Image.open(FILES / "road.png").convert("L")


def test_the_right_mask_passes(road: Image.Image) -> None:
    done, (path, headers, body) = upload(road)
    assert done.returncode == 0, done.stderr
    assert path == "/upload?format=png"
    assert (FILES / "street.jpg").read_bytes() in body
    assert "X-Api-Key" not in headers


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda road: road.point(lambda _: 0), "IoU 0.000"),
        (lambda road: road.point(lambda _: 255), "IoU 0.426"),
        (lambda road: road.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "IoU"),
        (lambda road: road.resize((240, 180)), "the mask is (180, 240), but the picture is (360, 480)"),
    ],
    ids=["nothing", "everything", "upside down", "another size"],
)
def test_a_wrong_mask_fails(road: Image.Image, wrong: Callable[[Image.Image], Image.Image], told: str) -> None:
    done, _ = upload(wrong(road))
    assert done.returncode == 1
    assert told in done.stderr


def test_it_sends_the_first_key(road: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# of the applications\n\nfirst,second\nthird\n")
    _, (_, headers, _) = upload(road, API_KEYS_FILE=str(tmp_path / "keys"))
    assert headers["X-Api-Key"] == "first"


def test_the_picture_is_what_draw_makes(road: Image.Image) -> None:
    image_HWC, road_HW = draw(Scene(cars=((3.1, 12.0), (-3.2, 18.0))))
    assert ((np.asarray(road) > 127) == road_HW).all()
    # JPEG of quality 80 is off by a few levels only.
    assert np.abs(np.asarray(Image.open(FILES / "street.jpg"), dtype=int) - image_HWC).mean() < 5

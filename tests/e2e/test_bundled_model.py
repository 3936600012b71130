"""The models that ship with the package, on real pictures."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from roadseg_serve.models import artefact
from tests.server import ROOT, Server, StartServer

ROAD, VOID = 3, 11  # CamVid labels in the 11-class set


@pytest.fixture(scope="module", params=artefact.BUNDLED)
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(start_server: StartServer, key: str, bundled_server: Server, bundled_keys: Path) -> Iterator[httpx.Client]:
    """`small` is shared with others and asks for a key; `full` is started as people start it, without any settings."""
    with ExitStack() as stack:
        server = bundled_server
        if key == "full":
            server = stack.enter_context(start_server("--model", "bundled:full"))
            server.wait_until_ready()
        headers = {"X-API-Key": bundled_keys.read_text()}
        yield stack.enter_context(httpx.Client(base_url=server.url, headers=headers, timeout=120))


def test_it_names_itself(client: httpx.Client, key: str) -> None:
    health = client.get("/health").json()
    assert f"{health['model']}/{health['version']}" == artefact.BUNDLED[key]


def test_it_passes_the_test_of_the_chart(client: httpx.Client, bundled_keys: Path) -> None:
    program = ROOT / "helm" / "roadseg" / "files" / "upload.py"
    command = [sys.executable, str(program), str(client.base_url).rstrip("/")]
    env = os.environ | {"API_KEYS_FILE": str(bundled_keys)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_it_finds_the_road_of_real_drives(client: httpx.Client) -> None:
    camvid = Path(os.environ.get("ROADSEG_DATA", ROOT.parent / "shared" / "data")) / "CamVid"
    pictures = sorted((camvid / "val").glob("*.*"))[::10]
    if not pictures:
        pytest.skip(f"no CamVid pictures in {camvid}; set ROADSEG_DATA")
    both = either = 0
    for path in pictures:
        response = client.post("/upload", files={"file": (path.name, path.read_bytes())})
        assert response.status_code == 200, response.text
        labels_HW = np.asarray(Image.open(camvid / "valannot" / f"{path.stem}.png"))
        road_HW = np.asarray(Image.open(io.BytesIO(response.content))) >= 128
        assert road_HW.shape == labels_HW.shape
        labelled_HW = labels_HW != VOID
        both += np.sum(road_HW & (labels_HW == ROAD) & labelled_HW)
        either += np.sum((road_HW | (labels_HW == ROAD)) & labelled_HW)
    assert both / either > 0.8

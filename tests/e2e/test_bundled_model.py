"""The models that ship with the package, on real pictures."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from roadseg_serve.models import artefact
from tests.server import ROOT, StartServer

ROAD, VOID = 3, 11  # CamVid labels in the 11-class set


@pytest.fixture(scope="module", params=artefact.BUNDLED)
def key(request: pytest.FixtureRequest) -> str:
    """`small` is what is served where nothing is said."""
    return str(request.param)


@pytest.fixture(scope="module")
def client(start_server: StartServer, key: str) -> Iterator[httpx.Client]:
    with start_server(*([] if key == "small" else ["--model", f"bundled:{key}"])) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=120) as http:
            yield http


def test_it_names_itself(client: httpx.Client, key: str) -> None:
    health = client.get("/health").json()
    assert f"{health['model']}/{health['version']}" == artefact.BUNDLED[key]


def test_it_passes_the_test_of_the_chart(client: httpx.Client) -> None:
    upload = ROOT / "helm" / "roadseg" / "files" / "upload.py"
    done = subprocess.run(
        [sys.executable, upload, str(client.base_url).rstrip("/")], capture_output=True, text=True, check=False
    )
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

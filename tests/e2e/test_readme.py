"""The Python and the curl that the documents show, run as they are written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.server import ROOT, Server

PORT = re.compile("localhost:5000")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a picture, a quarter of which is road to the red model."""
    image = Image.new("RGB", (8, 4))
    image.paste((255, 0, 0), (0, 0, 2, 4))
    image.save(tmp_path / "road.png")
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_python_of_the_documents_runs(server: Server, folder: Path, page: str) -> None:
    code = next(block for block in blocks(page, "python") if "httpx.post" in block)
    command = [sys.executable, "-c", PORT.sub(f"127.0.0.1:{server.port}", code)]
    run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert run.stdout == "25% of the picture is road\n"


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_curl_of_the_documents_runs(server: Server, folder: Path, page: str) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("curl -F")]
    assert lines
    for line in lines:
        subprocess.run(["bash", "-c", PORT.sub(f"127.0.0.1:{server.port}", line)], cwd=folder, check=True)
        with Image.open(folder / line.split()[-1]) as answer:
            assert answer.size == (8, 4)


def blocks(page: str, language: str) -> list[str]:
    """The code of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)

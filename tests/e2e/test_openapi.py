"""The description at /openapi.json holds: requests made from it, good and bad, are answered as it says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server

pytestmark = pytest.mark.parametrize("form", ["fused"], indirect=True, scope="session")

# Bytes at random are seldom a picture; whatever else the description allows is accepted.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 413, 415]
"""


def test_requests_made_from_the_description_are_answered_as_it_says(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = Path(sys.executable).with_name("schemathesis")
    options = ["--phases=examples,coverage,fuzzing", "--max-examples=25", "--generation-deterministic", "--no-color"]
    fuzz = subprocess.run(
        [command, "--config-file", config, "run", f"{server.url}/openapi.json", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert fuzz.returncode == 0, fuzz.stdout + fuzz.stderr
    assert "6 selected / 6 total" in fuzz.stdout

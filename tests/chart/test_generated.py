import subprocess
from pathlib import Path

from tests.chart.conftest import DASHBOARDS, ROOT


def test_generated_files_are_current(tmp_path: Path) -> None:
    subprocess.run([ROOT / "ci" / "chart", "generate", tmp_path], check=True)
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 3 + len(list(DASHBOARDS.glob("*.json")))
    for path in made:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path}: run ci/chart generate"

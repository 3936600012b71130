"""Write all Grafana dashboards to a folder: python -m helm.dashboards FOLDER."""

import sys
from pathlib import Path

from helm.dashboards import autoscaling, cluster, model, serving, training
from helm.dashboards.draw import draw

DASHBOARDS = (serving.DASHBOARD, autoscaling.DASHBOARD, model.DASHBOARD, training.DASHBOARD, cluster.DASHBOARD)


def main(folder: Path) -> None:
    """Write one file per dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.name}.json").write_text(draw(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

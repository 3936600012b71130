"""Draw street.jpg, the street that `helm test` uploads, and road.png, its road, next to this file.

    .venv/dev/bin/python helm/roadseg/files/draw.py

Because code draws it, the ground truth is exact and the project's licence covers it.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parents[2]))

from docs.scenes import Scene, draw  # noqa: E402 needs the line above


def main() -> None:
    """Write both files."""
    image_HWC, road_HW = draw(Scene(cars=((3.1, 12.0), (-3.2, 18.0))))
    Image.fromarray(image_HWC).save(FOLDER / "street.jpg", quality=80)
    Image.fromarray(road_HW.astype(np.uint8) * 255).convert("1").save(FOLDER / "road.png")


if __name__ == "__main__":
    main()

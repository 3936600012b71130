"""Draw the street that `helm test` uploads, and its road: street.jpg and road.png, beside this file.

    .venv/dev/bin/python helm/roadseg/files/draw.py

Code drew the picture, so its truth is exact and it has no licence but the project's.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parents[2]))

from docs.scenes import Scene, draw  # noqa: E402 found by the line above


def main() -> None:
    """Write both files."""
    image_HWC, road_HW = draw(Scene(cars=((3.1, 12.0), (-3.2, 18.0))))
    Image.fromarray(image_HWC).save(FOLDER / "street.jpg", quality=80)
    Image.fromarray(road_HW.astype(np.uint8) * 255).convert("1").save(FOLDER / "road.png")


if __name__ == "__main__":
    main()

"""Draw docs/street.jpg and docs/scenes.jpg: what a bundled model finds in streets drawn by code, whose road is known.

    .venv/dev/bin/python docs/draw_scenes.py

Green is road that was found, red is not road, blue is road that was missed.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure
from PIL import Image
from scenes import Scene, UInt8Array, draw

STREET = Scene(cars=((3.1, 12.0), (-3.2, 18.0)))
SCENES = {
    "by day": STREET,
    "a side road, a bend": replace(STREET, side_road_z_m=16.0, bend=3.0, cars=((-3.2, 9.0),)),
    "dusk": replace(STREET, light=0.3),
    "a wet road": replace(STREET, wet=0.9),
    "a hard shadow": replace(STREET, shadow=1.0, bend=-5.0, cars=()),
    "a wide road": replace(STREET, road_m=6.5, cars=((0.0, 14.0), (5.6, 8.0))),
}


def main(
    model: Annotated[str, typer.Option(help="Model version, as for roadseg-serve.")] = "bundled:small",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(__file__).parent,
) -> None:
    """Draw the scenes, find the road in them with `roadseg-serve segment`, and show both."""
    with TemporaryDirectory() as folder:
        work = Path(folder)
        pictures = {work / f"{number}.png": scene for number, scene in enumerate(SCENES.values())}
        for path, scene in pictures.items():
            Image.fromarray(draw(scene)[0]).save(path)
        segment = (sys.executable, "-c", "from roadseg_serve.cli import main; main()", "segment", "--quiet")
        for form in ("png", "overlay"):
            options = ("--model", model, "--format", form, "--out", work / form)
            subprocess.run([*segment, *pictures, *options], check=True)  # noqa: S603 - the command itself, no shell
        masks = {
            name: np.asarray(Image.open(work / "png" / path.name)) for name, path in zip(SCENES, pictures, strict=True)
        }
        draw_street(masks["by day"], Image.open(work / "overlay" / "0.jpg"), out / "street.jpg")
    draw_scores(masks, out / "scenes.jpg")


def draw_street(mask_HW: UInt8Array, overlay: Image.Image, path: Path) -> None:
    """Show one street, its mask, and the overlay in a row."""
    street = Image.fromarray(draw(STREET)[0])
    row = Image.new("RGB", (3 * street.width + 32, street.height), "white")
    for number, picture in enumerate((street, Image.fromarray(mask_HW), overlay)):
        row.paste(picture, (number * (street.width + 16), 0))
    row.save(path, quality=85)


def draw_scores(masks: Mapping[str, UInt8Array], path: Path) -> None:
    """Show every scene above what the model found in it, with the IoU."""
    with mpl.rc_context({"font.size": 9, "savefig.dpi": 120}):
        figure = Figure(figsize=(13, 3.7), layout="constrained")
        for (name, scene), (above, below) in zip(SCENES.items(), figure.subplots(2, len(SCENES)).T, strict=True):
            image_HWC, road_HW = draw(scene)
            claimed_HW = masks[name] == 255
            found_HW = claimed_HW & road_HW
            shown_HWC = image_HWC // 2
            for colour, where_HW in (
                ((30, 100, 45), found_HW),
                ((115, 30, 25), claimed_HW & ~road_HW),
                ((30, 55, 120), road_HW & ~claimed_HW),
            ):
                shown_HWC[where_HW] += np.array(colour, dtype=np.uint8)
            above.imshow(image_HWC)
            above.set_title(name)
            below.imshow(shown_HWC)
            below.set_title(f"IoU {found_HW.sum() / (claimed_HW | road_HW).sum():.2f}")
            above.set_axis_off()
            below.set_axis_off()
        figure.savefig(path, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    typer.run(main)

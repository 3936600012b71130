"""Draw docs/scenes.jpg: what a bundled model makes of streets whose truth is known because code drew them.

    .venv/dev/bin/python docs/draw_scenes.py

Green is road that was found, red what is no road but was called so, blue road that was missed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure
from scenes import Scene, draw

from roadseg_serve.engines.engine import create_engine, predict_all
from roadseg_serve.models import artefact
from roadseg_serve.stages.postprocess import binarise, unfit
from roadseg_serve.stages.preprocess import fit

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
    path: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path(__file__).parent / "scenes.jpg",
) -> None:
    """Draw every scene above what the model found in it."""
    version = artefact.read(artefact.resolve(model))
    engine = create_engine("auto", version, num_threads=2)
    with mpl.rc_context({"font.size": 9, "savefig.dpi": 120}):
        figure = Figure(figsize=(13, 3.7), layout="constrained")
        columns = figure.subplots(2, len(SCENES)).T
        for (name, scene), (above, below) in zip(SCENES.items(), columns, strict=True):
            image_HWC, road_HW = draw(scene)
            frame = fit(image_HWC, version.manifest.input.size)
            (prob_HW,) = predict_all(engine, [frame.input_HWC])
            claimed_HW = binarise(unfit(prob_HW, frame.placement), version.manifest.threshold) == 255
            found, either = claimed_HW & road_HW, claimed_HW | road_HW
            shown_HWC = image_HWC // 2
            for colour, where in (
                ((30, 100, 45), found),
                ((115, 30, 25), claimed_HW & ~road_HW),
                ((30, 55, 120), road_HW & ~claimed_HW),
            ):
                shown_HWC[where] += np.array(colour, dtype=np.uint8)
            above.imshow(image_HWC)
            above.set_title(name)
            below.imshow(shown_HWC)
            below.set_title(f"IoU {found.sum() / either.sum():.2f}")
            above.set_axis_off()
            below.set_axis_off()
        figure.savefig(path, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    typer.run(main)

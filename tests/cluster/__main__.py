"""Run the journey against the current kube context: `python -m tests.cluster` (by way of ci/e2e)."""

import time
from pathlib import Path
from typing import Annotated

import typer

from tests.cluster.journey import Journey, save
from tests.cluster.kube import KubeError, kubectl
from tests.cluster.prepare import NAMESPACE

NUM_LINES, WIDTH = 40, 200  # of what is told of a cluster where a step failed


def main(
    tag: Annotated[str, typer.Option(help="Tag of the images that are built and used.")] = "e2e",
    only: Annotated[list[str] | None, typer.Option(help="Names of steps, such as lose_the_head; default: all.")] = None,
    figures: Annotated[Path | None, typer.Option(help="File for what was measured, as JSON.")] = None,
) -> None:
    """Walk through all steps, or some, and stop at the first that fails."""
    journey = Journey(tag)
    steps = {step.__name__: step for step in journey.steps}
    for name in only or steps:
        start_s = time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {name.replace('_', ' ')} ...", flush=True)
        try:
            steps[name]()
        except KubeError as error:
            print(f"FAILED {name}: {error}", flush=True)
            print(_scene(), flush=True)
            raise typer.Exit(1) from error
        finally:
            if figures:
                save(journey.figures, figures)
        print(f"         done in {time.monotonic() - start_s:.0f} s", flush=True)
    for what, figure in journey.figures.items():
        print(f"{what}: {figure}")


def _scene() -> str:
    """What there is to see in the namespace, for who looks for the reason."""
    seen = []
    for what in ("rayservices,rayclusters,rayjobs", "pods,services", "events"):
        try:
            lines = kubectl("get", what, f"--namespace={NAMESPACE}").splitlines()
            seen += lines[:1] + lines[1:][-NUM_LINES:]
        except KubeError as error:
            seen.append(str(error))
    return "\n".join(line[:WIDTH] for line in seen)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()

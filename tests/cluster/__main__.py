"""Run the journey against the current kube context; ci/e2e calls this."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ci.times import STEPS
from tests.cluster.journey import Journey, save
from tests.cluster.kube import KubeError, kubectl
from tests.cluster.prepare import NAMESPACE

NUM_LINES, WIDTH = 40, 200  # of the state of the cluster that is printed after a failure


def main(
    everything: Annotated[bool, typer.Option("--all", help="Take all steps, not only those for every change.")] = False,
    tag: Annotated[str, typer.Option(help="Tag for the images that are built and used.")] = "e2e",
    only: Annotated[list[str] | None, typer.Option(help="Take only this step; give it again for more.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Write what was measured to this file, as JSON.")] = None,
) -> None:
    """Take the steps of the journey in order; stop at the first failure."""
    journey = Journey(tag, everything)
    steps = {step.__name__: step for step in journey.steps}
    if unknown := set(only or ()) - set(steps):
        more = "" if everything else "; --all has more"
        raise typer.BadParameter(f"no step {', '.join(sorted(unknown))}; choose from {', '.join(steps)}{more}")
    seconds_by_step = journey.figures.setdefault(STEPS, {})
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
            seconds_by_step[name.replace("_", " ")] = round(time.monotonic() - start_s, 1)
            if figures:
                save(journey.figures, figures)
        print(f"         done in {time.monotonic() - start_s:.0f} s", flush=True)
    for what, figure in journey.figures.items():
        print(f"{what}: {figure}")


def _scene() -> str:
    """The objects and events in the namespace, to find the cause of a failure."""
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

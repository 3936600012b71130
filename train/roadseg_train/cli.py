"""The command line `roadseg-train`: fit, evaluate, publish."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from roadseg_train.config import DEFAULT_THRESHOLD, PRESETS
from roadseg_train.errors import RoadsegTrainError
from roadseg_train.progress import SUMMARY
from roadseg_train.split import SPLITS

if TYPE_CHECKING:
    from roadseg_train.evaluate import Evaluation

SPLIT_HELP = "; ".join(f"{name}: {meaning}" for name, meaning in SPLITS.items())

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train road segmentation models and publish them as artefacts.",
)


@app.command()
def fit(
    data: Annotated[list[Path], typer.Option(help="CamVid (SegNet form) or KITTI Road folder; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues a run that was cut.")],
    preset: Annotated[str, typer.Option(help=f"One of: {', '.join(PRESETS)}.")] = "tiny",
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "fit",
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the schedule instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Decides initial weights, order and crops.")] = 0,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps from checkpoint to checkpoint instead of the preset's.")
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Compute each batch in this many parts, for less memory; divides the batch.")
    ] = 1,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N | MIN:MAX",
            help="Ray Train workers: as many, or as many of these as there is room for; 0 trains here without Ray.",
        ),
    ] = "1",
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="Threads of each worker; default: this machine's cores, shared.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="A GPU for each worker.")] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Translate the network first, with torch.compile.")
    ] = False,
    loaders: Annotated[int, typer.Option(min=0, help="Processes of each worker that make crops ahead of steps.")] = 1,
) -> None:
    """Train a U-Net and keep its checkpoints in a run folder; the same command continues after whatever ended it.

    SIGTERM and Ctrl-C save first, and end with exit code 143 or 130.
    """
    if preset not in PRESETS:
        raise typer.BadParameter(f"choose one of {', '.join(PRESETS)}", param_hint="--preset")
    from roadseg_train.run import RunRecord, open_run  # noqa: PLC0415  # torch takes seconds to import
    from roadseg_train.stop import StopSignals  # noqa: PLC0415
    from roadseg_train.workers import WorkerPlan, train_here, train_on_ray  # noqa: PLC0415

    num_workers = parse_workers(workers)
    asked = {"num_steps": steps, "checkpoint_every_steps": checkpoint_every}
    overrides = {"seed": seed, "accumulate": accumulate} | {name: value for name, value in asked.items() if value}
    config = PRESETS[preset]().model_copy(update=overrides)
    record = RunRecord(config=config, data=[folder.resolve() for folder in data], split=split)
    num_fit, num_heldout = len(record.frames(split)), len(record.heldout_frames())
    open_run(run, record)
    typer.echo(f"{run}: {preset} on {num_fit} frames of split {split!r}, scored on {num_heldout} held-out ones")
    most = num_workers if isinstance(num_workers, int) else num_workers[1]
    cores = cpus_per_worker or max(1, (os.cpu_count() or 1) // max(1, most))
    plan = WorkerPlan(num_workers, num_cpus=cores, gpu=gpu, num_loaders=loaders, compiled=compile_)
    with StopSignals() as stop:
        summary = (train_here if num_workers == 0 else train_on_ray)(run, record, plan, stop)
    (run / SUMMARY).write_text(summary.model_dump_json(indent=2) + "\n")
    typer.echo(summary.text(run))
    if summary.stopped:
        typer.echo(f"saved at step {summary.step}; the same command continues from there")
        raise typer.Exit(stop.exit_code)
    typer.echo(f"next: roadseg-train evaluate --run {run}")


def parse_workers(text: str) -> int | tuple[int, int]:
    """`N`, or `MIN:MAX` with 1 <= MIN <= MAX."""
    try:
        numbers = tuple(int(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    match numbers:
        case (count,) if count >= 0:
            return count
        case (least, most) if 1 <= least <= most:
            return least, most
    raise typer.BadParameter(f"{text!r} is neither a number nor MIN:MAX, such as 2 or 1:4", param_hint="--workers")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Option(help="Run folder of fit.")],
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "heldout",
    data: Annotated[list[Path] | None, typer.Option(help="Dataset folders; default: those of the run.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which a pixel is road.")
    ] = DEFAULT_THRESHOLD,
) -> None:
    """Score the newest checkpoint of a run on a split; write metrics.json and cases.png into the run folder."""
    from roadseg_train.evaluate import draw_cases, evaluate_frames  # noqa: PLC0415  # torch takes seconds to import
    from roadseg_train.run import load_program, read_run  # noqa: PLC0415

    record = read_run(run)
    program, step = load_program(run, record.config)
    fit_frames = record.frames(record.split)
    if data:
        record = record.model_copy(update={"data": [folder.resolve() for folder in data]})
    frames = record.frames(split)
    evaluation = evaluate_frames(
        program,
        frames,
        config=record.config,
        step=step,
        fitted_on=record.split,
        fit_frames=fit_frames,
        split=split,
        threshold=threshold,
    )
    folder = run / "evaluation" / f"{evaluation.dataset.replace(' ', '-').lower()}-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(evaluation.model_dump_json(indent=2) + "\n")
    draw_cases(program, frames, evaluation, folder / "cases.png")
    print_scores(evaluation)
    typer.echo(f"wrote {folder / 'metrics.json'} and {folder / 'cases.png'}")


@app.command()
def publish(
    run: Annotated[Path, typer.Option(help="Run folder of fit.")],
    store: Annotated[Path, typer.Option(help="Folder of all artefacts.")],
    name: Annotated[str, typer.Option(help="Model name, such as road-small.")],
    version: Annotated[str, typer.Option(help="Version, never used before.")],
    evaluation: Annotated[Path, typer.Option(help="metrics.json of evaluate: this run's, or the same recipe's.")],
) -> None:
    """Export the newest checkpoint of a run as an artefact that `roadseg-serve run --model` serves."""
    from roadseg_train import artefact  # noqa: PLC0415  # torch takes seconds to import
    from roadseg_train.evaluate import read_evaluation  # noqa: PLC0415
    from roadseg_train.run import load_program, read_run  # noqa: PLC0415

    record = read_run(run)
    program, step = load_program(run, record.config)
    folder = artefact.publish(
        store,
        name,
        version,
        program=program,
        config=record.config,
        step=step,
        fitted_on=record.split,
        evaluation=read_evaluation(evaluation),
    )
    typer.echo(f"published {folder}; next: roadseg-serve run --model {folder}")


def print_scores(evaluation: "Evaluation") -> None:
    """Print the scores as a table: all pictures, then each drive."""
    table = Table(title=f"{evaluation.dataset}, split {evaluation.split!r}, {evaluation.num_images} pictures")
    for heading in ("drive", "road IoU", "mean image IoU", "F1", "MaxF"):
        table.add_column(heading, justify="left" if heading == "drive" else "right")
    for drive, scores in {"all": evaluation.overall, **evaluation.by_drive}.items():
        table.add_row(drive, *(f"{value:.4f}" for value in scores.model_dump().values()))
    Console().print(table)
    if evaluation.seen_in_training:
        typer.echo("note: the network was fitted on some of these pictures, so these scores say nothing of new ones")


def main() -> None:
    """Run the command line; a fault that the user can mend is one line and exit code 1."""
    try:
        app()
    except RoadsegTrainError as error:
        sys.exit(f"error: {error}")

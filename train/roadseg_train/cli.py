"""The command line `roadseg-train`: fit, evaluate, publish."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from typer import Option

from roadseg_train.config import CHECKPOINT_EVERY_STEPS, DEFAULT_THRESHOLD, PRESETS, override
from roadseg_train.data.split import SPLITS, other_side
from roadseg_train.errors import RoadsegTrainError
from roadseg_train.fit.progress import SUMMARY
from roadseg_train.network.views import Views

if TYPE_CHECKING:
    from roadseg_train.evaluate.evaluate import Evaluation

WHERE = ", a folder or s3://bucket/name"
WORKERS_HELP = "Number of Ray Train workers, or a range to use what the cluster has room for; 0 trains without Ray."
LOADERS_HELP = """Processes per worker that prepare crops ahead; with 0, the worker makes them, on its GPU if it has
one. Default: 1; with --gpu, the spare cores if there are enough of them."""
SUBMISSION_HELP = """Write the probabilities of testing/image_2 to this folder, named as the KITTI Road server expects.
They are in perspective; convert them to bird's-eye views with the devkit's transform2BEV.py."""
# Options of more than one command.
Run = Annotated[str, Option(help=f"The run of fit{WHERE}.")]
Split = Annotated[str, Option(help="; ".join(f"{name}: {meaning}" for name, meaning in SPLITS.items()))]
Mirror = Annotated[bool, Option("--mirror", help="Predict the mirrored image as well, and average.")]
Scales = Annotated[str, Option(help="Predict at these scales, such as 0.5,1.5, and average.")]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train road segmentation models and publish them as artefacts.",
)


@app.command()
def fit(
    data: Annotated[list[str], Option(help=f"CamVid (SegNet layout) or KITTI Road{WHERE}. Can be repeated.")],
    run: Annotated[str, Option(help=f"The run to start or resume{WHERE}.")],
    preset: Annotated[str, Option(help=f"One of: {', '.join(PRESETS)}.")] = "tiny",
    split: Split = "fit",
    steps: Annotated[int | None, Option(min=1, help="Number of steps; default: the preset's.")] = None,
    seed: Annotated[int, Option(help="Seed of the initial weights, the order of images and the crops.")] = 0,
    settings: Annotated[
        list[str] | None, Option("--set", help="FIELD=VALUE: override a field of the preset. Can be repeated.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, Option(min=1, help="Steps between checkpoints; default: the preset's.")
    ] = None,
    accumulate: Annotated[
        int | None, Option(min=1, help="Split each batch into this many micro-batches to save memory.")
    ] = None,
    workers: Annotated[str, Option(metavar="N | MIN:MAX", help=WORKERS_HELP)] = "1",
    cpus_per_worker: Annotated[
        int | None, Option(min=1, help="Threads per worker; default: the cores of this machine, shared.")
    ] = None,
    gpu: Annotated[bool, Option("--gpu", help="Use one GPU per worker.")] = False,
    compile_: Annotated[bool, Option("--compile", help="Compile the network with torch.compile first.")] = False,
    loaders: Annotated[int | None, Option(min=0, help=LOADERS_HELP)] = None,
) -> None:
    """Train a U-Net and save checkpoints in a run. Run the same command again to resume.

    SIGTERM and Ctrl-C save a checkpoint first, then exit with code 143 or 130.
    """
    if preset not in PRESETS:
        raise typer.BadParameter(f"choose one of {', '.join(PRESETS)}", param_hint="--preset")
    from roadseg_train.storage.path import reach  # noqa: PLC0415  # libraries take seconds to import

    place, uris = reach(run), [reach(folder).uri for folder in data]
    from roadseg_train.data.check import check_data  # noqa: PLC0415
    from roadseg_train.fit.options import FitOptions, default_loaders  # noqa: PLC0415
    from roadseg_train.fit.run import RunRecord, fetch, open_run  # noqa: PLC0415
    from roadseg_train.fit.stop import StopSignals  # noqa: PLC0415

    num_workers = parse_workers(workers)
    if num_workers == 0:
        from roadseg_train.fit.local import train_locally as train  # noqa: PLC0415
    else:
        from roadseg_train.fit.workers import train_on_ray as train  # noqa: PLC0415
    flags = {"seed": seed, "num_steps": steps, "accumulate": accumulate}
    given = [f"{field}={value}" for field, value in flags.items() if value is not None]
    config = override(PRESETS[preset](), [*(settings or []), *given])
    print_left_out(check_data(fetch(uris), [side for side in (split, other_side(split)) if side]))
    record = RunRecord.of(config=config, data=uris, split=split)
    open_run(place, record)
    num_fit, num_heldout = len(record.fit_frames), len(record.heldout_frames())
    typer.echo(f"{run}: {preset} on {num_fit} frames of split {split!r}, scored on {num_heldout} held-out ones")
    max_workers = num_workers if isinstance(num_workers, int) else num_workers[1]
    cores = cpus_per_worker or max(1, (os.cpu_count() or 1) // max(1, max_workers))
    options = FitOptions(
        num_workers,
        num_cpus=cores,
        gpu=gpu,
        num_loaders=default_loaders(gpu=gpu, num_cpus=cores) if loaders is None else loaders,
        compiled=compile_,
        checkpoint_every_steps=checkpoint_every or CHECKPOINT_EVERY_STEPS[preset],
    )
    with StopSignals() as stop:
        summary = train(place, record, options, stop)
    (place / SUMMARY).write_text(summary.model_dump_json(indent=2) + "\n")
    typer.echo(summary.text(run))
    if summary.stopped:
        typer.echo(f"saved at step {summary.step}; the same command continues from there")
        raise typer.Exit(stop.exit_code)
    typer.echo(f"next: roadseg-train evaluate --run {run}")


def parse_views(mirror: bool, scales: str) -> Views:
    """Parse scales, numbers separated by commas."""
    try:
        return Views(mirror=mirror, scales=tuple(float(scale) for scale in scales.split(",")))
    except ValueError as error:
        expected = "a list of different numbers from 0.25 to 4, such as 0.5,1.5"
        raise typer.BadParameter(f"{scales!r} is not {expected}", param_hint="--scales") from error


def parse_workers(text: str) -> int | tuple[int, int]:
    """Parse `N`, or `MIN:MAX` with 1 <= MIN <= MAX."""
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
    run: Run,
    split: Split = "heldout",
    mirror: Mirror = False,
    scales: Scales = "1",
    data: Annotated[list[str] | None, Option(help=f"Datasets{WHERE}; default: those of the run.")] = None,
    threshold: Annotated[
        float, Option(min=0, max=1, help="Pixels with at least this probability are road.")
    ] = DEFAULT_THRESHOLD,
    robustness_frames: Annotated[
        int, Option(min=0, help="Number of images, spread over the split, to score in fog, rain, dark, ….")
    ] = 16,
    kitti_submission: Annotated[Path | None, Option(help=SUBMISSION_HELP)] = None,
) -> None:
    """Score the newest checkpoint of a run on a split, and write report.html and metrics.json into the run."""
    from roadseg_train.storage.local import temporary_folder  # noqa: PLC0415  # libraries take seconds to import
    from roadseg_train.storage.path import reach  # noqa: PLC0415

    views = parse_views(mirror, scales)
    place, uris = reach(run), [reach(folder).uri for folder in data or []]
    from roadseg_train.data.check import check_data, check_images  # noqa: PLC0415
    from roadseg_train.evaluate.evaluate import evaluate_frames  # noqa: PLC0415
    from roadseg_train.evaluate.report import draw_examples, render_report  # noqa: PLC0415
    from roadseg_train.evaluate.submission import find_test_images, write_submission  # noqa: PLC0415
    from roadseg_train.fit.run import fetch, load_run  # noqa: PLC0415

    loaded = load_run(place, views=views)
    program, record = loaded.program, loaded.record.model_copy(update={"data": uris} if uris else {})
    roots = fetch(record.data)
    print_left_out(check_data(roots, [split]))
    images = find_test_images(roots) if kitti_submission else None
    if images:
        check_images(list(images.by_name.values()))
    frames = record.frames(split)
    evaluation = evaluate_frames(
        program,
        frames,
        run=run,
        record=record,
        step=loaded.step,
        split=split,
        threshold=threshold,
        num_robustness_frames=robustness_frames,
    )
    if images and kitti_submission:
        write_submission(program, images, kitti_submission, config=record.config)
        for warning in images.warnings:
            typer.echo(f"warning: {warning}", err=True)
    name = f"{evaluation.dataset.replace(' ', '-').lower()}-{split.replace(':', '-')}{views.suffix}"
    with temporary_folder() as folder:
        (folder / "metrics.json").write_text(evaluation.model_dump_json(indent=2) + "\n")
        report = render_report(evaluation, draw_examples(program, frames, evaluation), images)
        (folder / "report.html").write_text(report)
        (place / "evaluation").upload(folder, name)
    print_scores(evaluation)
    typer.echo(f"wrote {place / 'evaluation' / name / 'report.html'} and metrics.json beside it")
    if images:
        next_step = "convert them to bird's-eye views with KITTI's devkit"
        typer.echo(f"wrote {len(images.by_name)} files to {kitti_submission}; {next_step}")


@app.command()
def publish(
    run: Run,
    store: Annotated[str, Option(help=f"Where all artefacts are{WHERE}.")],
    name: Annotated[str, Option(help="Model name, such as road-small.")],
    version: Annotated[str, Option(help="A version that was never used before.")],
    evaluation: Annotated[
        str, Option(help="metrics.json of evaluate, of this run or of another run with the same settings.")
    ],
    mirror: Mirror = False,
    scales: Scales = "1",
    int8: Annotated[
        bool, Option("--int8", help="Add an int8 program if it scores as well; needs the data of the run.")
    ] = False,
) -> None:
    """Export the newest checkpoint of a run as an artefact for `roadseg-serve run --model`."""
    from roadseg_train.storage.path import reach  # noqa: PLC0415  # libraries take seconds to import

    views = parse_views(mirror, scales)
    place, models, metrics = reach(run), reach(store), reach(evaluation)
    from roadseg_train.evaluate.evaluate import read_evaluation  # noqa: PLC0415
    from roadseg_train.fit.run import load_run  # noqa: PLC0415
    from roadseg_train.publish import artefact  # noqa: PLC0415
    from roadseg_train.publish.quantise import choose_frames  # noqa: PLC0415

    loaded = load_run(place, views=views)
    int8_frames = choose_frames(loaded.record) if int8 else None
    quantisation = artefact.publish(
        models,
        name,
        version,
        program=loaded.program,
        record=loaded.record,
        step=loaded.step,
        evaluation=read_evaluation(metrics),
        int8_frames=int8_frames,
    )
    if quantisation:
        typer.echo(quantisation.text())
    path = models / name / version
    typer.echo(f"published {path}; next: roadseg-serve run --model {path}")


def print_left_out(images: Sequence[Path]) -> None:
    """Print how many images of a KITTI folder have no road mask."""
    if images:
        typer.echo(f"note: left out {len(images)} images that have a lane mask but no road mask", err=True)


def print_scores(evaluation: "Evaluation") -> None:
    """Print a table of the scores: all images, then each drive."""
    table = Table(title=f"{evaluation.dataset}, split {evaluation.split!r}, {evaluation.num_images} images")
    for heading in ("drive", "road IoU", "mean image IoU", "F1", "MaxF"):
        table.add_column(heading, justify="left" if heading == "drive" else "right")
    for drive, scores in {"all": evaluation.overall, **evaluation.by_drive}.items():
        table.add_row(drive, *(f"{value:.4f}" for value in scores.model_dump().values()))
    Console().print(table)
    if evaluation.seen_in_training:
        typer.echo("note: the network was fitted on some of these images; the scores do not apply to new ones")


def main() -> None:
    """Run the command line. An error that the user can fix prints one line and exits with code 1."""
    try:
        app()
    except RoadsegTrainError as error:
        sys.exit(f"error: {error}")

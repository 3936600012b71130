"""The command line `roadseg-train`: fit, evaluate, publish."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from roadseg_train.config import DEFAULT_THRESHOLD, PRESETS, override
from roadseg_train.data.split import SPLITS, other_side
from roadseg_train.errors import RoadsegTrainError
from roadseg_train.fit.progress import SUMMARY
from roadseg_train.network.views import Views

if TYPE_CHECKING:
    from roadseg_train.evaluate.evaluate import Evaluation

PLACE = ", a folder or s3://bucket/name"
RUN_HELP = f"The run of fit{PLACE}."
MIRROR_HELP = "Also predict the mirrored image, and average."
SCALES_HELP = "Predict the image at these scales, such as 0.5,1.5, and average."
SPLIT_HELP = "; ".join(f"{name}: {meaning}" for name, meaning in SPLITS.items())

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train road segmentation models and publish them as artefacts.",
)


@app.command()
def fit(
    data: Annotated[list[str], typer.Option(help=f"CamVid (SegNet form) or KITTI Road{PLACE}; may be repeated.")],
    run: Annotated[str, typer.Option(help=f"The run{PLACE}; the same command continues one that was cut.")],
    preset: Annotated[str, typer.Option(help=f"One of: {', '.join(PRESETS)}.")] = "tiny",
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "fit",
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the schedule instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Decides initial weights, order and crops.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE: a field of the preset replaced; may be repeated.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps from checkpoint to checkpoint instead of the preset's.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Compute each batch in this many parts, for less memory; divides it.")
    ] = None,
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
    loaders: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes of each worker that make crops ahead of steps; with 0 the worker does, on its GPU if "
            "it has one. Default: 1; with --gpu as many as there are spare cores, if they outdo it.",
        ),
    ] = None,
) -> None:
    """Train a U-Net and keep its checkpoints in a run; the same command continues after whatever ended it.

    SIGTERM and Ctrl-C save first, and end with exit code 143 or 130.
    """
    if preset not in PRESETS:
        raise typer.BadParameter(f"choose one of {', '.join(PRESETS)}", param_hint="--preset")
    from roadseg_train.storage.path import reach  # noqa: PLC0415  # libraries take seconds to import

    place, uris = reach(run), [reach(folder).uri for folder in data]
    from roadseg_train.data.check import check_data  # noqa: PLC0415
    from roadseg_train.fit.plan import WorkerPlan, default_loaders  # noqa: PLC0415
    from roadseg_train.fit.run import RunRecord, fetch, open_run  # noqa: PLC0415
    from roadseg_train.fit.stop import StopSignals  # noqa: PLC0415

    num_workers = parse_workers(workers)
    if num_workers == 0:
        from roadseg_train.fit.here import train_here as train  # noqa: PLC0415
    else:
        from roadseg_train.fit.workers import train_on_ray as train  # noqa: PLC0415
    flags = {
        "seed": seed,
        "num_steps": steps,
        "checkpoint_every_steps": checkpoint_every,
        "accumulate": accumulate,
    }
    given = [f"{field}={value}" for field, value in flags.items() if value is not None]
    config = override(PRESETS[preset](), [*(settings or []), *given])
    say_left_out(check_data(fetch(uris), [side for side in (split, other_side(split)) if side]))
    record = RunRecord.of(config=config, data=uris, split=split)
    num_fit, num_heldout = len(record.fit_frames), len(record.heldout_frames())
    open_run(place, record)
    typer.echo(f"{run}: {preset} on {num_fit} frames of split {split!r}, scored on {num_heldout} held-out ones")
    most = num_workers if isinstance(num_workers, int) else num_workers[1]
    cores = cpus_per_worker or max(1, (os.cpu_count() or 1) // max(1, most))
    num_loaders = default_loaders(gpu=gpu, num_cpus=cores) if loaders is None else loaders
    plan = WorkerPlan(num_workers, num_cpus=cores, gpu=gpu, num_loaders=num_loaders, compiled=compile_)
    with StopSignals() as stop:
        summary = train(place, record, plan, stop)
    (place / SUMMARY).write_text(summary.model_dump_json(indent=2) + "\n")
    typer.echo(summary.text(run))
    if summary.stopped:
        typer.echo(f"saved at step {summary.step}; the same command continues from there")
        raise typer.Exit(stop.exit_code)
    typer.echo(f"next: roadseg-train evaluate --run {run}")


def parse_views(mirror: bool, scales: str) -> Views:
    """Scales are numbers with commas between them, each once."""
    try:
        return Views(mirror=mirror, scales=tuple(float(scale) for scale in scales.split(",")))
    except ValueError as error:
        raise typer.BadParameter(
            f"{scales!r} is no list of different numbers from 0.25 to 4, such as 0.5,1.5", param_hint="--scales"
        ) from error


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
    run: Annotated[str, typer.Option(help=RUN_HELP)],
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "heldout",
    mirror: Annotated[bool, typer.Option("--mirror", help=MIRROR_HELP)] = False,
    scales: Annotated[str, typer.Option(help=SCALES_HELP)] = "1",
    data: Annotated[list[str] | None, typer.Option(help=f"Datasets{PLACE}; default: those of the run.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which a pixel is road.")
    ] = DEFAULT_THRESHOLD,
    robustness_frames: Annotated[
        int, typer.Option(min=0, help="Pictures, spread over the split, to score in fog, rain, dark, ...; 0 for none.")
    ] = 16,
    kitti_submission: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the probabilities of testing/image_2, named for the KITTI Road server. They are in "
            "perspective; the server wants bird's-eye views, which the devkit's transform2BEV.py makes of them."
        ),
    ] = None,
) -> None:
    """Score the newest checkpoint of a run on a split, and write report.html and metrics.json into the run."""
    from roadseg_train.storage.local import temporary_folder  # noqa: PLC0415  # libraries take seconds to import
    from roadseg_train.storage.path import reach  # noqa: PLC0415

    views = parse_views(mirror, scales)
    place, uris = reach(run), [reach(folder).uri for folder in data or []]
    from roadseg_train.data.check import check_data, check_pictures  # noqa: PLC0415
    from roadseg_train.evaluate.evaluate import evaluate_frames  # noqa: PLC0415
    from roadseg_train.evaluate.examples import draw_examples  # noqa: PLC0415
    from roadseg_train.evaluate.report import render_report  # noqa: PLC0415
    from roadseg_train.evaluate.submission import find_test_images, write_submission  # noqa: PLC0415
    from roadseg_train.fit.run import fetch, load_runs  # noqa: PLC0415

    loaded = load_runs([place], views=views)
    record, program = loaded.record, loaded.program
    if uris:
        record = record.model_copy(update={"data": uris})
    roots = fetch(record.data)
    say_left_out(check_data(roots, [split]))
    pictures = find_test_images(roots) if kitti_submission else None
    if pictures:
        check_pictures(list(pictures.by_name.values()))
    frames = record.frames(split)
    evaluation = evaluate_frames(
        program,
        frames,
        run=run,
        record=record,
        step=loaded.members[0].step,
        split=split,
        threshold=threshold,
        num_robustness_frames=robustness_frames,
    )
    if pictures and kitti_submission:
        write_submission(program, pictures, kitti_submission, config=record.config)
        for warning in pictures.warnings:
            typer.echo(f"warning: {warning}", err=True)
    name = f"{evaluation.dataset.replace(' ', '-').lower()}-{split.replace(':', '-')}{views.suffix}"
    with temporary_folder() as folder:
        (folder / "metrics.json").write_text(evaluation.model_dump_json(indent=2) + "\n")
        report = render_report(evaluation, draw_examples(program, frames, evaluation), pictures)
        (folder / "report.html").write_text(report)
        (place / "evaluation").upload(folder, name)
    print_scores(evaluation)
    typer.echo(f"wrote {place / 'evaluation' / name / 'report.html'} and metrics.json beside it")
    if pictures:
        typer.echo(
            f"wrote {len(pictures.by_name)} files for KITTI's devkit, which makes them bird's-eye views, "
            f"to {kitti_submission}"
        )


@app.command()
def publish(
    run: Annotated[str, typer.Option(help=RUN_HELP)],
    store: Annotated[str, typer.Option(help=f"Where all artefacts are{PLACE}.")],
    name: Annotated[str, typer.Option(help="Model name, such as road-small.")],
    version: Annotated[str, typer.Option(help="Version, never used before.")],
    evaluation: Annotated[str, typer.Option(help="metrics.json of this run, or of the same recipe.")],
    mirror: Annotated[bool, typer.Option("--mirror", help=MIRROR_HELP)] = False,
    scales: Annotated[str, typer.Option(help=SCALES_HELP)] = "1",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Add an int8 program, if it scores as well; needs the run's data."),
    ] = False,
) -> None:
    """Export the newest checkpoint of a run as an artefact for `roadseg-serve run --model`."""
    from roadseg_train.storage.path import reach  # noqa: PLC0415  # libraries take seconds to import

    views = parse_views(mirror, scales)
    place, models, metrics = reach(run), reach(store), reach(evaluation)
    from roadseg_train.evaluate.evaluate import read_evaluation  # noqa: PLC0415
    from roadseg_train.fit.run import load_runs  # noqa: PLC0415
    from roadseg_train.publish import artefact  # noqa: PLC0415

    loaded = load_runs([place], views=views)
    int8_frames = None
    if int8:
        from roadseg_train.publish.quantise import choose_frames  # noqa: PLC0415

        int8_frames = choose_frames(loaded.record)
    published = artefact.publish(
        models,
        name,
        version,
        program=loaded.program,
        record=loaded.record,
        step=loaded.members[0].step,
        evaluation=read_evaluation(metrics),
        int8_frames=int8_frames,
    )
    if published.quantisation:
        typer.echo(published.quantisation.text())
    typer.echo(f"published {published.path}; next: roadseg-serve run --model {published.path}")


def say_left_out(pictures: Sequence[Path]) -> None:
    """Say how many pictures of a KITTI folder have no road mask."""
    if pictures:
        typer.echo(f"note: {len(pictures)} pictures have a lane mask but no road mask and are left out", err=True)


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

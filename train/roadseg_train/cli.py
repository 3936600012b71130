"""The command line `roadseg-train`: fit, evaluate, publish."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from roadseg_train.config import DEFAULT_THRESHOLD, PRESETS
from roadseg_train.errors import RoadsegTrainError
from roadseg_train.split import HELDOUT_OF, SPLITS

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
    workers: Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process without Ray.")] = 1,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="Threads of each worker; default: this machine's cores, shared.")
    ] = None,
) -> None:
    """Train a U-Net and keep its checkpoints in a run folder."""
    if preset not in PRESETS:
        raise typer.BadParameter(f"choose one of {', '.join(PRESETS)}", param_hint="--preset")
    from roadseg_train.check import check_data  # noqa: PLC0415  # torch takes seconds to import
    from roadseg_train.run import RunRecord, open_run  # noqa: PLC0415
    from roadseg_train.workers import train_here, train_on_ray  # noqa: PLC0415

    config = PRESETS[preset]().model_copy(update={"seed": seed} | ({"num_steps": steps} if steps else {}))
    folders = [folder.resolve() for folder in data]
    say_left_out(check_data(folders, [split, HELDOUT_OF[split]] if split in HELDOUT_OF else [split]))
    record = RunRecord.of(config=config, data=folders, split=split)
    num_fit, num_heldout = len(record.fit_frames), len(record.heldout_frames())
    open_run(run, record)
    typer.echo(f"{run}: {preset} on {num_fit} frames of split {split!r}, scored on {num_heldout} held-out ones")
    if workers == 0:
        train_here(run, record)
    else:
        cores = cpus_per_worker or max(1, (os.cpu_count() or 1) // workers)
        train_on_ray(run, record, num_workers=workers, cpus_per_worker=cores)
    typer.echo(f"done; next: roadseg-train evaluate --run {run}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Option(help="Run folder of fit.")],
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "heldout",
    data: Annotated[list[Path] | None, typer.Option(help="Dataset folders; default: those of the run.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which a pixel is road.")
    ] = DEFAULT_THRESHOLD,
    robustness_frames: Annotated[
        int, typer.Option(min=0, help="Pictures, spread over the split, to score in fog, rain, dark, ...; 0 for none.")
    ] = 16,
    leaky: Annotated[
        Path | None,
        typer.Option(
            help="metrics.json of the same recipe fitted on random-fit and evaluated on random-heldout: "
            "its figure is shown beside this one, as what a leaky split claims."
        ),
    ] = None,
    kitti_submission: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the probabilities of testing/image_2, named for the KITTI Road server. They are in "
            "perspective; the server wants bird's-eye views, which the devkit's transform2BEV.py makes of them."
        ),
    ] = None,
) -> None:
    """Score the newest checkpoint of a run on a split; write report.html and metrics.json into the run folder."""
    from roadseg_train.cases import show_cases  # noqa: PLC0415  # torch takes seconds to import
    from roadseg_train.check import check_data, check_pictures  # noqa: PLC0415
    from roadseg_train.evaluate import evaluate_frames, read_leaky_iou  # noqa: PLC0415
    from roadseg_train.leak import measure_leak  # noqa: PLC0415
    from roadseg_train.report import render_report  # noqa: PLC0415
    from roadseg_train.run import load_program, read_run  # noqa: PLC0415
    from roadseg_train.submission import find_test_pictures, write_submission  # noqa: PLC0415

    record = read_run(run)
    program, step = load_program(run, record.config)
    if data:
        record = record.model_copy(update={"data": [folder.resolve() for folder in data]})
    network_random = read_leaky_iou(leaky, config=record.config, split=split) if leaky else None
    say_left_out(check_data(record.data, [split], everything=True))  # the leak is measured on all
    pictures = find_test_pictures(record.data) if kitti_submission else None
    if pictures:
        check_pictures(list(pictures.by_name.values()))
    frames = record.frames(split)
    evaluation = evaluate_frames(
        program,
        frames,
        run=str(run),
        config=record.config,
        step=step,
        fitted_on=record.split,
        fitted=set(record.fit_frames),
        data=[str(folder) for folder in record.data],
        split=split,
        threshold=threshold,
        num_robustness_frames=robustness_frames,
        leak=measure_leak(record.all_frames(), network_random),
    )
    if pictures and kitti_submission:
        write_submission(program, pictures, kitti_submission, config=record.config)
        for warning in pictures.warnings:
            typer.echo(f"warning: {warning}", err=True)
    folder = run / "evaluation" / f"{evaluation.dataset.replace(' ', '-').lower()}-{split}"
    with TemporaryDirectory() as scratch:
        local = Path(scratch) / "evaluation"
        local.mkdir()  # with the usual permissions, which the scratch folder itself has not
        (local / "metrics.json").write_text(evaluation.model_dump_json(indent=2) + "\n")
        report = render_report(evaluation, show_cases(program, frames, evaluation), pictures)
        (local / "report.html").write_text(report)
        shutil.copytree(local, folder, dirs_exist_ok=True)
    print_scores(evaluation)
    typer.echo(f"wrote {folder / 'report.html'} and metrics.json beside it")
    if pictures:
        typer.echo(
            f"wrote {len(pictures.by_name)} files for KITTI's devkit, which makes them bird's-eye views, "
            f"to {kitti_submission}"
        )


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

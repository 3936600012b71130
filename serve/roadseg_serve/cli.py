"""The command line `roadseg-serve`."""

import os
import secrets
import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from roadseg_serve.engines.engine import EngineName
from roadseg_serve.errors import InputError, RoadsegError, StartError
from roadseg_serve.messages import AnswerOptions, Format
from roadseg_serve.settings import LogFormat, listens_itself, read_settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@cli.callback()
def root() -> None:
    """Find the road in pictures, over HTTP or in files."""


@cli.command()
def run(
    model: Annotated[
        str | None,
        typer.Option(
            help="Model version: bundled:small, its folder, file:///its/folder, or s3://bucket/path.",
            show_default="bundled:small",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings, as under `args` of a Serve config file.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    log_format: Annotated[LogFormat, typer.Option(help="Of the lines in /tmp/ray/session_latest/logs/serve.")] = "text",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port at which Prometheus finds the metrics, at /metrics.",
            show_default="any free one",
        ),
    ] = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace", help="Send traces by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT, or http://localhost:4318."
        ),
    ] = False,
) -> None:
    """Serve one model on this machine until Ctrl-C.

    Then: curl -F file=@road.png http://localhost:5000/upload -o mask.jpg
    """
    try:
        args = read_settings(config, model=model, **({} if config else this_machine()))
        settle_ray_environment()
        if trace:
            ask_for_traces()
        if listens_itself(args):
            open_replica_port(port)
        # Ray is slow to load, and reads the environment as it loads.
        from roadseg_serve.local_server import serve_until_stopped  # noqa: PLC0415

        serve_until_stopped(args, host=host, port=port, log_format=log_format, metrics_port=metrics_port)
    except StartError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@cli.command(no_args_is_help=True)
def segment(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Pictures, videos, folders, or patterns in quotes ('drives/**/*.png'). - reads one picture from "
            "standard input and writes its answer to standard output.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the answers. Each has its input's name, and the place that it has in the folder given, or "
            "below the part of a pattern that has no wildcard."
        ),
    ] = Path("masks"),
    wanted: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="png and jpeg are masks (255 road, 0 not), probability is a grey PNG (255 surely road), overlay shows "
            "the road in the picture, json has figures and outlines. Of a video, overlay is an mp4 with its times and "
            "sound; all others are a folder with a file for each frame.",
            show_default="png; overlay for videos",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="From which probability on it is road.", show_default="the model's own"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model version: bundled:small, its folder, file:///its/folder, or s3://bucket/path.")
    ] = "bundled:small",
    engine: Annotated[
        Literal["auto", EngineName],
        typer.Option(help="What computes; auto is the quickest exact one that is installed."),
    ] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into subfolders too.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of a video, take each N-th frame only.")] = 1,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out what has an answer already: continues what was stopped.")
    ] = False,
    summary: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Table of all inputs: size, road share, seconds, what went wrong."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Threads that read and write beside the model's own, which are one for each CPU.")
    ] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only say what goes wrong.")] = False,
) -> None:
    """Find the road in pictures and videos on this machine, without a server.

    \b
    roadseg-serve segment road.jpg                          masks/road.png
    roadseg-serve segment drive/ -r --format overlay        masks/… as in drive/
    roadseg-serve segment dashcam.mp4 --summary road.csv    masks/dashcam.mp4
    roadseg-serve segment - < road.jpg > mask.png

    Exit code: 0 all is well, 1 something failed and was named, 2 nothing was begun, 130 after Ctrl-C.

    An answer is there whole or not at all.
    """  # noqa: D301 typer keeps the lines of a paragraph that begins with this sign
    try:
        # Pillow and what it reads pictures with are of no use to `run`'s own process.
        from roadseg_serve.offline import console  # noqa: PLC0415
        from roadseg_serve.offline.segment import Options  # noqa: PLC0415

        if paths == ["-"]:
            console.segment_stdin(model=model, engine=engine, wish=AnswerOptions(wanted or Format.PNG, threshold))
            return
        all_well = console.segment_paths(
            paths,
            out=out,
            wanted=wanted,
            recursive=recursive,
            model=model,
            engine=engine,
            summary=summary,
            options=Options(threshold=threshold, every=every, skip_existing=skip_existing, num_jobs=jobs),
            quiet=quiet,
        )
    except RoadsegError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only disturb the leaving
        raise typer.Exit(130) from stop
    if not all_well:
        raise typer.Exit(1)


def this_machine() -> dict[str, Any]:
    """What differs from the defaults, which are a cluster's, where one machine does everything."""
    return {"form": "fused", "predict": {"num_cpus": len(os.sched_getaffinity(0))}}


def settle_ray_environment() -> None:
    """What the Ray of this machine shall be like: it reports to nobody and obeys nobody else."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all interfaces and runs what it is told: only who knows this run's token may speak to it.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Its HTTP server takes our request ids for its own, and believes nobody's word about another's address.
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "roadseg_serve.graph.ray_proxy:middleware"
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    # The log is its file: a second line of each on a stream that nobody reads would cost as much again.
    os.environ["RAY_SERVE_LOG_TO_STDERR"] = "0"


def ask_for_traces() -> None:
    """Let every process of Ray Serve send traces. Its proxy knows these variables only, and no `tracing_config`."""
    os.environ["RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH"] = "roadseg_serve.observe.trace:otlp_exporter"
    os.environ["RAY_SERVE_TRACING_SAMPLING_RATIO"] = "0"  # `trace.TraceEdge` decides instead
    os.environ.setdefault("OTEL_SERVICE_NAME", "roadseg")


def open_replica_port(port: int) -> None:
    """Let the one replica listen itself, with no proxy before it, which would cost as much as the picture work."""
    os.environ["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "1"
    os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] = str(port)
    os.environ["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] = str(port + 1)
    # No load balancer has to hear that this replica is going.
    os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0"
    # The stages compute in threads, so the loop that takes requests can be theirs too.
    os.environ["RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"] = "0"
    os.environ["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] = "0"


def main() -> None:
    """Entry point of the command."""
    cli()

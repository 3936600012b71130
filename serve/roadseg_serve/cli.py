"""The command line `roadseg-serve`."""

import os
import secrets
import signal
from pathlib import Path
from typing import Annotated

import typer

from roadseg_serve.engines.engine import EngineChoice
from roadseg_serve.errors import InputError, RoadsegError, StartError
from roadseg_serve.messages import AnswerOptions, Format
from roadseg_serve.settings import LogFormat, listens_itself, read_settings

MODEL_HELP = "Model version: bundled:small, a folder, file:///absolute/path, or s3://bucket/path."

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@cli.callback()
def root() -> None:
    """Find the road in pictures, over HTTP or in files."""


@cli.command()
def run(
    model: Annotated[str | None, typer.Option(help=MODEL_HELP, show_default="bundled:small")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings, like `args` in a Serve config file.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 allows other machines to connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    log_format: Annotated[
        LogFormat, typer.Option(help="Format of the logs in /tmp/ray/session_latest/logs/serve.")
    ] = "text",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port for Prometheus metrics, under /metrics.", show_default="any free port"
        ),
    ] = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace", help="Send traces over OTLP/HTTP to OTEL_EXPORTER_OTLP_ENDPOINT or http://localhost:4318."
        ),
    ] = False,
) -> None:
    """Serve one model on this machine until Ctrl-C.

    Try it: curl -F file=@road.png http://localhost:5000/upload -o mask.jpg
    """
    try:
        # The defaults are for a cluster.
        single_machine = {"form": "fused", "predict": {"num_cpus": len(os.sched_getaffinity(0))}}
        args = read_settings(config, model=model, **({} if config else single_machine))
        set_ray_environment(trace=trace, replica_port=port if listens_itself(args) else None)
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
            help="Pictures, videos, folders, or quoted patterns ('drives/**/*.png'). - reads one picture from standard "
            "input and writes the result to standard output.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Output folder. Each result keeps its input's name, and its path below the given folder or below the "
            "fixed part of the pattern."
        ),
    ] = Path("masks"),
    wanted: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="png and jpeg: mask (255 road, 0 not road). probability: grey PNG (255 certainly road). overlay: the "
            "picture with its road coloured. json: figures and outlines. For a video, overlay is an mp4 with the "
            "original timing and sound; other formats give a folder with one file per frame.",
            show_default="png; overlay for videos",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Pixels with at least this probability count as road.", show_default="the model's own"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "bundled:small",
    engine: Annotated[
        EngineChoice, typer.Option(help="Inference engine; auto is the fastest float32 engine installed.")
    ] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Include subfolders.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Only every N-th frame of a video.")] = 1,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip inputs that have a result already, to continue a stopped run.")
    ] = False,
    summary: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write a table of all inputs: size, road share, seconds, error."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Threads for decoding and encoding, in addition to one per CPU for the model.")
    ] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only print errors.")] = False,
) -> None:
    """Find the road in pictures and videos on this machine, without a server.

    \b
    roadseg-serve segment road.jpg                          masks/road.png
    roadseg-serve segment drive/ -r --format overlay        masks/... as in drive/
    roadseg-serve segment dashcam.mp4 --summary road.csv    masks/dashcam.mp4
    roadseg-serve segment - < road.jpg > mask.png

    Exit codes: 0 success, 1 an error (the other inputs are still processed), 2 wrong arguments (nothing is done), 130
    Ctrl-C. No file is ever left half-written.
    """  # noqa: D301  # typer keeps the line breaks of a paragraph that starts with this character
    try:
        # Imports Pillow, which `run` does not need.
        from roadseg_serve.offline import console  # noqa: PLC0415
        from roadseg_serve.offline.segment import Options  # noqa: PLC0415

        if paths == ["-"]:
            console.segment_stdin(
                model=model, engine=engine, answer_options=AnswerOptions(wanted or Format.PNG, threshold)
            )
            return
        succeeded = console.segment_paths(
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only print a traceback
        raise typer.Exit(130) from stop
    if not succeeded:
        raise typer.Exit(1)


def set_ray_environment(*, trace: bool, replica_port: int | None) -> None:
    """Make Ray send no usage reports, accept no commands from others, and let a replica with a port listen itself."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all interfaces and runs any code it receives, so it must ask for the token of this run.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Its HTTP server uses our request ids, and trusts no forwarded client address.
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "roadseg_serve.graph.ray_proxy:middleware"
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    # The log goes to files; printing it as well would double the cost.
    os.environ["RAY_SERVE_LOG_TO_STDERR"] = "0"
    if trace:  # Ray's proxy reads only these variables, not `tracing_config`
        os.environ["RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH"] = "roadseg_serve.observe.trace:otlp_exporter"
        os.environ["RAY_SERVE_TRACING_SAMPLING_RATIO"] = "0"  # `trace.TraceEdge` decides instead
        os.environ.setdefault("OTEL_SERVICE_NAME", "roadseg")
    if replica_port is not None:  # a proxy in front of the only replica would double the cost of a request
        os.environ["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "1"
        os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] = str(replica_port)
        os.environ["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] = str(replica_port + 1)
        # No load balancer needs time to notice that this replica stops.
        os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0"
        # The stages compute in threads, so they can share the event loop that takes requests.
        os.environ["RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"] = "0"
        os.environ["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] = "0"


def main() -> None:
    """Entry point of the command."""
    cli()

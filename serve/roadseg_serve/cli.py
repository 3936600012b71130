"""The command line `roadseg-serve`."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from roadseg_serve.errors import StartError
from roadseg_serve.log import LogFormat
from roadseg_serve.settings import listens_itself, read_settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@cli.callback()
def root() -> None:
    """Find the road in pictures, over HTTP."""


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
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the lines in /tmp/ray/session_latest/logs/serve.")
    ] = LogFormat.TEXT,
) -> None:
    """Serve one model on this machine until Ctrl-C.

    Then: curl -F file=@road.png http://localhost:5000/upload -o mask.jpg
    """
    try:
        args = read_settings(config, model=model, form=None if config else "fused")
        settle_ray_environment()
        if listens_itself(args):
            open_replica_port(port)
        # Ray is slow to load, and reads the environment as it loads.
        from roadseg_serve.local import serve_until_stopped  # noqa: PLC0415

        serve_until_stopped(args, host=host, port=port, log_format=log_format)
    except StartError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def settle_ray_environment() -> None:
    """What the Ray of this machine shall be like: it reports to nobody and obeys nobody else."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all interfaces and runs what it is told: only who knows this run's token may speak to it.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Its HTTP server takes our request ids for its own, and believes nobody's word about another's address.
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "roadseg_serve.request_id:around_ray"
    os.environ["FORWARDED_ALLOW_IPS"] = ""


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

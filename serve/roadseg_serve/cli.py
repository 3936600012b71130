"""The command line `roadseg-serve`."""

import os
import secrets
from typing import Annotated

import typer

from roadseg_serve.errors import StartError

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@cli.callback()
def root() -> None:
    """Find the road in pictures, over HTTP."""


@cli.command()
def run(
    model: Annotated[
        str, typer.Option(help="Model version: bundled:small, its folder, or file:///its/folder.")
    ] = "bundled:small",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve one model on this machine until Ctrl-C.

    Then: curl -F file=@road.png http://localhost:5000/upload -o mask.jpg
    """
    settle_ray_environment()
    # Ray is slow to load, and reads the environment as it loads.
    from roadseg_serve.local import serve_until_stopped  # noqa: PLC0415

    try:
        serve_until_stopped(model=model, host=host, port=port)
    except StartError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def settle_ray_environment() -> None:
    """What the Ray of this machine shall be like: it reports to nobody and obeys nobody else."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all interfaces and runs what it is told: only who knows this run's token may speak to it.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def main() -> None:
    """Entry point of the command."""
    cli()

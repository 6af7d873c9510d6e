"""`tiedexport bench --server`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tiedexport.cli.options import comma_separated, progress_bar
from tiedexport.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVER = ("bundle", "runtime", "stage", "batch", "duration_s", "threads", "callers")
"""What of bench's own goes with --server; each has a default of its own there."""

SERVER_ONLY = ("rates", "arrivals", "model")
"""What goes with nothing else."""


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `bench` takes for a server."""
    for option in (
        click.option("--model", metavar="NAME",
                     help="The server's models are NAME_encoder, ...; else the bundle's."),
        click.option("--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson",
                     show_default=True, help="How requests of --rate come."),
        click.option("--rate", "rates", callback=comma_separated(float), metavar="N,...",
                     help="Requests a second; by default up to saturation."),
        click.option("--server", metavar="URL",
                     help="A server of NAME.TIED, http:// or grpc://, under load."),
    ):  # fmt: skip
        command = option(command)
    return command


def refuse_without_server(arguments: dict[str, Any]) -> None:
    """Take away what goes with --server alone.

    Raises:
        click.UsageError: it was given.
    """
    ctx = click.get_current_context()
    for param in ctx.command.params:
        if param.name in SERVER_ONLY:
            del arguments[param.name]
            if ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"{param.opts[-1]} goes with --server")


def measure_server(
    url: str, quiet: bool, json_file: Path | None, arguments: dict[str, Any]
) -> None:
    """Load the server and show what came of it."""
    if "bundle" not in arguments:
        raise click.UsageError("Missing argument 'NAME.TIED'.")
    from tiedexport.report.server_terminal import print_server
    from tiedexport.server_bench import server_bench

    result = server_bench(url=url, **arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, print_server)
    out.verdict(result)

"""`tiedexport inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, json_option
from tiedexport.output import Output


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.option("--check", type=click.Choice(["hash", "size"]), default="hash", show_default=True)
@json_option
@common
def inspect(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Show what is in a bundle.

    Stages, shapes, ties, files, engines, versions, and how it was trained.
    """
    from tiedexport import inspect as verb
    from tiedexport.report import terminal

    Output(json_file).show(verb.inspect(**arguments), terminal.print_manifest)

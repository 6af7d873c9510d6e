"""`tiedexport verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, json_option, progress_bar
from tiedexport.output import Output


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.option("--runtime", multiple=True, help="Only this one (see doctor); repeat for more.")
@click.option("--require", multiple=True, help="Exit 3 unless this one ran; repeat for more.")
@click.option("--data", help="Where the test set is; default: where the training found it.")
@json_option
@common
def verify(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Compare every runtime with float64.

    Each output element is judged against its own derived bound; a runtime that cannot run here is a
    row that says why.
    """
    from tiedexport import verify as verb
    from tiedexport.report import terminal

    result = verb.verify(**arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_verify)
    out.verdict(result)

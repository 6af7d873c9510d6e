"""`tiedexport retie`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, json_option, progress_bar
from tiedexport.errors import EXIT_CHECK_FAILED, EXIT_MISSING
from tiedexport.output import Output


@click.command()
@click.argument("inputs", metavar="IN.ONNX...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", metavar="OUT/", type=PATH, required=True,
              help="The folder to write; input files are never changed.")  # fmt: skip
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="Also propose weights that differ by at most this.")  # fmt: skip
@click.option("--accept", is_flag=True, help="Apply what --atol proposes.")
@click.option("--unproven", is_flag=True, help="Write even where nothing can run the graphs.")
@json_option
@common
def retie(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Mend ties: store equal and transposed-equal weights once.

    Writes the same models with one copy of each weight, and proves that they compute the same bits
    in ONNX Runtime.
    """
    from tiedexport import retie as verb
    from tiedexport.report import ties_terminal

    result = verb.retie(**arguments, progress=progress_bar(quiet))
    Output(json_file).show(result, ties_terminal.print_retie)
    if not result.passed and not (arguments["unproven"] and result.outputs):
        raise click.exceptions.Exit(EXIT_CHECK_FAILED if result.failed else EXIT_MISSING)

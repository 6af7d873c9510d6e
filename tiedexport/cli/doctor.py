"""`tiedexport doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from tiedexport.cli.options import common, json_option
from tiedexport.output import Output


@click.command()
@json_option
@common
def doctor(quiet: bool, json_file: Path | None) -> None:
    """Show what works here and what to install.

    One row a runtime and engine builder; for each that is missing, why and what to do.
    """
    from tiedexport import doctor as verb
    from tiedexport.report import terminal

    Output(json_file).show(verb.doctor(), terminal.print_doctor)

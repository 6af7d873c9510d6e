"""`tiedexport demo`."""

from __future__ import annotations

from pathlib import Path

import click

from tiedexport.cli.options import PATH, common, json_option, progress_bar
from tiedexport.output import Output


@click.command()
@click.option("-o", "--output", type=PATH, default="tiedexport-demo", show_default=True)
@json_option
@common
def demo(quiet: bool, json_file: Path | None, output: Path) -> None:
    """Walk the whole path: train, build, verify, measure, report."""
    from tiedexport import demo as verb
    from tiedexport.report import terminal

    result = verb.demo(output, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_demo)
    out.verdict(result)

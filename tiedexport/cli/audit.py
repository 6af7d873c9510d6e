"""`tiedexport audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import comma_separated, common, json_option, progress_bar
from tiedexport.errors import EXIT_CHECK_FAILED, EXIT_MISSING
from tiedexport.output import Output, writable_place


@click.command()
@click.argument("things", metavar="THING...", nargs=-1, required=True)
@click.option("--fail-on-copies", is_flag=True,
              help="Exit 1 if a tie has lost its one copy, 3 if nothing can tell.")  # fmt: skip
@click.option("--input-shape", callback=comma_separated(int),
              help="Of one item, for a live module: 784 or 1,28,28.")  # fmt: skip
@click.option("--deep", is_flag=True,
              help="Also run what is over 512 MiB, and a bundle's every runtime.")  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path), callback=writable_place,
              metavar="FILE.html", help="Also write a page with pictures.")  # fmt: skip
@json_option
@common
def audit(
    quiet: bool,
    json_file: Path | None,
    fail_on_copies: bool,
    report: Path | None,
    **arguments: Any,
) -> None:
    """Count the physical copies of every tied weight.

    THING is a checkpoint, a bundle, one or several .onnx files, a .safetensors file, a TensorRT
    plan beside the weights it was built from, or a live module as package.module:factory.

    With --fail-on-copies it exits 1 where a stage stores a tie more than once or a live module has
    a mistake that breaks a tie already; 3 where a stage is not proven, or nothing could be
    measured; else 0. Rows for comparison, and mistakes that only a later call would make, do not
    count.
    """
    from tiedexport import audit as verb
    from tiedexport.report import ties_terminal

    result = verb.audit(**arguments, progress=progress_bar(quiet))
    if report is not None:
        from tiedexport.report import audit_report

        audit_report(result, report)
    Output(json_file).show(result, ties_terminal.print_audit)
    if fail_on_copies and not result.passed:
        raise click.exceptions.Exit(EXIT_CHECK_FAILED if result.failed else EXIT_MISSING)

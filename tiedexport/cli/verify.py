"""`tiedexport verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, json_option, progress_bar
from tiedexport.output import Output, writable_place

_INPUTS = "Write the golden input of --stage (or the autoencoder) for Polygraphy."
_OUTPUTS = "Write what each runtime makes of it; with --layers, of every layer."


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.option("--runtime", multiple=True, help="Only this one (see doctor); repeat for more.")
@click.option("--require", multiple=True, help="Exit 3 unless this one ran; repeat for more.")
@click.option("--stage", multiple=True, help="Only this one; repeat for more.")
@click.option("--precision", default="", help="fp32,fp16,bf16; default: all in the bundle.")
@click.option("--layers", is_flag=True, help="Layer by layer too; name the first that strays.")
@click.option("--data", help="Where the test set is; default: where the training found it.")
@click.option("--save-inputs", type=PATH, callback=writable_place, help=_INPUTS)
@click.option("--save-outputs", type=PATH, callback=writable_place, help=_OUTPUTS)
@click.option("--load-outputs", type=PATH, help="Judge what others made of it, too.")
@json_option
@common
def verify(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Compare every runtime with float64.

    Each output element is judged against its own derived bound; a runtime that cannot run here is a
    row that says why. The files are those of polygraphy run: its --load-inputs, --load-outputs,
    --save-outputs.
    """
    from tiedexport import verify as verb
    from tiedexport.report import terminal

    result = verb.verify(**arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_verify)
    out.verdict(result)

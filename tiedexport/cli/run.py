"""`tiedexport run`."""

from __future__ import annotations

from typing import Any

import click

from tiedexport.cli.options import PATH, common


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.argument("verb", type=click.Choice(["encode", "decode", "reconstruct"]))
@click.argument("input", metavar="INPUT.NPY", type=PATH)
@click.option("-o", "--output", metavar="OUTPUT.NPY", type=PATH, required=True)
@click.option("--runtime", default="auto", show_default=True)
@click.option("--precision", help="fp32, fp16 or bf16; default: the runtime's best.")
@click.option("--memory", type=click.Choice(["shared", "packed"]), default="shared",
              show_default=True, help="One copy of each weight, or fastest layout.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1))
@common
def run(quiet: bool, **arguments: Any) -> None:
    """Run an array through a stage."""
    import logging

    from tiedexport import run as module

    logger = logging.getLogger("tiedexport")
    if not quiet and not logger.isEnabledFor(logging.WARNING):
        logger.setLevel(
            logging.WARNING
        )  # which runtime was passed over, which stores weights again
    path = module.run(**arguments)
    if not quiet:
        click.echo(path)

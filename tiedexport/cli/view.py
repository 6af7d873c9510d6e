"""`tiedexport view`."""

from __future__ import annotations

from typing import Any

import click

from tiedexport.cli.options import PATH, common


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=0,
              help="Where to listen; default: a free port, which is printed.")  # fmt: skip
@click.option("--browser/--no-browser", default=True,
              help="Open the page in a browser, or only print its address.")  # fmt: skip
@click.option("--report", metavar="FILE.HTML", type=PATH,
              help="A report to link to; default: report.html beside the bundle.")  # fmt: skip
@common
def view(quiet: bool, **arguments: Any) -> None:
    """Look at a bundle live: draw, drop an image, move its latents.

    Serves a page on 127.0.0.1, to this machine's browsers only, until Ctrl-C. It shows the code and
    the reconstruction of any input in every runtime that runs here, and why the others do not.
    """
    from tiedexport import view as module

    def say(url: str) -> None:
        click.echo(url)
        if not quiet:
            click.echo("Ctrl-C ends it", err=True)

    module.view(**arguments, say=say)

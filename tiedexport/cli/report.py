"""`tiedexport report`."""

from __future__ import annotations

from pathlib import Path

import click

from tiedexport.cli.options import PATH, common
from tiedexport.output import Output


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.argument("results", metavar="[RESULT.json]...", nargs=-1, type=PATH)
@click.option("-o", "--output", type=PATH, default="report.html", show_default=True,
              help="The page; its Markdown twin and PNGs go beside it.")  # fmt: skip
@common
def report(quiet: bool, bundle: Path, results: tuple[Path, ...], output: Path) -> None:
    """Write a page about a bundle that one looks at before one reads.

    RESULT.json is what audit, verify, bench, train or demo wrote with --json, or what bench --suite
    keeps; what is not given is not shown, and the page says which command makes it. It is one HTML
    file that asks the network for nothing, and the same in Markdown with PNGs for a pull request.
    """
    from tiedexport import reporting
    from tiedexport.report.tables import size

    if not output.parent.is_dir():
        raise click.BadParameter(f"no folder {output.parent} to write {output.name} into")
    if output.suffix != ".html":
        raise click.BadParameter(f"{output} does not end in .html: the Markdown has its stem")
    path = reporting.write(bundle, results, output)
    if not quiet:
        twin = path.with_suffix(".md")
        Output(None).say(f"report: {path} ({size(path.stat().st_size)}), {twin}")

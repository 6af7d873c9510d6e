"""`tiedexport train`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, dry_run_option, json_option, progress_bar
from tiedexport.output import Output


@click.command()
@click.argument("recipe", type=PATH)
@click.option("-o", "--output", type=PATH, default="model.pt", show_default=True)
@click.option("--data", help="A data set's name or path in place of the recipe's.")
@click.option("--epochs", type=click.IntRange(min=1), help="In place of the recipe's.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
              help="auto takes the GPU where there is one.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an unfinished training.")
@click.option("--seed", type=click.IntRange(min=0), help="In place of the recipe's.")
@dry_run_option
@json_option
@common
def train(quiet: bool, json_file: Path | None, dry_run: bool, **arguments: Any) -> None:
    """Train the model of RECIPE, a TOML file, into a checkpoint."""
    from tiedexport import train as verb

    if dry_run:
        click.echo(verb.plan(**arguments))
        return
    out = Output(json_file)
    result = verb.train(**arguments, progress=progress_bar(quiet))
    out.show(result)
    out.say(verb.summary(result))
    out.say(f"next: tiedexport build {shlex.quote(result.checkpoint)}")

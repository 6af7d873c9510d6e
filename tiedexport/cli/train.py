"""`tiedexport train`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, dry_run_option, json_option, progress_bar
from tiedexport.output import Output

MAX_RESTARTS = 3


@click.command()
@click.argument("recipe", type=PATH)
@click.option("-o", "--output", type=PATH, default="model.pt", show_default=True)
@click.option("--data", help="A data set's name or path in place of the recipe's.")
@click.option("--epochs", type=click.IntRange(min=1), help="In place of the recipe's.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
              help="auto takes the GPU where there is one.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an unfinished training.")
@click.option("--seed", type=click.IntRange(min=0), help="In place of the recipe's.")
@click.option("--nproc", type=click.IntRange(min=1), metavar="N",
              help="Train in N processes of this host; for many hosts use torchrun.")  # fmt: skip
@click.option("--shard", is_flag=True,
              help="Each process holds a part of the model only (FSDP2).")  # fmt: skip
@click.option("--max-restarts", type=click.IntRange(min=0), default=MAX_RESTARTS,
              show_default=True, metavar="N",
              help="How often --nproc starts all again after one died.")  # fmt: skip
@click.option("--save-every", type=click.IntRange(min=1), metavar="STEPS",
              help="Save the state within an epoch too.")  # fmt: skip
@dry_run_option
@json_option
@common
def train(nproc: int | None, max_restarts: int, dry_run: bool, **arguments: Any) -> None:
    """Train the model of RECIPE, a TOML file, into a checkpoint.

    torchrun … -m tiedexport train RECIPE trains it on many hosts.
    """
    from tiedexport.training.worker import launched, leads, reporting_to_launcher

    if dry_run:
        _show_plan(arguments, nproc, leads())
    elif launched():
        with reporting_to_launcher():
            _train(**arguments, leads=leads())
    elif nproc is None:
        _train(**arguments, leads=leads())
    else:
        _launch(arguments, nproc, max_restarts)


def _train(quiet: bool, json_file: Path | None, leads: bool, **arguments: Any) -> None:
    from tiedexport import train as verb

    if not leads:
        verb.train(**arguments)
        return
    out = Output(json_file)
    result = verb.train(**arguments, progress=progress_bar(quiet))
    out.show(result)
    out.say(verb.summary(result))
    out.say(f"next: tiedexport build {shlex.quote(result.checkpoint)}")


def _launch(arguments: dict[str, Any], nproc: int, max_restarts: int) -> None:
    from tiedexport.recipe import load_recipe
    from tiedexport.training.launch import launch

    load_recipe(arguments["recipe"])  # before many processes find it invalid
    words = sys.argv[1:]
    try:
        launch(("-m", "tiedexport", *words), nproc, max_restarts)
    except KeyboardInterrupt:
        if Path(f"{arguments['output']}.resume").exists():
            command = ["tiedexport", *(word for word in words if word != "--resume"), "--resume"]
            click.echo(f"stopped; to go on: {shlex.join(command)}", err=True)
        raise


def _show_plan(arguments: dict[str, Any], nproc: int | None, leads: bool) -> None:
    from tiedexport import train as verb

    if leads:
        wanted = {name: arguments[name] for name in arguments.keys() - {"quiet", "json_file"}}
        processes = nproc or int(os.environ.get("WORLD_SIZE", "1"))
        click.echo(verb.plan(**wanted, processes=processes))

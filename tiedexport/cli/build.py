"""`tiedexport build`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tiedexport.cli.engine_options import engine_options
from tiedexport.cli.options import (
    PATH,
    comma_separated,
    common,
    dry_run_option,
    json_option,
    progress_bar,
)
from tiedexport.engine_words import Weights
from tiedexport.errors import EXIT_MISSING
from tiedexport.output import Output

if TYPE_CHECKING:
    from tiedexport.engine_options import EngineOptions


def _settings(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """`activation=tanh`, repeated, as a dict."""
    pairs = [value.partition("=") for value in values]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise click.BadParameter(f"{name + equals + value!r} is not FIELD=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", type=PATH, help="The bundle; default: beside MODEL, .tied.")
@click.option("--precision", metavar="fp32,fp16,bf16",
              help="Types to store and compute in, or auto, which decides by evidence. "
              "Default: the recipe's, else fp32,fp16.")  # fmt: skip
@click.option("--keep-fp32", multiple=True, metavar="NAME",
              help="A weight that stays in fp32 in every precision; repeat for more.")  # fmt: skip
@click.option("--opset", type=click.IntRange(18, 23), help="Of the ONNX graphs. Default: 22.")
@click.option("--io-dtype", type=click.Choice(["fp32", "fp16"]),
              help="Of inputs and outputs. Default: fp32.")  # fmt: skip
@click.option("--input-shape", callback=comma_separated(int), metavar="784",
              help="Of one item, for a live module: 784, or 1,28,28.")  # fmt: skip
@click.option("--family", metavar="autoencoder", help="What a bare state dict is of.")
@click.option("--set", "settings", multiple=True, callback=_settings, metavar="FIELD=VALUE",
              help="What a state dict cannot tell: activation=tanh; repeat for more.")  # fmt: skip
@click.option("--samples", type=PATH, metavar="FILE.npy",
              help="Inputs for the golden pairs of a model without; default: random.")  # fmt: skip
@click.option("--target", multiple=True,
              help="An engine to build: rtx:sm89, tensorrt, or none; repeat for more. Default: the "
              "recipe's and those that stand, else all that this machine can build.")  # fmt: skip
@click.option("--weights", type=click.Choice(get_args(Weights)),
              help="Engines take weights as inputs, hold them, or are one that encodes and "
              "decodes. Default: as those that stand if they agree, or shared.")  # fmt: skip
@engine_options
@click.option("--force", is_flag=True, help="Build engines that are unchanged, too.")
@dry_run_option
@json_option
@common
def build(
    quiet: bool,
    target: tuple[str, ...],
    engine_options: EngineOptions | None,
    json_file: Path | None,
    dry_run: bool,
    **arguments: Any,
) -> None:
    """Build a bundle from a model, or engines into a bundle.

    MODEL is a checkpoint that train wrote, a live module as package.module:factory, a program of
    torch.export (.pt2), or a state dict (.pt, .safetensors) with --family autoencoder. A live
    module and a .pt2 run code: build those you trust. Or it is a bundle, which gets engines.

    The bundle holds graphs, each weight once a precision, engines, and golden pairs to verify with.
    Engines that stand in it already are built again only where something changed for them.
    """
    from tiedexport import export as verb
    from tiedexport.engine_options import EngineOptions
    from tiedexport.report import terminal

    if engine_options == EngineOptions() and not arguments["profile_shapes"]:
        engine_options = None
    arguments["engine_options"] = engine_options
    if "none" in target and len(target) > 1:
        raise click.UsageError("--target none goes with no other target")
    arguments["target"] = () if target == ("none",) else target or None
    if dry_run:
        click.echo(verb.plan(**arguments))
        return
    result = verb.build(**arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_build)
    if quiet:  # an assumption is no progress
        for note in result.notes:
            out.say(note)
    out.say(f"next: tiedexport verify {shlex.quote(result.bundle)}")
    if not result.passed:
        raise click.exceptions.Exit(EXIT_MISSING)

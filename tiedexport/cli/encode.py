"""`tiedexport encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tiedexport.cli.options import PATH, common, json_option, progress_bar
from tiedexport.output import Output


def _shard(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    number, slash, count = value.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise click.BadParameter(f"{value!r} is not K/N with K from 0 to N - 1")
    return int(number), int(count)


def _batch(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    if value != "auto" and not (value.isdecimal() and int(value)):
        raise click.BadParameter(f"{value!r} is neither auto nor a number of rows")
    return None if value == "auto" else int(value)


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="OUT", type=PATH, required=True,
              help="A folder of Parquet parts, or one array, NAME.npy.")  # fmt: skip
@click.option("--stage", type=click.Choice(["encode", "decode", "reconstruct"]), default="encode",
              show_default=True)  # fmt: skip
@click.option("--runtime", default="auto", show_default=True)
@click.option("--precision", help="fp32, fp16 or bf16; default: the runtime's best.")
@click.option("--memory", type=click.Choice(["shared", "packed"]), default="shared",
              show_default=True, help="One copy of each weight, or fastest layout.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--shard", callback=_shard, default="0/1", show_default=True, metavar="K/N",
              help="The K-th of N shares of the work, from 0.")  # fmt: skip
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--ray-address", metavar="HOST:PORT",
              help="Of the cluster; default: RAY_ADDRESS, or this machine alone.")  # fmt: skip
@click.option("--batch", callback=_batch, default="auto", show_default=True,
              help="Rows computed at once.")  # fmt: skip
@click.option("--column", help="Of a table, or array of an .npz, that holds the samples.")
@click.option("--on-error", type=click.Choice(["stop", "skip"]), default="stop",
              show_default=True, help="At a row that cannot be computed.")  # fmt: skip
@click.option("--part-rows", type=click.IntRange(min=1),
              help="The most rows of a part; default: 131072 or 256 MiB.")  # fmt: skip
@json_option
@common
def encode(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Run all rows of INPUT... through a stage, in bounded memory.

    INPUT is a Parquet, Arrow, .npy or .npz file, a folder of such or of images, or a quoted
    pattern. Whatever stops it, the same command goes on where it was; the output is then the same
    to the byte as without the stop.
    """
    from tiedexport import encode as verb

    result = verb.encode(**arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result)
    if not quiet:
        out.say(verb.summary(result))

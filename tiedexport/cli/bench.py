"""`tiedexport bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tiedexport.cli.options import PATH, comma_separated, common, json_option, progress_bar
from tiedexport.output import Output


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH, required=False)
@click.option("--runtime", multiple=True, help="Only this one (see doctor); repeat for more.")
@click.option("--stage", multiple=True, default=("autoencoder",), show_default=True,
              help="encoder, decoder or autoencoder; repeat for more.")  # fmt: skip
@click.option("--batch", callback=comma_separated(int), default="1,8,64,256",
              show_default=True)  # fmt: skip
@click.option("--warmUp", "warmup_ms", type=float, default=200, show_default=True, metavar="MS",
              help="Milliseconds before timing starts, a contender.")  # fmt: skip
@click.option("--duration", "duration_s", type=float, default=1, show_default=True, metavar="S",
              help="Least seconds of timing, a contender and batch size.")  # fmt: skip
@click.option("--iterations", type=int, default=10, show_default=True, help="Least timed calls.")
@click.option("--percentile", callback=comma_separated(float), default="50,95,99",
              show_default=True)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--memory", type=click.Choice(["shared", "packed", "both"]), default="shared",
              show_default=True, help="One copy of each weight, or fastest layout.")  # fmt: skip
@click.option("--acceptance", is_flag=True, help="All that needs a GPU; NAME.TIED may be left out.")
@click.option("-o", "--output", type=PATH, help="Folder of --acceptance's results.")
@json_option
@common
def bench(
    quiet: bool,
    json_file: Path | None,
    acceptance: bool,
    output: Path | None,
    **arguments: Any,
) -> None:
    """Measure latency, contenders taking turns.

    All of them run round by round in one call; --json holds throughput and every percentile.

    With --acceptance: builds, numerics, sharing, device latency beside peers (0.25 s each), and
    failures, a verdict each. It exits with 1 if any disagrees and with 3 if any could not run.
    """
    if acceptance:
        _accept(quiet, json_file, output, arguments)
        return
    if arguments["bundle"] is None:
        raise click.UsageError("Missing argument 'NAME.TIED'.")
    if output is not None:
        raise click.UsageError("-o goes with --acceptance")
    from tiedexport import measure as verb
    from tiedexport.report import terminal

    result = verb.bench(**arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_bench)
    out.verdict(result)


def _accept(
    quiet: bool, json_file: Path | None, output: Path | None, arguments: dict[str, Any]
) -> None:
    ctx = click.get_current_context()
    for name in ("runtime", "stage", "percentile", "threads", "memory"):
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} does not go with --acceptance")
        del arguments[name]
    # What is not asked for is as the acceptance has it: it has many more contenders.
    for name in ("batch", "warmup_ms", "duration_s", "iterations"):
        if ctx.get_parameter_source(name) is ParameterSource.DEFAULT:
            del arguments[name]
    from tiedexport import acceptance as verb
    from tiedexport.acceptance import pages

    folder = output or Path(verb.DEFAULT_FOLDER)
    result = verb.acceptance(output=folder, **arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, pages.print_result)
    out.say(f"results: {folder}")
    out.verdict(result)

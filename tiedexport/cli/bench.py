"""`tiedexport bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tiedexport.cli.bench_server import (
    SERVER,
    SERVER_ONLY,
    measure_server,
    refuse_without_server,
    server_options,
)
from tiedexport.cli.options import PATH, comma_separated, common, json_option, progress_bar
from tiedexport.output import Output, writable_place

_BUDGET = ("batch", "warmup_ms", "duration_s", "iterations")
"""The options that go with --suite and --acceptance, each of which has defaults of its own."""

_BESIDE = ("roofline", "cold", "memory_use", "callers")
"""What is measured beside latency."""

_SHARED = ("runtime", "stage", "batch", "threads", "memory")
"""The options that this and latency have in common."""

_SUITE_FOLDER = Path("bench/results/suite")


def _print_schema(server: bool) -> None:
    import msgspec

    from tiedexport.results.schema import bench_schema, server_schema

    schema = server_schema() if server else bench_schema()
    click.echo(msgspec.json.format(msgspec.json.encode(schema), indent=2))


@click.command()
@click.argument("bundle", metavar="NAME.TIED", type=PATH, required=False)
@click.option("--runtime", multiple=True, help="Only this one (see doctor); repeat for more.")
@click.option("--stage", multiple=True, default=("autoencoder",), show_default=True,
              help="encoder, decoder or autoencoder; repeat for more.")  # fmt: skip
@click.option("--batch", callback=comma_separated(int), default="1,8,64,256",
              show_default=True, help="Samples a call, one measurement each.")  # fmt: skip
@click.option("--warmUp", "warmup_ms", type=float, default=200, show_default=True, metavar="MS",
              help="Least untimed milliseconds; up to 5 times that until steady.")  # fmt: skip
@click.option("--duration", "duration_s", type=float, default=1, show_default=True, metavar="S",
              help="Least seconds of timing, a contender and batch size.")  # fmt: skip
@click.option("--iterations", type=int, default=10, show_default=True, help="Least timed calls.")
@click.option("--idleTime", "idle_ms", type=float, default=0, show_default=True, metavar="MS",
              help="Pause before each call, as between requests.")  # fmt: skip
@click.option("--percentile", callback=comma_separated(float), default="90,95,99",
              show_default=True, help="Which to report; the tables show the highest.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="CPU threads of each contender.")  # fmt: skip
@click.option("--memory", type=click.Choice(["shared", "packed", "both"]), default="shared",
              show_default=True, help="One copy of each weight, or fastest layout.")  # fmt: skip
@click.option("--baseline", default="", metavar="RUNTIME[/PRECISION[/MEMORY]]",
              help="Whom to show every row's speed over.")  # fmt: skip
@click.option("--against", type=PATH, metavar="FILE", multiple=True,
              help="Show what changed since this --json of an earlier run; repeat for "
              "more runs.")  # fmt: skip
@click.option("--max-regression", type=float, metavar="PERCENT",
              help="Exit with 1 if a row takes this much more time than in --against.")  # fmt: skip
@click.option("--details", is_flag=True, help="Every figure of each row, in trtexec's lines.")
@click.option("--exportTimes", "export_times", type=PATH, callback=writable_place, metavar="FILE",
              help="Write every single time as JSON.")  # fmt: skip
@click.option("--json-schema", is_flag=True, help="Print the JSON Schema of --json.")
@click.option("--roofline", is_flag=True, help="Each latency against the limit of this machine.")
@click.option("--cold", is_flag=True, help="Fresh processes to their first output, 7 a contender.")
@click.option("--memory-use", is_flag=True, help="Memory of fresh processes, and bytes on disk.")
@click.option("--concurrency", "callers", type=click.IntRange(1, 256), metavar="N",
              help="1, 2, 4, … N callers of one session at once.")  # fmt: skip
@click.option("--suite", is_flag=True,
              help="The standing matrix of models in place of NAME.TIED; minutes.")  # fmt: skip
@click.option("--acceptance", is_flag=True, help="All that needs a GPU; NAME.TIED may be left out.")
@server_options
@click.option("-o", "--output", type=PATH, help="Folder of --suite's or --acceptance's results.")
@json_option
@common
def bench(
    quiet: bool,
    json_file: Path | None,
    json_schema: bool,
    acceptance: bool,
    suite: bool,
    server: str | None,
    output: Path | None,
    details: bool,
    **arguments: Any,
) -> None:
    """Measure latency, contenders taking turns.

    All of them run round by round in one call. Every call counts; figures that may not repeat are
    named. "Faster" is said only where the 99 % interval of the ratio excludes 1.

    With --suite: two stacks and one layer of 1, 16 and 256 MiB, with untrained weights, at batch 1,
    8 and 64, 0.3 s each; --batch, --warmUp, --duration and --iterations change that.

    With --acceptance: builds, numerics, sharing, device latency beside peers (0.25 s each), and
    failures, a verdict each. It exits with 1 if any disagrees and with 3 if any could not run.

    With --server: 1, 2, 4, … up to --concurrency callers (8), then open loops: requests come at
    --rate whether or not the server keeps up, and latency counts from when each was due. Every
    answer is compared with its golden values, and the same is measured here without the server.
    """
    if json_schema:
        _print_schema(server is not None)
        return
    modes = {"--acceptance": acceptance, "--suite": suite, "--server": server is not None}
    flag, *others = [flag for flag, given in modes.items() if given] or [""]
    if others:
        raise click.UsageError(f"{others[0]} does not go with {flag}")
    if acceptance:
        _accept(quiet, json_file, output, arguments)
    elif suite:
        _suite(quiet, json_file, output, arguments)
    elif server is not None:
        taken = _only("--server", arguments | {"output": output}, (*SERVER, *SERVER_ONLY))
        measure_server(server, quiet, json_file, taken)
    elif output is not None:
        raise click.UsageError("-o goes with --suite and --acceptance")
    else:
        _measure(quiet, json_file, details, arguments)


def _measure(quiet: bool, json_file: Path | None, details: bool, arguments: dict[str, Any]) -> None:
    refuse_without_server(arguments)
    if arguments["bundle"] is None:
        raise click.UsageError("Missing argument 'NAME.TIED'.")
    from tiedexport import measure as verb
    from tiedexport.bundle import open_bundle
    from tiedexport.report.bench_terminal import print_bench
    from tiedexport.surroundings import surround

    beside = {name: arguments.pop(name) for name in _BESIDE}
    arguments["bundle"] = open_bundle(arguments["bundle"])
    progress = progress_bar(quiet)
    result = verb.bench(**arguments, progress=progress)
    beside |= {name: arguments[name] for name in ("bundle", *_SHARED)}
    result = surround(result, **beside, progress=progress)
    out = Output(json_file)
    out.show(result, partial(print_bench, details=details))
    out.verdict(result)


def _only(flag: str, arguments: dict[str, Any], taken: tuple[str, ...]) -> dict[str, Any]:
    """Those of the options that go with the flag and were given.

    Raises:
        click.UsageError: another was given.
    """
    ctx = click.get_current_context()
    options = {param.name: param.opts[-1] for param in ctx.command.params}
    given = {
        name
        for name in (*arguments, "details")
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    for name in options:
        if name in given and name not in taken:
            what = options[name] if options[name].startswith("-") else "NAME.TIED"
            raise click.UsageError(f"{what} does not go with {flag}")
    return {name: arguments[name] for name in taken if name in given}


def _suite(
    quiet: bool, json_file: Path | None, output: Path | None, arguments: dict[str, Any]
) -> None:
    chosen = _only("--suite", arguments, ("runtime", "threads", *_BUDGET))
    folder = output or _SUITE_FOLDER
    if output is None and not folder.parent.is_dir():
        raise click.UsageError(f"there is no {folder.parent} here: name a folder with -o")
    from tiedexport import suite as verb
    from tiedexport.report.bench_terminal import print_suite

    result, path = verb.suite(folder, **chosen, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, print_suite)
    out.say(f"results: {path}")
    out.verdict(result)


def _accept(
    quiet: bool, json_file: Path | None, output: Path | None, arguments: dict[str, Any]
) -> None:
    arguments = _only("--acceptance", arguments, ("bundle", *_BUDGET))
    from tiedexport import acceptance as verb
    from tiedexport.acceptance import pages

    folder = output or Path(verb.DEFAULT_FOLDER)
    result = verb.acceptance(output=folder, **arguments, progress=progress_bar(quiet))
    out = Output(json_file)
    out.show(result, pages.print_result)
    out.say(f"results: {folder}")
    out.verdict(result)

"""The command line: one short function a verb, each importing what it needs when it runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

import tiedexport
from tiedexport.errors import EXIT_MISSING
from tiedexport.output import Output, writable_place

if TYPE_CHECKING:
    from tiedexport.progress import Progress

_PATH = click.Path(path_type=Path)


def _comma_separated(kind: Callable[[str], Any]) -> Callable[..., tuple[Any, ...]]:
    """A callback that makes `1,8,64` into (1, 8, 64)."""

    def convert(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is no comma-separated list of numbers") from None

    return convert


def _log_everything(_ctx: click.Context, _param: click.Parameter, verbose: bool) -> None:
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR)


def _print_completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None:
        return
    completion = get_completion_class(shell)
    assert completion is not None  # click knows the shells that the option admits
    click.echo(completion(cli, {}, "tiedexport", "_TIEDEXPORT_COMPLETE").source())
    ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tiedexport.__version__, prog_name="tiedexport")
@click.option(
    "--print-completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    callback=_print_completion,
    is_eager=True,
    expose_value=False,
    help="Print the completion script of a shell, to be sourced.",
)
def cli() -> None:
    """Train, export, verify and deploy weight-tied networks: one copy of every weight.

    Exit codes: 0 done, 1 the check failed, 2 usage, 3 a required runtime is missing or nothing
    could run, 4 bad input file, 5 internal error, 130 interrupted, 141 nobody reads on.
    """


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """What every verb that works for more than a moment takes."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No progress, only results and errors."),
        click.option("-v", "--verbose", is_flag=True, callback=_log_everything,
                     expose_value=False, help="Also what the libraries log."),
    ):  # fmt: skip
        command = option(command)
    return command


_json_option = click.option("--json", "json_file", type=_PATH, callback=writable_place,
                            help="Also write the result as JSON; - is stdout.")  # fmt: skip
_dry_run_option = click.option("--dry-run", is_flag=True, help="Print the plan of work only.")


@cli.command()
@click.argument("recipe", type=_PATH)
@click.option("-o", "--output", type=_PATH, default="model.pt", show_default=True)
@click.option("--data", help="A data set's name or path in place of the recipe's.")
@click.option("--epochs", type=click.IntRange(min=1), help="In place of the recipe's.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
              help="auto takes the GPU where there is one.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an unfinished training.")
@click.option("--seed", type=click.IntRange(min=0), help="In place of the recipe's.")
@_dry_run_option
@_json_option
@_common
def train(quiet: bool, json_file: Path | None, dry_run: bool, **arguments: Any) -> None:
    """Train the model of RECIPE, a TOML file, into a checkpoint."""
    from tiedexport import train as verb

    if dry_run:
        click.echo(verb.plan(**arguments))
        return
    out = Output(json_file)
    result = verb.train(**arguments, progress=_progress(quiet))
    out.show(result)
    out.say(verb.summary(result))
    out.say(f"next: tiedexport build {shlex.quote(result.checkpoint)}")


@cli.command()
@click.argument("checkpoint", metavar="MODEL.PT", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="The bundle; default: beside MODEL.PT, .tied.")
@click.option("--precision", help="fp32,fp16,bf16; default: the recipe's, else fp32,fp16.")
@click.option(
    "--target",
    multiple=True,
    help="An engine to build: rtx:sm89, tensorrt, or none; repeat for more. "
    "Default: the recipe's, else every engine that this machine can build.",
)
@click.option("--weights", type=click.Choice(["shared", "baked"]), default="shared",
              show_default=True, help="Engines take weights as inputs, or hold them.")  # fmt: skip
@click.option("--opset", type=click.IntRange(18, 23), default=22, show_default=True)
@click.option("--io-dtype", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@_dry_run_option
@_json_option
@_common
def build(
    quiet: bool, target: tuple[str, ...], json_file: Path | None, dry_run: bool, **arguments: Any
) -> None:
    """Build a bundle from a checkpoint.

    It holds graphs, each weight once a precision, engines, and golden pairs to verify with.
    """
    from tiedexport import export as verb
    from tiedexport.report import terminal

    if "none" in target and len(target) > 1:
        raise click.UsageError("--target none goes with no other target")
    arguments["target"] = () if target == ("none",) else target or None
    if dry_run:
        click.echo(verb.plan(**arguments))
        return
    result = verb.build(**arguments, progress=_progress(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_build)
    out.say(f"next: tiedexport verify {shlex.quote(result.bundle)}")
    if not result.passed:
        raise click.exceptions.Exit(EXIT_MISSING)


@cli.command()
@click.argument("bundle", metavar="NAME.TIED", type=_PATH)
@click.option("--runtime", multiple=True, help="Only this one (see doctor); repeat for more.")
@click.option("--require", multiple=True, help="Exit 3 unless this one ran; repeat for more.")
@click.option("--data", help="Where the test set is; default: where the training found it.")
@_json_option
@_common
def verify(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Compare every runtime with float64.

    Each output element is judged against its own derived bound; a runtime that cannot run here is a
    row that says why.
    """
    from tiedexport import verify as verb
    from tiedexport.report import terminal

    result = verb.verify(**arguments, progress=_progress(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_verify)
    out.verdict(result)


@cli.command()
@click.argument("bundle", metavar="NAME.TIED", type=_PATH)
@click.option("--runtime", multiple=True, help="Only this one (see doctor); repeat for more.")
@click.option("--stage", multiple=True, default=("autoencoder",), show_default=True,
              help="encoder, decoder or autoencoder; repeat for more.")  # fmt: skip
@click.option("--batch", callback=_comma_separated(int), default="1,8,64,256",
              show_default=True)  # fmt: skip
@click.option("--warmUp", "warmup_ms", type=float, default=200, show_default=True, metavar="MS",
              help="Milliseconds before timing starts, a contender.")  # fmt: skip
@click.option("--duration", "duration_s", type=float, default=1, show_default=True, metavar="S",
              help="Least seconds of timing, a contender and batch size.")  # fmt: skip
@click.option("--iterations", type=int, default=10, show_default=True, help="Least timed calls.")
@click.option("--percentile", callback=_comma_separated(float), default="50,95,99",
              show_default=True)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@_json_option
@_common
def bench(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Measure latency, contenders taking turns.

    All of them run round by round in one call; --json holds throughput and every percentile.
    """
    from tiedexport import measure as verb
    from tiedexport.report import terminal

    result = verb.bench(**arguments, progress=_progress(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_bench)
    out.verdict(result)


@cli.command()
@click.argument("bundle", metavar="NAME.TIED", type=_PATH)
@click.argument("verb", type=click.Choice(["encode", "decode", "reconstruct"]))
@click.argument("input", metavar="INPUT.NPY", type=_PATH)
@click.option("-o", "--output", metavar="OUTPUT.NPY", type=_PATH, required=True)
@click.option("--runtime", default="auto", show_default=True)
@click.option("--precision", help="fp32, fp16 or bf16; default: the runtime's best.")
@click.option("--memory", type=click.Choice(["shared", "packed"]), default="shared",
              show_default=True, help="One copy of each weight, or fastest layout.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1))
@_common
def run(quiet: bool, **arguments: Any) -> None:
    """Run an array through a stage."""
    from tiedexport import run as module

    path = module.run(**arguments)
    if not quiet:
        click.echo(path)


@cli.command()
@click.argument("bundle", metavar="NAME.TIED", type=_PATH)
@click.option("--check", type=click.Choice(["hash", "size"]), default="hash", show_default=True)
@_json_option
@_common
def inspect(quiet: bool, json_file: Path | None, **arguments: Any) -> None:
    """Show what is in a bundle.

    Stages, shapes, ties, files, engines, versions, and how it was trained.
    """
    from tiedexport import inspect as verb
    from tiedexport.report import terminal

    Output(json_file).show(verb.inspect(**arguments), terminal.print_manifest)


@cli.command()
@_json_option
@_common
def doctor(quiet: bool, json_file: Path | None) -> None:
    """Show what works here and what to install.

    One row a runtime and engine builder; for each that is missing, why and what to do.
    """
    from tiedexport import doctor as verb
    from tiedexport.report import terminal

    Output(json_file).show(verb.doctor(), terminal.print_doctor)


@cli.command()
@click.option("-o", "--output", type=_PATH, default="tiedexport-demo", show_default=True)
@_json_option
@_common
def demo(quiet: bool, json_file: Path | None, output: Path) -> None:
    """Walk the whole path: train, build, verify, measure, report."""
    from tiedexport import demo as verb
    from tiedexport.report import terminal

    result = verb.demo(output, progress=_progress(quiet))
    out = Output(json_file)
    out.show(result, terminal.print_demo)
    out.verdict(result)


def _progress(quiet: bool) -> Progress:
    from tiedexport.progress import Progress

    return Progress(quiet=quiet)

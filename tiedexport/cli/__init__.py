"""The command line: one short file a verb, each importing what it needs when it runs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

import tiedexport
from tiedexport.cli.audit import audit
from tiedexport.cli.bench import bench
from tiedexport.cli.build import build
from tiedexport.cli.demo import demo
from tiedexport.cli.doctor import doctor
from tiedexport.cli.encode import encode
from tiedexport.cli.inspect import inspect
from tiedexport.cli.package import package
from tiedexport.cli.report import report
from tiedexport.cli.retie import retie
from tiedexport.cli.run import run
from tiedexport.cli.train import train
from tiedexport.cli.verify import verify
from tiedexport.cli.view import view


def _print_completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None:
        return
    completion = get_completion_class(shell)
    assert completion is not None  # click knows the shells that the option admits
    click.echo(completion(cli, {}, "tiedexport", "_TIEDEXPORT_COMPLETE").source())
    ctx.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[
        audit,
        bench,
        build,
        demo,
        doctor,
        encode,
        inspect,
        package,
        report,
        retie,
        run,
        train,
        verify,
        view,
    ],
)
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

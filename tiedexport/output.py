"""Where a verb's result goes: tables for people, JSON for programs, a verdict for both."""

from __future__ import annotations

import os
import shlex
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tiedexport import atomic
from tiedexport.errors import EXIT_CHECK_FAILED, EXIT_MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Struct

    from tiedexport.results import BenchResult, VerifyResult
    from tiedexport.results.acceptance import AcceptanceResult
    from tiedexport.results.demo import DemoResult
    from tiedexport.results.server import ServerResult
    from tiedexport.results.suite import SuiteResult

R = TypeVar("R", bound="Struct")

STANDARD_OUTPUT = Path("-")

_FIRST_BYTE = {
    "--json": b"{",
    "--report": b"<",
    "--save-inputs": b"[",
    "--save-outputs": b"{",
    "--exportTimes": b"{",
}
"""Of what an option writes: an existing file that begins otherwise is no earlier result."""


def writable_place(_ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """A callback for an option that names a file: a mistake shows before hours of work, not after.

    Raises:
        click.BadParameter: the file's folder does not exist, the file is one, or "-" is given where
            no JSON is written.
    """
    if path == STANDARD_OUTPUT and "--json" not in param.opts:
        raise click.BadParameter("this is written into a file: only --json takes -")
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"no folder {path.parent} to write {path.name} into")
    if path is not None and path.is_dir():
        raise click.BadParameter(f"{path} is a folder")
    return path


def refuse_to_overwrite(ctx: click.Context) -> None:
    """Let no verb write over what it reads, or over its own other output.

    An output is what `writable_place` checks, and every `-o`; all other names of files are inputs.

    Raises:
        click.UsageError: it would.
    """
    outputs: dict[str, Path] = {}
    inputs: list[str] = []
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if param.name == "output" or getattr(param, "callback", None) is writable_place:
            if isinstance(value, Path) and value != STANDARD_OUTPUT:
                outputs[param.opts[-1]] = value
        else:
            several = value if isinstance(value, tuple) else (value,)
            inputs += [str(one) for one in several if isinstance(one, str | Path)]
    for option, path in outputs.items():
        for name in filter(os.path.isfile, inputs):
            if os.path.isfile(path) and os.path.samefile(path, name):
                raise click.UsageError(f"{option} {path} would overwrite the input {name}")
        for name in filter(_is_bundle, inputs):
            if path.is_file() and path.resolve().is_relative_to(Path(name).resolve()):
                raise click.UsageError(f"{option} {path} would overwrite a part of {name}")
        if option in _FIRST_BYTE and path.is_file():
            with path.open("rb") as file:
                first = file.read(1)
            if first not in (b"", _FIRST_BYTE[option]):  # a graph's external data, for instance
                raise click.UsageError(
                    f"{option} {path}: a file that holds something else is there"
                )
    for (one, path), (other, again) in combinations(outputs.items(), 2):
        if os.path.realpath(path) == os.path.realpath(again):
            raise click.UsageError(f"{one} and {other} would both write {path}")


def _is_bundle(name: str) -> bool:
    return (Path(name) / "manifest.json").is_file()


class Output:
    """Standard output, and a JSON file where one was asked for.

    Args:
        json_file: None for tables only; "-" for JSON in the place of everything else.
    """

    def __init__(self, json_file: Path | None) -> None:
        self._json_file = json_file
        self._for_people = json_file != STANDARD_OUTPUT

    def show(self, result: R, print_tables: Callable[[R], None] | None = None) -> None:
        """Write the JSON, and print the tables for people."""
        if self._json_file is not None:
            from tiedexport.results import to_json

            if self._for_people:
                atomic.write(self._json_file, to_json(result))
            else:
                click.echo(to_json(result), nl=False)
        if self._for_people and print_tables is not None:
            print_tables(result)

    def say(self, text: str) -> None:
        """Print for people."""
        if self._for_people:
            click.echo(text)

    def verdict(
        self,
        result: VerifyResult
        | BenchResult
        | ServerResult
        | SuiteResult
        | DemoResult
        | AcceptanceResult,
    ) -> None:
        """The last line of every check, with the command that repeats it, and its exit code.

        Where nothing failed but not all that is required ran, it is incomplete. It names the first
        layer that strays, where layers were compared.

        Raises:
            click.exceptions.Exit: the check failed, or nothing or not all that is required ran.
        """
        command = shlex.join(["tiedexport", *sys.argv[1:]])
        verdict = "FAILED" if result.failed else "PASSED" if result.passed else "INCOMPLETE"
        for stray in getattr(result, "strays", ())[:1]:
            verdict += f" at {stray.layer} ({stray.runtime} {stray.precision}, {stray.stage})"
        self.say(f"{verdict} in {result.seconds:.1f} s: {command}")
        if not result.passed:
            raise click.exceptions.Exit(EXIT_CHECK_FAILED if result.failed else EXIT_MISSING)

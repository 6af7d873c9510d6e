"""Where a verb's result goes: tables for people, JSON for programs, a verdict for both."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tiedexport import atomic
from tiedexport.errors import EXIT_CHECK_FAILED, EXIT_MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Struct

    from tiedexport.results import BenchResult, VerifyResult
    from tiedexport.results.demo import DemoResult

R = TypeVar("R", bound="Struct")


def writable_place(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """A callback for an option that names a file: a mistake shows before hours of work, not after.

    Raises:
        click.BadParameter: the file's folder does not exist, or the file is one.
    """
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"no folder {path.parent} to write {path.name} into")
    if path is not None and path.is_dir():
        raise click.BadParameter(f"{path} is a folder")
    return path


class Output:
    """Standard output, and a JSON file where one was asked for.

    Args:
        json_file: None for tables only; "-" for JSON in the place of everything else.
    """

    def __init__(self, json_file: Path | None) -> None:
        self._json_file = json_file
        self._for_people = json_file != Path("-")

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

    def verdict(self, result: VerifyResult | BenchResult | DemoResult) -> None:
        """The last line of every check, with the command that repeats it, and its exit code.

        Raises:
            click.exceptions.Exit: the check failed, or nothing or not all that is required ran.
        """
        command = shlex.join(["tiedexport", *sys.argv[1:]])
        verdict = "PASSED" if result.passed else "FAILED"
        self.say(f"{verdict} in {result.seconds:.1f} s: {command}")
        if not result.passed:
            raise click.exceptions.Exit(EXIT_CHECK_FAILED if result.failed else EXIT_MISSING)

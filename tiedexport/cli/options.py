"""Options that several verbs take."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiedexport.output import refuse_to_overwrite, writable_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.progress import Progress


class _Name(click.Path):
    """The name of a file; an empty one would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("an empty name", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Name(path_type=Path)

json_option = click.option("--json", "json_file", type=PATH, callback=writable_place,
                           help="Also write the result as JSON; - is stdout.")  # fmt: skip
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the plan of work only.")


def common(command: Callable[..., None]) -> Callable[..., None]:
    """What every verb that works for more than a moment takes; none overwrites what it reads."""

    @functools.wraps(command)
    def careful(**arguments: Any) -> None:
        refuse_to_overwrite(click.get_current_context())
        command(**arguments)

    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No progress, only results and errors."),
        click.option("-v", "--verbose", is_flag=True, callback=_log_everything,
                     expose_value=False, help="Also what the libraries log."),
    ):  # fmt: skip
        careful = option(careful)
    return careful


def comma_separated(kind: Callable[[str], Any]) -> Callable[..., tuple[Any, ...] | None]:
    """A callback that makes `1,8,64` into (1, 8, 64)."""

    def convert(
        _ctx: click.Context, _param: click.Parameter, value: str | None
    ) -> tuple[Any, ...] | None:
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is no comma-separated list of numbers") from None

    return convert


def progress_bar(quiet: bool) -> Progress:
    """Where a verb shows how far it is."""
    from tiedexport.progress import Progress

    return Progress(quiet=quiet)


def _log_everything(_ctx: click.Context, _param: click.Parameter, verbose: bool) -> None:
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR)

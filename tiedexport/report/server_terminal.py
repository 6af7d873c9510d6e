"""What `bench --server` measured, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from tiedexport.report import server_tables
from tiedexport.report.terminal import print_reason, print_table

if TYPE_CHECKING:
    from tiedexport.results.server import ServerResult


def print_server(result: ServerResult, console: Console | None = None) -> None:
    """Closed loops beside this process's own, open loops, and every reason in full."""
    console = console or Console(highlight=False)
    for table in server_tables.tables(result):
        print_table(console, table)
    for status, who, why in server_tables.reasons(result):
        kind = "may not repeat" if status == "unsteady" else status
        print_reason(console, status, who, kind, why)
    models = ", ".join(result.models.values())
    console.print(escape(f"server: {result.server} at {result.url}: {models}"))

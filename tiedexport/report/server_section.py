"""What does a server cost? The section of a report that tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report import server_charts, server_tables
from tiedexport.report.page import Chart, Reasons, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.report.page import Block
    from tiedexport.results.server import ServerResult

_TEXT = (
    "{server} at {url}, and the same calls in one process without it. Callers ask again when they "
    "are answered; an offered rate goes on whether or not the server keeps up, and a request's "
    "latency counts from the moment for which it was scheduled. Every answer was compared with "
    "its golden values; the client is a process of its own, on {cores} cores that it shares with a "
    "server on the same machine."
)


def sections(results: Sequence[ServerResult]) -> Iterator[Section]:
    """One a server and protocol; several say in their titles which."""
    for number, result in enumerate(results, 1):
        several = len(results) > 1
        title = f"The server at {result.url}" if several else "The server"
        yield _section(result, title, f"server-{number}" if number > 1 else "server")


def _section(result: ServerResult, title: str, prefix: str) -> Section:
    """Charts and tables of every stage and batch size, and what may be of the client."""
    blocks: list[Block] = []
    for stage, batch, rows, loads in server_tables.groups(result):
        closed = [row for row in rows if row.loop == "closed" and row.latencies_s]
        offered = [row for row in rows if row.loop == "open" and row.latencies_s]
        name, of = f"{prefix}-{stage}-{batch}", f"{stage}, batch {batch}"
        if closed:
            latency = server_charts.closed_latency(closed, loads)
            throughput = server_charts.closed_throughput(closed, loads)
            blocks += [
                Chart(f"{name}-latency", latency, label=f"{of}: latency by callers"),
                Chart(f"{name}-throughput", throughput, label=f"{of}: throughput by callers"),
            ]
        if offered:
            drawn = server_charts.open_latency(offered)
            blocks.append(Chart(f"{name}-offered", drawn, label=f"{of}: latency by offered rate"))
    blocks += server_tables.tables(result)
    if why := server_tables.reasons(result):
        blocks.append(Reasons(tuple(why)))
    cores = result.environment.cores
    text = _TEXT.format(server=result.server, url=result.url, cores=cores)
    return Section(title, text, tuple(blocks))

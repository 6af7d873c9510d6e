"""Write the tables of the documentation's pages; with --check, say if they are stale.

What was measured comes from bench/results.

python bench/pages.py [--check]
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import scaling
from readme import ROOT, results_by_machine, with_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Results = dict[str, dict[str, Any]]

DOCS = ROOT / "docs"
MIB = 1 << 20


def main() -> None:
    stale = False
    machines = results_by_machine()
    for page, blocks in PAGES.items():
        path = DOCS / page
        written = fresh = path.read_text()
        for block, tables in blocks.items():
            fresh = with_block(fresh, block, "\n\n".join(tables(machines)))
        stale |= fresh != written
        if "--check" not in sys.argv[1:]:
            path.write_text(fresh)
    if stale and "--check" in sys.argv[1:]:
        sys.exit("a page is stale: python bench/pages.py")


def each(
    script: str, table: Callable[[dict[str, Any], dict[str, Any]], str]
) -> Callable[[list[Results]], Iterable[str]]:
    """A table for every machine that a script has recorded, of its environment and figures."""
    return lambda machines: (
        table(results[script]["environment"], results[script]["figures"])
        for results in machines
        if script in results
    )


def server_memory(environment: dict[str, Any], figures: dict[str, Any]) -> str:
    """How often a server holds the weights."""
    lines = [
        f"`python bench/serve.py` on {environment['cpu']}: {figures['models']} models of "
        f"{figures['instances']} instances each in the native runtime, default options. Pss "
        "over all processes of the server, less the "
        f"{figures['tiny_bytes'] / MIB:.0f} MiB that it holds of a tiny model, over the weights:",
        "",
        "| one layer | rows of | when ready | after batches of 64 in all instances |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {size} MiB | {found['width']:,} | {found['ready_above_tiny_over_weight']:.2f} × "
        f"| {found['used_above_tiny_over_weight']:.2f} × |"
        for size, found in figures.items()
        if isinstance(found, dict)
    ]
    return "\n".join(lines)


def server_load(environment: dict[str, Any], figures: dict[str, Any]) -> str:
    """Requests a second and p99 by callers, in process and over both protocols."""
    own = {load["callers"]: load for load in figures["grpc"]["loads"]}
    closed = {
        protocol: {row["callers"]: row for row in found["rows"] if row["loop"] == "closed"}
        for protocol, found in figures.items()
    }
    lines = [
        f"`python bench/serve.py` on {environment['cpu']}, {environment['cores']} cores for server "
        "and client together: the digits model, autoencoder, native fp32, two instances, one row a "
        "request. Answers a second, and the 99th percentile of their latency:",
        "",
        "| callers | gRPC | HTTP | in process |",
        "|---|---|---|---|",
    ]
    for callers in closed["grpc"]:
        ways = (closed["grpc"][callers], closed["http"][callers], own.get(callers))
        lines.append(f"| {callers} | {' | '.join(map(_load, ways))} |")
    lines += [
        "",
        "Requests that come at random, whether or not the server keeps up; latency counts from "
        "when each was due:",
        "",
        "| protocol | offered a second | answered | p50 | p99 |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {protocol} | {row['offered_per_s']:,.0f} | {row['achieved_per_s']:,.0f} "
        f"| {_ms(row, 'p50')} | {_ms(row, 'p99')} |"
        for protocol, found in figures.items()
        for row in found["rows"]
        if row["loop"] == "open" and row["status"] == "passed"
    ]
    return "\n".join(lines)


def _load(row: dict[str, Any] | None) -> str:
    if row is None or row["status"] != "passed":
        return "not run"
    a_second = row.get("achieved_per_s") or row["throughput_per_s"]
    return f"{a_second:,.0f}, {_ms(row, 'p99')}"


def _ms(row: dict[str, Any], which: str) -> str:
    return f"{row['latencies_s'][which] * 1e3:.1f} ms"


def encode_rates(environment: dict[str, Any], figures: dict[str, Any]) -> str:
    """The rate of each way over the bare loop's."""
    lines = [
        f"`python bench/encode.py` on {environment['cpu']}, {environment['cores']} cores, one of "
        f"which computes: the digits model in batches of {figures['batch']}. The bare loop over an "
        f"array in memory makes {figures['bare_rows_per_s']:,.0f} rows a second:",
        "",
        "| from, to | over the bare loop | quartiles |",
        "|---|---|---|",
    ]
    for name, ratio in figures["ratio"].items():
        low, high = figures["ratio_quartiles"][name]
        lines.append(f"| {name} | {ratio:.2f} × | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def encode_memory(_environment: dict[str, Any], figures: dict[str, Any]) -> str:
    """What a large input takes."""
    return (
        f"An array of {figures['input_bytes'] / 1e9:.0f} GB, {figures['rows']:,} rows, was encoded "
        f"in a process that held {figures['peak_pss_bytes'] / MIB:.0f} MiB at most (Pss)."
    )


PAGES: dict[str, dict[str, Callable[[list[Results]], Iterable[str]]]] = {
    # Page → block → what makes its tables of all that was recorded.
    "howto/serve.md": {
        "server-memory": each("serve_memory", server_memory),
        "server-load": each("serve", server_load),
    },
    "howto/encode.md": {
        "encode-rates": each("encode_1", encode_rates),
        "encode-memory": each("encode_large", encode_memory),
    },
    "explanation/scaling.md": {
        "measured": each("training_cost", scaling.measured),
        "fitted": each("training_cost", scaling.fitted),
        "simulated": lambda _machines: scaling.simulated(),
        "streamed": scaling.streamed,
    },
}


if __name__ == "__main__":
    main()

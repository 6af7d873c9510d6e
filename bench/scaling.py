"""The tables of docs/explanation/scaling.md, which pages.py writes.

What is simulated comes from `tiedexport.training.cost`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiedexport.training.cost import H100_HOSTS, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SHOWN = (1, 2, 8, 16, 64, 256, 1000)
STACKS = ((784, 784, 392, 196), (16384, 8192), (16384, 8192, 4096))
ROWS, WHOLE_BATCH = 1024, 8192
WAYS = {
    "ddp_tied": "DDP, tied",
    "ddp_untied": "DDP, untied",
    "fsdp_tied": "FSDP2, tied",
    "fsdp_untied": "FSDP2, untied",
}


def measured(environment: dict[str, Any], figures: dict[str, Any]) -> str:
    """Bytes and seconds on loopback."""
    lines = [
        f"{environment['cpu']}, widths {figures['widths']}, a batch of {figures['batch']} in all. "
        f"The least of the times on {figures['cores']} cores, which others used too (load average "
        f"{figures['load_average']:.0f}) and which 4 processes have to share:",
        "",
        "| | gradients | received a step | ratio | step, 1 process | 2 | 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, title in WAYS.items():
        computed, received = (figures[f"{way}_{kind}_bytes"] for kind in ("computed", "received"))
        steps = " | ".join(f"{figures[f'{way}_step_s_{n}'] * 1e3:.1f} ms" for n in (1, 2, 4))
        lines.append(
            f"| {title} | {computed / 1e6:.2f} MB | {received / 1e6:.2f} MB "
            f"| {received / computed:.3f} | {steps} |"
        )
    return "\n".join(lines)


def fitted(_environment: dict[str, Any], figures: dict[str, Any]) -> str:
    """The link that loopback was found to be, and what is predicted with it."""
    lines = [
        f"Fitted: {figures['fitted_latency_s'] * 1e6:.0f} µs a message, "
        f"{figures['fitted_bytes_a_second'] / 1e9:.2f} GB/s; the fit is off by up to "
        f"{figures['fit_largest_error']:.0%} at single sizes.",
        "",
        "| | step of 2 processes, predicted | measured | error |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {WAYS[way]} | {figures[f'{way}_predicted_step_s_2'] * 1e3:.1f} ms "
        f"| {figures[f'{way}_step_s_2'] * 1e3:.1f} ms | {figures[f'{way}_prediction_error']:+.0%} |"
        for way in ("ddp_tied", "ddp_untied")
    ]
    return "\n".join(lines)


def simulated() -> list[str]:
    """A table for each stack and kind of scaling."""
    return [table(widths, kind) for widths in STACKS for kind in ("weak", "strong")]


def table(widths: tuple[int, ...], kind: str) -> str:
    """Efficiency by processes, and where it falls below a half."""
    lines = [
        f"{'-'.join(map(str, widths))}, {kind} scaling:",
        "",
        "| GPUs | " + " | ".join(map(str, SHOWN)) + " | below 50 % from |",
        "|---|" + "---|" * (len(SHOWN) + 1),
    ]
    for way, title in WAYS.items():
        steps = {count: simulated_step(widths, way, kind, count) for count in COUNTS}
        cells = [f"{steps[count][0]:.0%} ({steps[count][1] * 1e3:.2f} ms)" for count in SHOWN]
        low = [count for count, (efficiency, _) in steps.items() if efficiency < 0.5]
        lines.append(f"| {title} | {' | '.join(cells)} | {min(low, default='never')} |")
    return "\n".join(lines)


def simulated_step(widths: tuple[int, ...], way: str, kind: str, count: int) -> tuple[float, float]:
    """The efficiency of so many processes over one, and the seconds of their step."""
    tied, sharded = not way.endswith("_untied"), way.startswith("fsdp")
    share = count if kind == "strong" else 1
    rows = WHOLE_BATCH if kind == "strong" else ROWS
    alone = simulate(widths, rows, 1, H100_HOSTS, tied=tied)
    step = simulate(widths, rows / share, count, H100_HOSTS, tied=tied, sharded=sharded)
    return alone.seconds / share / step.seconds, step.seconds


def streamed(machines: list[dict[str, Any]]) -> Iterator[str]:
    """What streaming cost on each machine."""
    return (_streamed(results) for results in machines if "training_cost" in results)


def _streamed(results: dict[str, Any]) -> str:
    lines = [
        f"{results['training_cost']['environment']['cpu']}, batch 128, the digits stack, on cores "
        "that others used too:",
        "",
        "| shards | set | read | memory beyond what is held back | step over one in memory "
        "| load average |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("npy", "parquet"):
        if f"train_stream_{kind}" not in results:
            continue
        found = results[f"train_stream_{kind}"]["figures"]
        growth_bytes = found["largest_private_bytes"] - found["before_bytes"]
        lines.append(
            f"| .{kind} | {found['set_bytes'] / 1e9:.1f} GB "
            f"| {found['bytes_a_second'] / 1e6:.0f} MB/s | {growth_bytes / (1 << 20):.0f} MiB "
            f"| {found['step_ratio']:.2f} × (quartiles {found['step_ratio_lower_quartile']:.2f} "
            f"to {found['step_ratio_upper_quartile']:.2f}) | {found['load_average']:.0f} |"
        )
    return "\n".join(lines)

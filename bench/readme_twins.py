"""The README's tables of a tied model beside its untied twin."""

from __future__ import annotations

from typing import Any

SCRIPT = "tied_vs_untied"
BASE = "fp32"
MIB = 1 << 20


def tables(results: list[dict[str, Any]]) -> str:
    """Both tables for every processor that has the figures."""
    found = [one[SCRIPT] for one in results if SCRIPT in one]
    return "\n\n".join(map(_tables, found)) or f"Not measured yet: `python bench/{SCRIPT}.py`."


def _tables(kept: dict[str, Any]) -> str:
    figures, machine = kept["figures"], kept["environment"]
    lines = [
        f"`python bench/{SCRIPT}.py` on {machine['cpu']}: `{figures['recipe']}` and its twin with "
        f"`tied = false`, {figures['epochs']} epochs each from seed {figures['seed']}; steps and "
        "calls taking turns, one thread. Latencies are medians of the quickest turn.",
        "",
        "| | tied | untied twin | tied over untied |",
        "|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in compared(figures)),
        "",
        "What each runtime and precision makes of the tied model, beside its speed:",
        "",
        "| runtime | test RMSE | PSNR | batch 1 | batch 64 |",
        "|---|---|---|---|---|",
        *_beside_speed(figures),
    ]
    return "\n".join(lines)


def compared(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What is compared, of the tied model, of its twin, and the first over the second."""
    tied, untied, step = figures["tied"], figures["untied"], figures["step"]

    def row(
        what: str, ours: float, theirs: float, form: str, scale: float = 1.0
    ) -> tuple[str, str, str, str]:
        cells = (form.format(value / scale) for value in (ours, theirs))
        return what, *cells, f"{ours / theirs:.2f} ×"

    rows = [
        row(what, tied[name], untied[name], form, scale)
        for what, name, form, scale in (
            ("parameters", "parameters", "{:,.0f}", 1),
            ("test RMSE", "test_rmse", "{:.4f}", 1),
            ("what Adam keeps", "optimizer_bytes", "{:.2f} MiB", MIB),
            ("bundle in fp32, fp16 and bf16", "bundle_bytes", "{:.2f} MiB", MIB),
        )
    ]
    rows.append(row("training step", step["tied_s"], step["untied_s"], "{:.2f} ms", 1e-3))
    for batch, found in figures["latency"].items():
        for runtime in ("native", "onnxruntime"):
            name = f"{runtime} {BASE}"
            try:
                pair = [found[f"{name} {kind}"]["min_s"] for kind in ("tied", "untied")]
            except KeyError:  # not run here
                continue
            rows.append(row(f"latency of {name}, {batch}", *pair, "{:,.0f} µs", 1e-6))
    return rows


def _beside_speed(figures: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in figures["tied"]["quality"].items():
        if "not_run" in found:
            rows.append(f"| {name} | not run: {found['not_run']} | | | |")
            continue
        quickest = [by[f"{name} tied"]["min_s"] for by in figures["latency"].values()]
        speed = " | ".join(f"{seconds * 1e6:,.0f} µs" for seconds in quickest)
        psnr = f"{found['test_psnr_db']:.2f} dB"
        rows.append(f"| {name} | {found['test_rmse']:.5f} | {psnr} | {speed} |")
    return rows

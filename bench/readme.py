"""Write the README's tables from bench/results; with --check, say whether they are stale.

python bench/readme.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import readme_twins
from native_goals import THREADS, cell

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"

ROWS = (
    # What a reader reads, script, how its figures read, goal.
    ("training step over a bare PyTorch loop, batch 32", "train_step_batch_32",
     "{ratio:.2f} ×", "≤ 1.05 ×"),
    ("`build` of the digits model, in a fresh process", "build_large_784,784,392,196",
     "{wall_s:.1f} s", "< 15 s"),
    ("`build` of one 512 MiB layer", "build_large_16384,8192", "{wall_s:.0f} s", "< 90 s"),
    ("its peak memory above the checkpoint's own, over the weight", "build_large_16384,8192",
     "{peak_above_checkpoint_over_weight:.2f} ×", "≤ 2.5 ×"),
    ("`tiedexport --help`", "startup", "{help_s:.2f} s", "< 0.3 s"),
    ("import, open, first output of the digits bundle", "startup",
     "{first_output_s:.2f} s", "< 0.6 s"),
    ("`audit` of a 2 GiB ONNX file with external data", "audit_large", "{wall_s:.1f} s", "< 10 s"),
    ("its peak memory above `--help`", "audit_large", "{peak_above_help_mib:.0f} MiB",
     "< 300 MiB"),
    ("session call over the bare ONNX Runtime call, batch 1", "session_overhead",
     "{ratio:.2f} ×", "≤ 1.10 ×"),
)  # fmt: skip

FIRST_WAY = "memory_onnxruntime_fp32_shared"
WAYS = (
    # How the bundle is opened, script.
    ("native fp32 (default)", "memory_native_fp32_shared"),
    ("native fp16", "memory_native_fp16_shared"),
    ("native bf16", "memory_native_bf16_shared"),
    ('ONNX Runtime fp32, `memory="shared"`', FIRST_WAY),
    ('ONNX Runtime fp32, `memory="packed"`', "memory_onnxruntime_fp32_packed"),
    ("ONNX Runtime fp32 by itself", "memory_onnxruntime_fp32_default"),
    ("ONNX Runtime fp16, which stores weights again, asked for by name",
     "memory_onnxruntime_fp16_shared"),
    ("torch fp32", "memory_torch_fp32_shared"),
    ("torch bf16", "memory_torch_bf16_shared"),
    ("torch fp16", "memory_torch_fp16_shared"),
)  # fmt: skip


MIB = 1 << 20
GOALS = "native_goals"
PLANS_MIB, PLANS_TARGET = (1, 128, 512), "rtx:sm89"
STAGE_BYTES = {f"{stage}_bytes" for stage in ("encoder", "decoder", "autoencoder")}


def main() -> None:
    readme = ROOT / "README.md"
    written = readme.read_text()
    fresh = with_block(written, "demo", f"```\n{(RESULTS / 'demo.txt').read_text()}```")
    fresh = with_block(fresh, "numbers", _tables())
    fresh = with_block(fresh, "memory", _memory())
    fresh = with_block(fresh, "native", _native())
    fresh = with_block(fresh, "untied", _untied())
    fresh = with_block(fresh, "plans", _plans())
    fresh = with_block(fresh, "twins", readme_twins.tables(results_by_machine()))
    if "--check" in sys.argv[1:]:
        if fresh != written:
            sys.exit("README.md is stale: python bench/readme.py")
        return
    readme.write_text(fresh)


def with_block(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"there is no block {name}")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def results_by_machine() -> list[dict[str, dict[str, Any]]]:
    """What scripts recorded, by processor."""
    machines = [path for path in sorted(RESULTS.glob("*.json")) if path.name != "who-unties.json"]
    return [json.loads(path.read_text()) for path in machines]


def _tables() -> str:
    return "\n\n".join(map(_table, results_by_machine()))


def _table(results: dict[str, dict[str, Any]]) -> str:
    machine = next(iter(results.values()))["environment"]
    lines = [
        f"Measured on {machine['cpu']}, {machine['cores']} shared cores, by scripts in `bench/`:",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
    ]
    lines += [
        f"| {what} | {form.format(**results[script]['figures'])} | {goal} |"
        for what, script, form, goal in ROWS
        if script in results
    ]
    return "\n".join(lines)


def _untied() -> str:
    found = json.loads((RESULTS / "who-unties.json").read_text())
    lines = ["| tool | loses the tie | keeps it |", "|---|---|---|"]
    for tool in dict.fromkeys(row["tool"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["tool"] == tool]
        lost = [_lost(row) for row in rows if row["outcome"] != "one copy"]
        kept = [row["form"] for row in rows if row["outcome"] == "one copy"]
        lines.append(f"| {tool} | {'; '.join(lost) or '–'} | {'; '.join(kept) or '–'} |")
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join([*lines, "", f"With {versions}."])


def _lost(row: dict[str, str]) -> str:
    note = "" if row["outcome"] == "2 copies" else f" ({row['outcome']})"
    return f"{row['form']}{note}{' (stays so)' * (row['mended'] == row['outcome'])}"


def _plans() -> str:
    """What engines of one layer take, on every processor that has the figures."""
    found = (json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json")))
    scripts = [f"build_engines_{mib}" for mib in PLANS_MIB]
    return "\n\n".join(_plans_table(results, scripts) for results in found if scripts[0] in results)


def _plans_table(results: dict[str, dict[str, Any]], scripts: list[str]) -> str:
    machine = results[scripts[0]]["environment"]
    lines = [
        f"`python bench/build_engines.py` on {machine['cpu']}: engines of one tied fp16 layer for "
        f"{PLANS_TARGET}, {machine['cores']} shared cores. Peak is Pss above the process that is "
        "ready to build, a fixed part of it the builder's own; the goals are 0.2 × at 512 MiB for "
        "`shared`, 2.5 × for the others.",
        "",
        "| `--weights` | weight | plans, together | built in | peak memory |",
        "|---|---|---|---|---|",
    ]
    for mode in ("shared", "one-plan", "baked"):
        for figures in (results[script]["figures"] for script in scripts if script in results):
            of_mode = {k: v for k, v in figures.items() if k.startswith(f"{PLANS_TARGET} {mode} ")}
            sizes = [v for k, v in of_mode.items() if k.split()[-1] in STAGE_BYTES]
            seconds = sum(v for k, v in of_mode.items() if k.endswith("r_s"))
            peak = of_mode[f"{PLANS_TARGET} {mode} peak_bytes"]
            weight = figures["weight_bytes"]
            over = f" ({peak / weight:.2f} ×)" if weight >= 1 << 27 else ""
            lines.append(
                f"| `{mode}` | {weight / MIB:.0f} MiB | {len(sizes)} of {sum(sizes) / MIB:.2f} MiB "
                f"| {seconds:.1f} s | {peak / MIB:.0f} MiB{over} |"
            )
    return "\n".join(lines)


def _memory() -> str:
    """What open sessions hold, on every processor that has the figures."""
    found = (json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json")))
    return "\n\n".join(_memory_table(results) for results in found if FIRST_WAY in results)


def _memory_table(results: dict[str, dict[str, Any]]) -> str:
    first, opening = results[FIRST_WAY], results["memory_checks"]["figures"]
    shared, machine = first["figures"], first["environment"]
    mib, processes = shared["weight_bytes"] >> 20, shared["processes"]
    lines = [
        f"`python bench/memory.py` on {machine['cpu']}: one tied weight of {mib} MiB, sessions of "
        "encoder, decoder and autoencoder open after a run at batch 1 and 64, one thread each. "
        "Memory is Pss over the weight, without code; seconds are from `open_bundle` to the first "
        "output, imports done.",
        "",
        f"| sessions | one process | {processes} processes together | first output "
        "| batch 1 | batch 64 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {_memory_cells(results[script]['figures'])} |"
        for what, script in WAYS
        if script in results
    ]
    growth_kib = shared["growth_bytes"] / 1024
    lines += [
        "| goal for the default | ≤ 1.10 × | ≤ 1.15 × | ≤ 0.15 s | | |",
        "",
        f'Opening with `check="size"` takes {opening["size_s"] * 1e3:.1f} ms of that; the default, '
        f"which hashes every byte, adds {opening['hash_s'] - opening['size_s']:.2f} s. After "
        f"{shared['opens']} more opens and closes a process holds {growth_kib:+.0f} KiB.",
    ]
    return "\n".join(lines)


def _native() -> str:
    """The goals of the native runtime, on every processor that has the figures."""
    found = (json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json")))
    tables = [_native_table(results[GOALS]) for results in found if GOALS in results]
    return "\n\n".join(tables) or "Not measured yet: `python bench/native.py`."


def _native_table(kept: dict[str, Any]) -> str:
    machine, counts = kept["environment"], [f"{n} thread{'s' * (n > 1)}" for n in THREADS]
    lines = [
        f"`python bench/native.py` on {machine['cpu']}, {machine['cores']} shared cores: a whole "
        "forward pass of one layer of 4096 × 16384, or of the digits stack. × is the speed over "
        "ONNX Runtime by itself (fp32, weights packed, two copies) in the same run, unless another "
        "is named. Contenders take turns round by round, with two threads each in a process of "
        "its own; medians.",
        "",
        f"| case | goal | {' | '.join(counts)} |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['case']} | {row['goal']} | {' | '.join(cell(row[str(n)]) for n in THREADS)} |"
        for row in kept["figures"]["rows"]
    ]
    return "\n".join(lines)


def _memory_cells(figures: dict[str, Any]) -> str:
    times = [f"{figures[name]:.2f} ×" for name in ("one_over_weight", "together_over_weight")]
    calls = [f"{figures[name] * 1e3:.0f} ms" for name in ("batch_1_s", "batch_64_s")]
    return " | ".join((*times, f"{figures['first_output_s']:.2f} s", *calls))


if __name__ == "__main__":
    main()

"""Write the README's tables from bench/results; with --check, say whether they are stale.

python bench/readme.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

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
    ("session call over the bare ONNX Runtime call, batch 1", "session_overhead",
     "{ratio:.2f} ×", "≤ 1.10 ×"),
)  # fmt: skip


def main() -> None:
    readme = ROOT / "README.md"
    written = readme.read_text()
    fresh = _with_block(written, "demo", f"```\n{(RESULTS / 'demo.txt').read_text()}```")
    fresh = _with_block(fresh, "numbers", _tables())
    if "--check" in sys.argv[1:]:
        if fresh != written:
            sys.exit("README.md is stale: python bench/readme.py")
        return
    readme.write_text(fresh)


def _with_block(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md has no block {name}")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def _tables() -> str:
    machines = [path for path in sorted(RESULTS.glob("*.json")) if path.name != "who-unties.json"]
    return "\n\n".join(_table(json.loads(path.read_text())) for path in machines)


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


if __name__ == "__main__":
    main()

"""The native runtime beside its peers: latency, memory, opening, calls, and the goals it has.

python bench/native.py [--threads 1,2] [--parts latency,memory,call] [--only native] [--quick]

Everything takes turns round by round. With one thread all are in one process; with more each has
a process of its own. A part is kept under its own name and can be measured again alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import record
from build_large import build_bundle
from native_goals import goals, shown_goals
from native_parts import FULL, QUICK, WAYS, Setup, calls, latency, memory

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: dict[str, Callable[[Setup, int], tuple[dict[str, Any], dict[str, str]]]] = {
    "latency": latency,
    "memory": memory,
    "call": calls,
}
PRECISIONS = "fp32,fp16,bf16"


def main(words: list[str] | None = None) -> None:
    arguments = _arguments(words)
    size = QUICK if arguments.quick else FULL
    ways = [way for way in WAYS if any(word in str(way) for word in arguments.only.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(arguments.bundles or folder)
        models = {name: _built(kept, name, widths) for name, widths in size.widths.items()}
        setup = Setup(models, size, ways, Path(folder))
        for threads in map(int, arguments.threads.split(",")):
            for part in arguments.parts.split(","):
                figures, shown = PARTS[part](setup, threads)
                path = record.record(f"native_{part}_{threads}", figures, shown)
    rows = goals(record.kept(path))
    record.record("native_goals", {"rows": rows}, shown_goals(rows))


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1,2", help="numbers of threads, one after another")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--only", default="", help="contenders with one of these in their name")
    parser.add_argument("--bundles", help="a folder that keeps the models for the next run")
    parser.add_argument("--quick", action="store_true", help="tiny models: does it work at all?")
    return parser.parse_args(words)


def _built(folder: Path, name: str, widths: list[int]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{'-'.join(map(str, widths))}"
    if not path.with_suffix(".tied").exists():
        build_bundle(path, widths, PRECISIONS)
    return str(path.with_suffix(".tied"))


if __name__ == "__main__":
    main()

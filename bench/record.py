"""What the scripts of this folder share: turns, and one JSON file of results a processor."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, strftime
from typing import TYPE_CHECKING, Any

import msgspec

from tiedexport import environment

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results"


def record(script: str, figures: dict[str, Any], shown: dict[str, Any] | None = None) -> Path:
    """Print the figures and keep them under the script's name in this processor's file.

    Args:
        script: what they are kept under.
        figures: what is kept.
        shown: what is printed in place of the figures.
    """
    printed = figures if shown is None else shown
    width = max(map(len, printed), default=0)
    for name, value in printed.items():
        print(
            f"{name:<{width}}  {value:.4g}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )
    found = environment.current()
    path = RESULTS / f"{environment.cpu_slug(found.cpu)}.json"
    every = kept(path)
    every[script] = {
        "figures": figures,
        "commit": environment.commit(RESULTS),
        "date": strftime("%Y-%m-%d"),
        "environment": msgspec.to_builtins(found),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(every.items())), indent=2, ensure_ascii=False) + "\n")
    print(f"→ {path}")
    return path


def kept(path: Path) -> dict[str, Any]:
    """What is in a file of results, by script."""
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def take_turns(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> dict[str, float]:
    """Time two contenders round by round, who is first alternating, after one untimed round.

    Returns:
        Medians in seconds, their ratio, and the quartiles of the ratio within a round.
    """
    seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for contender in (ours, theirs):
        contender()
    for number in range(rounds):
        for contender in (ours, theirs) if number % 2 else (theirs, ours):
            start = perf_counter()
            contender()
            seconds[contender].append(perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "ours_s": median(seconds[ours]),
        "theirs_s": median(seconds[theirs]),
        "ratio": median(seconds[ours]) / median(seconds[theirs]),
        "ratio_lower_quartile": low,
        "ratio_upper_quartile": high,
    }

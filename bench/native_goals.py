"""The goals of the native runtime, and what the recorded parts of `native.py` make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "onnxruntime fp32 default"
BF16_PEER = "openvino bf16 default"
READING = "reading"
THREADS = (1, 2)

Results = dict[str, Any]
"""The figures of each script."""


@dataclass(frozen=True)
class Goal:
    """One line of the table.

    Attributes:
        case: what a reader reads.
        limit: what is to be reached; `at_least` says from which side.
        form: how a value reads.
        value: (figures of all scripts, threads) → what was reached; KeyError where it did not run.
    """

    case: str
    limit: float
    at_least: bool
    form: str
    value: Callable[[Results, int], float]

    @property
    def words(self) -> str:
        """The goal as a reader reads it."""
        return f"{'≥' if self.at_least else '≤'} {self.form.format(self.limit)}"

    def row(self, figures: Results) -> dict[str, Any]:
        """Case, goal, and by number of threads the value, or why there is none."""
        row: dict[str, Any] = {"case": self.case, "goal": self.words}
        for threads in THREADS:
            try:
                value = self.value(figures, threads)
            except KeyError as error:
                row[str(threads)] = {"not_run": f"no figures of {error.args[0]}"}
                continue
            met = value >= self.limit if self.at_least else value <= self.limit
            row[str(threads)] = {"value": value, "shown": self.form.format(value), "met": met}
        return row


def _speed(case: str, ours: str, base: str = BASE) -> Callable[[Results, int], float]:
    """How many times as fast as the base, by the medians of one run."""

    def value(figures: Results, threads: int) -> float:
        found = figures[f"native_latency_{threads}"]["cases"][case]["contenders"]
        return float(found[base]["median_s"] / found[ours]["median_s"])

    return value


def _share_of_bandwidth(figures: Results, threads: int) -> float:
    """Reading once by the fastest way over the whole forward pass, in per cent.

    Each way of reading is judged by its median, and the fastest is the machine's.
    """
    found = figures[f"native_latency_{threads}"]["cases"]["layer batch 1"]["contenders"]
    readings = [one["median_s"] for name, one in found.items() if name.startswith(READING)]
    if not readings:
        raise KeyError(READING)
    return float(100 * min(readings) / found["native fp32"]["median_s"])


def _of_memory(way: str, figure: str, scale: float) -> Callable[[Results, int], float]:
    def value(figures: Results, threads: int) -> float:
        return float(scale * figures[f"native_memory_{threads}"]["contenders"][way][figure])

    return value


def _added_by_python(figures: Results, threads: int) -> float:
    """Microseconds."""
    found = figures[f"native_call_{threads}"]["models"]["digits"]
    return float(1e6 * (found["reconstruct(x, out)"]["median_s"] - found["C"]["median_s"]))


GOALS = (
    Goal("fp32, batch 1, 256 MiB", 1.9, True, "{:.2f} ×",
         _speed("layer batch 1", "native fp32")),
    Goal("fp16 weights, batch 1, 256 MiB in fp32", 3.5, True, "{:.2f} ×",
         _speed("layer batch 1", "native fp16")),
    Goal("fp32, batch 8", 1.6, True, "{:.2f} ×", _speed("layer batch 8", "native fp32")),
    Goal("fp32, batch 64", 1.05, True, "{:.2f} ×", _speed("layer batch 64", "native fp32")),
    Goal("fp32, batch 256", 1.0, True, "{:.2f} ×", _speed("layer batch 256", "native fp32")),
    *(
        Goal(f"bf16 weights, batch {batch}, against OpenVINO bf16", 1.0, True, "{:.2f} ×",
             _speed(f"layer batch {batch}", "native bf16", BF16_PEER))
        for batch in (8, 64, 256)
    ),
    Goal("digits stack (784-784-392-196), batch 1, Python call included, fp32", 1.3, True,
         "{:.2f} ×", _speed("digits batch 1", "native fp32")),
    Goal("the same, fp16 weights", 1.8, True, "{:.2f} ×",
         _speed("digits batch 1", "native fp16")),
    *(
        Goal(f"memory, all stages open, batch up to 64, {precision}, over the weight stored", 1.05,
             False, "{:.3f} ×", _of_memory(f"native {precision}", "one_over_weight", 1))
        for precision in ("fp32", "fp16", "bf16")
    ),
    Goal("open (size check) to first output, 256 MiB", 60, False, "{:.0f} ms",
         _of_memory("native fp32", "first_output_s", 1e3)),
    Goal("what Python adds to a call", 15, False, "{:.1f} µs", _added_by_python),
    Goal("share of the machine's read bandwidth, batch 1, 256 MiB, fp32", 85, True, "{:.0f} %",
         _share_of_bandwidth),
)  # fmt: skip


def goals(results: Results) -> list[dict[str, Any]]:
    """A row a goal, from a file of results."""
    figures = {script: kept["figures"] for script, kept in results.items()}
    return [goal.row(figures) for goal in GOALS]


def shown_goals(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Case → goal and what was reached."""
    return {
        row["case"]: f"{row['goal']}: " + ", ".join(cell(row[str(t)]) for t in THREADS)
        for row in rows
    }


def cell(reached: dict[str, Any]) -> str:
    """What was reached, as a reader reads it."""
    if "not_run" in reached:
        return "not run"
    return f"{reached['shown']}{'' if reached['met'] else ' (missed)'}"

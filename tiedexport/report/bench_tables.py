"""What `bench` says beside latencies: ratios, changes, and what may not repeat."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tiedexport.report.tables import Table, contender

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.results import BenchResult, Latency
    from tiedexport.results.bench import Against, Ratio
    from tiedexport.results.device import Figures

_NONE_SHOWN = "no difference shown"
_MARKS = {"faster": "passed", "slower": "failed"}


def summary(row: Latency) -> list[str]:
    """Every figure of a row, in the words of trtexec's summary where it has one for it.

    Args:
        row: one that passed.
    """
    found = [f"Latency: {figures(row)}"]
    if row.mean_s:
        found.append(f"Throughput: {1 / row.mean_s:.6g} qps of {row.batch} each")
    if row.cv is not None:
        found.append(
            f"Coefficient of variation: {row.cv:.1%} of {row.iterations} calls "
            f"in {len(row.rounds_ns)} turns"
        )
    if row.warm_up is not None:
        settled = "steady" if row.warm_up.stable else "not shown to be steady"
        found.append(
            f"Warm-up: {row.warm_up.calls} calls in {row.warm_up.seconds:.3g} s, {settled}"
        )
    return found


def figures(of: Latency | Figures) -> str:
    """In trtexec's order, in milliseconds."""
    named = {"min": of.min_s, "max": of.max_s, "mean": of.mean_s, "median": of.median_s}
    named |= {f"percentile({name.lstrip('p')}%)": value for name, value in of.percentiles_s.items()}
    return ", ".join(f"{name} = {_ms(value)}" for name, value in named.items())


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.6g} ms"


def ratios(result: BenchResult, columns: int = 2) -> Iterator[Table]:
    """Speeds over the baseline: tables of a stage, `columns` batch sizes in each."""
    for stage in dict.fromkeys(row.stage for row in result.ratios):
        here = [row for row in result.ratios if row.stage == stage]
        batches = sorted({row.batch for row in here})
        for first in range(0, len(batches), columns):
            yield _ratios(result, stage, here, batches[first : first + columns])


def _ratios(
    result: BenchResult, stage: str, rows: Sequence[Ratio], batches: Sequence[int]
) -> Table:
    cells = {(contender(row), row.batch): row for row in rows if row.batch in batches}
    names = dict.fromkeys(name for name, _ in cells)
    base = result.baseline.replace("/", " ")
    return Table(
        ("runtime", *(f"batch {batch}" for batch in batches)),
        tuple((name, *(_speed(cells.get((name, batch))) for batch in batches)) for name in names),
        title=f"{stage}: speed over {base}, with {_confidence(result)} intervals",
    )


def _confidence(result: BenchResult) -> str:
    return f"{100 * (result.confidence or 0):g} %"


def few_rounds(rows: Sequence[Ratio]) -> list[tuple[str, str, str]]:
    """(status, what, reason) where rows have no interval."""
    lacking = [row for row in rows if row.low is None]
    if not lacking:
        return []
    reason = (
        f"{len(lacking)} of {len(rows)} rows have not enough independent rounds: there are few, or "
        "neighbours are alike; a longer --duration has more"
    )
    return [("not run", "no interval", reason)]


def _speed(row: Ratio | None) -> str:
    """2.10 × [2.05, 2.14]; or a dash where no difference is shown.

    Where there is no interval: how many independent rounds there are, of how many.
    """
    if row is None:
        return "–"
    if row.low is None or row.high is None:
        worth = row.rounds if row.independent_rounds is None else int(row.independent_rounds)
        return f"– ({worth} of {row.rounds} rounds)"
    speed = "–" if row.verdict == _NONE_SHOWN else f"{row.speed:.2f} ×"
    return f"{speed} [{row.low:.2f}, {row.high:.2f}]"


def changes(against: Against) -> Table:
    """The rows that chance does not explain: how much more time a call takes than it did."""
    shown = [row for row in against.changes if row.verdict != _NONE_SHOWN]
    return Table(
        ("runtime", "stage", "batch", "time", "interval", "now"),
        tuple(
            (
                contender(row),
                row.stage,
                str(row.batch),
                _more(row.speed),
                f"{_more(row.high)} … {_more(row.low)}",
                row.verdict,
            )
            for row in shown
        ),
        first_number=2,
        marks=tuple(_MARKS[row.verdict] for row in shown),
        title="Time of a call against the earlier result",
    )


def _more(speed: float | None) -> str:
    return "–" if not speed else f"{100 * (1 / speed - 1):+.1f} %"


def outcome(against: Against) -> str:
    """How many rows changed, and how many of them by more than may be."""
    counts = Counter[str](row.verdict for row in against.changes)
    told = ", ".join(f"{counts[word]} {word}" for word in ("slower", "faster", _NONE_SHOWN))
    found = f"{len(against.changes)} rows compared with {against.file}: {told}"
    if against.max_regression_percent is None:
        return found
    limit = f"{against.max_regression_percent:g} %"
    return f"{found}; {len(against.regressions)} slower by more than {limit}"


def machine(against: Against) -> str:
    """What the machine itself did meanwhile, and by how much runs of the same code differ."""
    if not against.machine:
        return ""
    change = _span([f"×{one:.2f}" for one in sorted(against.machine)])
    apart = _span([f"{one:.1%}" for one in sorted(one.deviation for one in against.scatters)])
    differ = f"; runs of the same code differ by {apart} beside that" if apart else ""
    return f"the machine itself: {change} of the earlier time, taken out{differ}"


def _span(ordered: Sequence[str]) -> str:
    """The first to the last of them."""
    return " to ".join(dict.fromkeys((*ordered[:1], *ordered[-1:])))


def against_remarks(against: Against) -> list[tuple[str, str, str]]:
    """(status, who, what) of each reason why the comparison is not whole."""
    found = [("not run", "not comparable", warning) for warning in against.warnings]
    found += few_rounds(against.changes)
    for where, rows in ((f"only in {against.file}", against.gone), ("only now", against.new)):
        if rows:
            found.append(("not run", where, "; ".join(rows)))
    return found


def doubts(result: BenchResult) -> list[tuple[str, str, str]]:
    """(status, what, reason) of all figures that may not repeat."""
    return unsteady(result) + few_calls(result)


def unsteady(result: BenchResult) -> list[tuple[str, str, str]]:
    """(status, kind, reason) a kind of warning: how many rows have it, and the worst of them."""
    kinds: dict[str, dict[str, tuple[float, str]]] = {}
    for row in result.latencies:
        where = f"{contender(row)}, {row.stage}, batch {row.batch}"
        for one in row.warnings:
            found, worst = kinds.setdefault(one.kind, {}), (one.value / one.limit, one.reason)
            found[where] = max(worst, found.get(where, worst))
    ran = sum(row.status == "passed" for row in result.latencies)
    return [
        ("not run", kind, f"{len(found)} of {ran} rows, the worst {_worst(found)}")
        for kind, found in kinds.items()
    ]


def _worst(found: dict[str, tuple[float, str]]) -> str:
    (_, reason), where = max((one, where) for where, one in found.items())
    return f"{where}: {reason}"


def few_calls(result: BenchResult) -> list[tuple[str, str, str]]:
    """(status, percentile, reason) where calls were fewer than 1 / (1 - percentile)."""
    counted = [
        (row.iterations, f"{contender(row)}, {row.stage}, batch {row.batch}", row.percentiles_s)
        for row in result.latencies
    ]
    counted += [
        (row.calls, f"{contender(row)} with callers {row.callers}", row.latencies_s)
        for row in result.loads
    ]
    found: dict[str, list[tuple[int, str]]] = {}
    for calls, where, figures in counted:
        for name in figures:
            if name.startswith("p") and calls * (100 - float(name[1:])) < 100:
                found.setdefault(name, []).append((calls, where))
    return [
        (
            "not run",
            name,
            f"of so few calls little but their maximum: {len(rows)} rows, the fewest "
            f"{min(rows)[0]} calls of {min(rows)[1]}; --duration or --iterations makes more",
        )
        for name, rows in found.items()
    ]


def timer(result: BenchResult) -> str:
    """What timing a call adds to it, and of which share of the shortest call."""
    if result.timer is None:
        return ""
    medians = [row.median_s for row in result.latencies if row.median_s]
    share = f", {result.timer.median_s / min(medians):.2%} of the shortest" if medians else ""
    return f"timing adds {1e6 * result.timer.median_s:.2f} µs to a call{share}"

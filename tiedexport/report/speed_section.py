"""How fast is it? The answer of the first screen, and the section behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report import bench_tables, device_tables, speed_charts, surroundings_tables, tables
from tiedexport.report.page import Answer, Chart, Fold, Reasons, Section
from tiedexport.report.tables import contender, seconds

if TYPE_CHECKING:
    from tiedexport.report.page import Block
    from tiedexport.results import BenchResult

_FIRST_STAGE = "autoencoder"


def answer(result: BenchResult | None) -> Answer:
    """The least median at the smallest batch of one stage, with latency and throughput drawn."""
    question = "How fast is it?"
    if result is None:
        return Answer(question, "not run", "tiedexport bench tells", "not run")
    measured = [row for row in result.latencies if row.median_s is not None]
    if not measured:
        return Answer(question, "–", "nothing could be measured here", "failed")
    stage = _first_stage(result)
    ran = [row for row in measured if row.stage == stage]
    smallest = min(row.batch for row in ran)
    fastest = min(
        (row for row in ran if row.batch == smallest), key=lambda row: row.median_s or 0.0
    )
    widest = max(ran, key=lambda row: row.throughput_per_s or 0.0)
    name, tail_s = tables.tail(fastest)
    return Answer(
        question,
        seconds(fastest.median_s),
        f"median at batch {smallest}: {contender(fastest)}, {stage} ({name} "
        f"{seconds(tail_s)}); at best {tables.number(widest.throughput_per_s, ',.0f')} samples/s, "
        f"{contender(widest)} at batch {widest.batch}",
        blocks=tuple(_charts(result, stage)),
    )


def _first_stage(result: BenchResult) -> str:
    stages = [row.stage for row in result.latencies if row.status == "passed"]
    return _FIRST_STAGE if _FIRST_STAGE in stages else stages[0]


def _charts(result: BenchResult, stage: str) -> list[Chart]:
    limits = _limits(result, stage)
    drawn = {
        f"latency-{stage}": speed_charts.latency_chart(result, stage, limits),
        f"throughput-{stage}": speed_charts.throughput_chart(result, stage, limits),
    }
    return [Chart(name, spec) for name, spec in drawn.items() if spec is not None]


def _limits(result: BenchResult, stage: str) -> dict[str, dict[int, float]]:
    """Precision → batch size → the least seconds of a call; none where none were measured."""
    limits: dict[str, dict[int, float]] = {}
    for row in result.roofline.placements if result.roofline is not None else ():
        if row.stage == stage:
            by_batch = limits.setdefault(str(row.precision), {})
            by_batch[row.batch] = min(row.limit_s, by_batch.get(row.batch, row.limit_s))
    return limits


def section(result: BenchResult) -> Section:
    """Tables of every stage, charts of those that the first screen does not show, and reasons."""
    blocks: list[Block] = []
    stage_tables = tables.latencies(result)
    for stage in dict.fromkeys(row.stage for row in result.latencies):
        if stage_tables and stage != _first_stage(result):
            blocks += _charts(result, stage)
        blocks += [table for table in stage_tables if table.title.startswith(f"{stage}:")]
    blocks += device_tables.tables(result.latencies)
    blocks += bench_tables.ratios(result)
    blocks += surroundings_tables.tables(result)
    why = [
        *(("unsteady", kind, reason) for _, kind, reason in bench_tables.doubts(result)),
        *bench_tables.few_rounds(result.ratios),
        *tables.not_run(result.latencies),
        *device_tables.reasons(result.latencies),
        *surroundings_tables.reasons(result),
        *_not_asked_for(result),
    ]
    if why:
        blocks.append(Reasons(tuple(why)))
    if stage_tables:
        blocks.append(Fold("Every figure", (tables.latency_details(result),)))
    text = (
        "All contenders took turns at each batch size, so that a drift of the machine hit all "
        "alike. Every timed call counts; arrays were bound once, outside the timed calls."
    )
    if told := bench_tables.timer(result):
        text += f" The timer: {told}."
    return Section("The speed", text, tuple(blocks))


def _not_asked_for(result: BenchResult) -> list[tuple[str, str, str]]:
    """What `bench` can measure as well, and was not asked to."""
    absent = (
        ("the limit of the machine", result.roofline, "--roofline"),
        ("ratios with intervals", result.ratios, "--baseline onnxruntime"),
        ("cold start", result.cold_starts, "--cold"),
        ("memory", result.footprints, "--memory-use"),
        ("several callers", result.loads, "--concurrency 4"),
    )
    return [
        ("not measured", what, f"tiedexport bench {option} measures it")
        for what, found, option in absent
        if not found
    ]

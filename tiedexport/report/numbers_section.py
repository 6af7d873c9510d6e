"""Do the numbers match? The answer of the first screen, and the section behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report import layers, numbers_charts, tables
from tiedexport.report.page import Answer, Chart, Fold, Reasons, Section
from tiedexport.report.tables import contender

if TYPE_CHECKING:
    from tiedexport.report.page import Block
    from tiedexport.results import VerifyResult


def answer(result: VerifyResult | None) -> Answer:
    """How many comparisons pass, the worst of them, and a heat map of all."""
    question = "Do the numbers match?"
    if result is None:
        return Answer(question, "not run", "tiedexport verify tells", "not run")
    ran = [row for row in result.comparisons if row.status != "not run"]
    passed = sum(row.status == "passed" for row in ran)
    absent = len({contender(row) for row in result.comparisons if row.status == "not run"})
    worst = max(ran, key=lambda row: row.error_in_bounds or 0.0, default=None)
    detail = (
        "nothing ran"
        if worst is None
        else (
            f"worst error {tables.number(worst.error_in_bounds, '.2f')} of its derived bound: "
            f"{contender(worst)}, {worst.stage}; {len(ran)} ran{tables.remarked(ran)}"
        )
    )
    drawn = numbers_charts.error_map(result.comparisons)
    return Answer(
        question,
        f"{passed} of {len(ran)}",
        f"{detail}; {absent} could not run here" if absent else detail,
        "passed" if result.passed else "failed",
        (Chart("errors", drawn),) if drawn is not None else (),
    )


def section(result: VerifyResult) -> Section:
    """Every figure, layer by layer where layers were compared, and why the rest did not run."""
    blocks: list[Block] = [tables.comparisons(result)] if result.ran else []
    blocks += [table] if (table := tables.quality(result)).rows else []
    if reasons := layers.reasons(result):
        blocks.append(Reasons(tuple(reasons)))
    if result.ran:
        blocks += layers.folds(result)
        blocks.append(Fold("Every figure", (tables.comparison_details(result),)))
    text = (
        "Every output is compared with a float64 reference that travels in the bundle. Its bound "
        "follows from the types that the stage stores and sums in; nothing is tuned. An error "
        "above 1 bound is a failure."
    )
    if not any(row.layer for row in result.layers):
        text += " Layer by layer: not run; tiedexport verify --layers does it."
    return Section("The numbers", text, tuple(blocks))

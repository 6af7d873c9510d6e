"""What a report says: answers for the first screen, then a section a question."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.report import (
    images,
    layers,
    origin_tables,
    pictures,
    tables,
    tie_tables,
    ties_section,
)
from tiedexport.report.page import (
    Answer,
    Chart,
    Commands,
    Fold,
    Page,
    Reasons,
    Section,
    Strip,
)
from tiedexport.report.storage import Storage, bundle_size, storage
from tiedexport.report.tables import Table, contender, seconds, size

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.report.page import Block
    from tiedexport.results import BenchResult, VerifyResult
    from tiedexport.results.ties import AuditResult
    from tiedexport.spec import TrainingRecord


def page(
    bundle: Bundle,
    verify: VerifyResult | None,
    bench: BenchResult | None,
    training: TrainingRecord | None,
    audit: AuditResult | None = None,
) -> Page:
    """Everything that the bundle and the results at hand can tell."""
    accounts = storage(bundle)
    sections = [_tie_section(bundle, accounts)]
    answers = [_tie_answer(bundle, accounts, audit)]
    if audit is not None:
        sections += ties_section.sections(audit)
    if verify is not None:
        sections.append(_verify_section(verify))
        answers.append(_verify_answer(verify))
    if bench is not None:
        sections.append(_bench_section(bench))
        answers.append(_bench_answer(bench))
    sections.append(_pictures_section(bundle, verify))
    if training is not None:
        sections.append(_training_section(training))
        answers.append(_quality_answer(training))
    sections.append(_closing_section(bundle, verify, bench, audit))
    return Page(bundle.manifest.name, _subtitle(bundle), tuple(answers), tuple(sections))


def _subtitle(bundle: Bundle) -> str:
    manifest = bundle.manifest
    autoencoder = manifest.stage("autoencoder")
    code = manifest.stage("encoder").outputs[0].element_shape
    shape = " × ".join(map(str, autoencoder.inputs[0].element_shape))
    return (
        f"{manifest.family}, {manifest.parameter_count:,} parameters, input {shape}, "
        f"code {' × '.join(map(str, code))}, weights in {', '.join(manifest.precisions)}"
    )


def _tie_answer(bundle: Bundle, accounts: list[Storage], audit: AuditResult | None) -> Answer:
    question = "Does the tie hold?"
    worst = max(accounts, key=lambda account: account.ratio)
    stored = (
        f"{size(worst.stored_bytes)} stored for {size(worst.needed_bytes)} of {worst.precision} "
        f"parameters: {worst.ratio:.3f} ×"
    )
    if not bundle.manifest.ties and not (audit and audit.failed):
        return Answer(question, "no tie", f"the model uses each weight once; {stored}")
    if not all(account.holds for account in accounts):
        return Answer(question, "no", stored, "failed")
    if audit is None:
        return Answer(question, "yes", stored, "passed")
    word, sentence, mark = tie_tables.verdict(audit)
    return Answer(question, word, f"{sentence}; {stored}", mark)


def _tie_section(bundle: Bundle, accounts: list[Storage]) -> Section:
    manifest = bundle.manifest
    table = Table(
        ("precision", "needed", "tensors", "stored", "ratio", "one copy"),
        tuple(
            (
                str(account.precision),
                f"{account.needed_bytes:,} B",
                f"{account.tensor_bytes:,} B",
                f"{account.stored_bytes:,} B",
                f"{account.ratio:.4f}",
                "yes" if account.holds else "no",
            )
            for account in accounts
        ),
        marks=tuple("passed" if account.holds else "failed" for account in accounts),
    )
    ties = Table(
        ("tied weight", "used by"),
        tuple((tie.weight, ", ".join(tie.uses)) for tie in manifest.ties),
        first_number=2,
    )
    alt = "; ".join(
        f"{account.precision}: {size(account.stored_bytes)} stored, "
        f"{size(account.needed_bytes)} needed, "
        f"{size(account.one_copy_a_use_bytes)} with one copy a use"
        for account in accounts
    )
    text = (
        "Encoder, decoder and autoencoder read one weights file a precision; what is stored is "
        f"that file with its header and all graphs. The whole bundle takes {bundle_size(bundle)}."
    )
    chart = Chart("storage", alt, pictures.storage_chart(accounts))
    return Section("One copy of every weight", text, (chart, table, Fold("The ties", ties)))


def _verify_answer(result: VerifyResult) -> Answer:
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
    return Answer(
        "Do the numbers match?",
        f"{passed} of {len(ran)}",
        f"{detail}; {absent} could not run here" if absent else detail,
        "passed" if result.passed else "failed",
    )


def _verify_section(result: VerifyResult) -> Section:
    blocks: list[Block] = []
    chart = pictures.error_chart(result)
    if chart is not None:
        alt = "; ".join(
            f"{contender(row)} {row.stage}: {tables.number(row.error_in_bounds)}"
            for row in result.comparisons
            if row.error_in_bounds is not None
        )
        blocks.append(Chart("errors", f"Worst error in units of its bound. {alt}", chart))
    blocks += [tables.comparisons(result)] if result.ran else []
    blocks += [table] if (table := tables.quality(result)).rows else []
    if reasons := layers.reasons(result):
        blocks.append(Reasons(tuple(reasons)))
    if result.ran:
        blocks += layers.folds(result)
        blocks.append(Fold("Every figure", tables.comparison_details(result)))
    text = (
        "Every output is compared with a float64 reference that travels in the bundle. Its bound "
        "follows from the types that the stage stores and sums in; nothing is tuned. An error "
        "above 1 bound is a failure."
    )
    return Section("The numbers", text, tuple(blocks))


def _bench_answer(result: BenchResult) -> Answer:
    ran = [row for row in result.latencies if row.median_s is not None]
    if not ran:
        return Answer("How fast is it?", "–", "nothing could be measured here", "failed")
    smallest = min(row.batch for row in ran)
    fastest = min(
        (row for row in ran if row.batch == smallest), key=lambda row: row.median_s or 0.0
    )
    widest = max(ran, key=lambda row: row.throughput_per_s or 0.0)
    name, tail_s = tables.tail(fastest)
    return Answer(
        "How fast is it?",
        seconds(fastest.median_s),
        f"median at batch {smallest}: {contender(fastest)}, {fastest.stage} ({name} "
        f"{seconds(tail_s)}); at best {tables.number(widest.throughput_per_s, ',.0f')} samples/s, "
        f"{contender(widest)} at batch {widest.batch}",
    )


def _bench_section(result: BenchResult) -> Section:
    blocks: list[Block] = []
    stage_tables = tables.latencies(result)
    for stage in dict.fromkeys(row.stage for row in result.latencies):
        chart = pictures.latency_chart(result, stage)
        if chart is not None:
            alt = f"Median latency of the {stage} against batch size; the table has the figures."
            blocks.append(Chart(f"latency-{stage}", alt, chart))
        blocks += [table for table in stage_tables if table.title.startswith(f"{stage}:")]
    if reasons := tables.not_run(result.latencies):
        blocks.append(Reasons(tuple(reasons)))
    if stage_tables:
        blocks.append(Fold("Every figure", tables.latency_details(result)))
    text = (
        "All contenders took turns at each batch size, so that a drift of the machine hit all "
        "alike. Every timed call counts; arrays were bound once, outside the timed calls."
    )
    return Section("The speed", text, tuple(blocks))


def _quality_answer(training: TrainingRecord) -> Answer:
    return Answer(
        "How good is it?",
        f"{training.test_rmse:.4f}",
        f"test RMSE with {training.parameters:,} parameters; PCA with the same code size "
        f"{training.pca_test_rmse:.4f}; the untied twin has {training.untied_parameters:,}",
    )


def _pictures_section(bundle: Bundle, verify: VerifyResult | None) -> Section:
    """Originals, then each distinct reconstruction and its difference from the original."""
    manifest = bundle.manifest
    stage = manifest.stage("autoencoder")
    records = verify.reconstructions if verify is not None else ()
    count = min((record.shape[0] for record in records), default=8)
    originals = images.as_images(bundle.golden[stage.inputs[0].name][:count], manifest.sample_shape)
    exact = images.as_images(bundle.golden[stage.outputs[0].name][:count], manifest.sample_shape)
    rows = {"float64 reference": exact}
    rows |= {contender(record): images.from_record(record) for record in records}
    strips = [_strip("originals", "Originals", originals)]
    for index, (label, shown) in enumerate(_merge_equal(rows).items()):
        difference = np.abs(shown - originals)
        if difference.ndim == 4:
            difference = difference.mean(axis=3)
        largest = float(difference.max()) or 1.0
        strips.append(_strip(f"reconstructions-{index}", label, shown))
        scale = f"Difference from the originals, bright = {largest:.2f}"
        strips.append(_strip(f"differences-{index}", scale, difference / largest, "inferno"))
    text = "Samples that the bundle carries. Runtimes whose images agree to 1/255 share a row."
    return Section("Originals and reconstructions", text, tuple(strips))


def _merge_equal(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows that nobody could tell apart under one label; the first of them stands for all."""
    groups: list[tuple[list[str], np.ndarray]] = []
    for label, shown in rows.items():
        for labels, first in groups:
            # 1.5 levels: two images one level apart, whichever way the reference was rounded.
            if first.shape == shown.shape and np.abs(first - shown).max() < 1.5 / 255:
                labels.append(label)
                break
        else:
            groups.append(([label], shown))
    return {", ".join(labels): shown for labels, shown in groups}


def _strip(name: str, label: str, shown: np.ndarray, colours: str = "gray") -> Strip:
    alt = f"{label}: {len(shown)} images"
    return Strip(name, label, alt, images.png(images.mosaic(shown), colours))


def _training_section(record: TrainingRecord) -> Section:
    chart = pictures.training_chart(record.train_loss_history, record.validation_rmse_history)
    alt = (
        f"Training loss and validation RMSE over {record.epochs} epochs; "
        f"best validation RMSE {record.validation_rmse:.4f}"
    )
    text = "The checkpoint of the best validation epoch is what the bundle holds."
    return Section(
        "Training", text, (Chart("training", alt, chart), origin_tables.training(record))
    )


def _closing_section(
    bundle: Bundle,
    verify: VerifyResult | None,
    bench: BenchResult | None,
    audit: AuditResult | None,
) -> Section:
    path = shlex.quote(bundle.path.name)
    lines = [f"tiedexport inspect {path}"]
    lines += [f"tiedexport audit {path}"] if audit is not None else []
    lines += [f"tiedexport verify {path}"] if verify is not None else []
    lines += [_bench_command(path, bench)] if bench is not None else []
    found = [result.environment for result in (audit, verify, bench) if result is not None]
    blocks: list[Block] = [Commands(tuple(lines))]
    distinct = [each for index, each in enumerate(found) if each not in found[:index]]
    blocks += map(origin_tables.environment, distinct)
    versions = ", ".join(f"{name} {v}" for name, v in bundle.manifest.versions.items())
    text = f"The bundle was written on {bundle.manifest.created} with {versions}."
    return Section("To repeat this", text, tuple(blocks))


def _bench_command(path: str, result: BenchResult) -> str:
    batches = ",".join(map(str, sorted({row.batch for row in result.latencies})))
    stages = "".join(
        f" --stage {name}" for name in dict.fromkeys(r.stage for r in result.latencies)
    )
    modes = sorted({row.memory for row in result.latencies})
    memory = "" if modes == ["shared"] else f" --memory {modes[0] if len(modes) == 1 else 'both'}"
    options = "".join(f" --{name} {value:.12g}" for name, value in result.options.items())
    return f"tiedexport bench {path} --batch {batches}{stages}{memory}{options}"

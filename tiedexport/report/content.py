"""What a report says: answers for the first screen, then a section a question."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiedexport.bundle import safetensors_layout
from tiedexport.report import (
    bytes_charts,
    model_charts,
    numbers_section,
    origin_tables,
    samples_section,
    server_section,
    speed_section,
    suite_section,
    tie_tables,
    ties_section,
)
from tiedexport.report.layers_chart import layers_chart
from tiedexport.report.page import Answer, Chart, Commands, Fold, Page, Section
from tiedexport.report.storage import Storage, bundle_size, storage
from tiedexport.report.tables import Table, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.bundle import Bundle
    from tiedexport.report.page import Block
    from tiedexport.results import BenchResult, VerifyResult
    from tiedexport.results.observation import Observation
    from tiedexport.results.server import ServerResult
    from tiedexport.results.suite import SuiteResult
    from tiedexport.results.ties import AuditResult
    from tiedexport.spec import TrainingRecord

NOT_OBSERVED = "tiedexport report watches the model at work; it was not asked to"


@dataclass(frozen=True)
class Found:
    """All that is known of a bundle beside itself; None of what was not run.

    Attributes:
        observation: or why there is none.
        advice: what to deploy, in a sentence; "" where nothing can be said.
    """

    verify: VerifyResult | None = None
    bench: BenchResult | None = None
    training: TrainingRecord | None = None
    audit: AuditResult | None = None
    observation: Observation | str = NOT_OBSERVED
    advice: str = ""
    servers: tuple[ServerResult, ...] = ()
    suite: SuiteResult | None = None


def page(bundle: Bundle, found: Found) -> Page:
    """Everything that the bundle and the results at hand can tell."""
    accounts = storage(bundle)
    answers = (
        _model_answer(bundle, found.training),
        _tie_answer(bundle, accounts, found.audit),
        numbers_section.answer(found.verify),
        speed_section.answer(found.bench),
    )
    sections = (
        samples_section.pictures(bundle, found.verify),
        *([_training_section(found.training)] if found.training is not None else []),
        samples_section.latent(found.observation),
        samples_section.errors(found.observation),
        _tie_section(bundle, accounts),
        *(ties_section.sections(found.audit) if found.audit is not None else []),
        *([numbers_section.section(found.verify)] if found.verify is not None else []),
        *([speed_section.section(found.bench)] if found.bench is not None else []),
        *server_section.sections(found.servers),
        *([suite_section.section(found.suite)] if found.suite is not None else []),
        _closing_section(bundle, found),
    )
    subtitle = _subtitle(bundle)
    return Page(bundle.manifest.name, subtitle, answers, sections, found.advice)


def _subtitle(bundle: Bundle) -> str:
    manifest = bundle.manifest
    ties = len(manifest.ties)
    tied = f"{ties} tied weights" if ties != 1 else "1 tied weight"
    return (
        f"{manifest.family}, {manifest.parameter_count:,} parameters, {tied}, weights in "
        f"{', '.join(manifest.precisions)}"
    )


def _model_answer(bundle: Bundle, training: TrainingRecord | None) -> Answer:
    manifest = bundle.manifest
    autoencoder, encoder = manifest.stage("autoencoder"), manifest.stage("encoder")
    ends = (autoencoder.inputs[0].element_shape, encoder.outputs[0].element_shape)
    inner, code = (" × ".join(map(str, shape)) for shape in ends)
    detail = f"values to a code of {code} and back"
    if training is not None:
        detail += (
            f"; test RMSE {training.test_rmse:.4f}, PCA with the same code size "
            f"{training.pca_test_rmse:.4f}; {training.parameters:,} parameters, its untied twin "
            f"{training.untied_parameters:,}"
        )
    weights = bundle.path / next(iter(manifest.weights.values()))
    shapes = {name: shape for name, (_, shape, *_) in safetensors_layout(weights).items()}
    blocks: list[Block] = list(samples_section.first_pictures(bundle))
    if (drawn := layers_chart(autoencoder.layers, shapes)) is not None:
        label = "Its layers; arcs join those that share a weight" if manifest.ties else "Its layers"
        blocks.append(Chart("layers", drawn, label=label))
    return Answer("What is it?", f"{inner} → {code}", detail, blocks=tuple(blocks))


def _tie_answer(bundle: Bundle, accounts: list[Storage], audit: AuditResult | None) -> Answer:
    question = "Does the tie hold?"
    worst = max(accounts, key=lambda account: account.ratio)
    stored = (
        f"files of {size(worst.stored_bytes)}, headers and graphs included, hold "
        f"{size(worst.needed_bytes)} of {worst.precision} parameters: {worst.ratio:.3f}\u00a0×"
    )
    bars = bytes_charts.stage_bars(audit) if audit is not None else []
    bars = bars or bytes_charts.storage_bars(accounts)
    drawn = bytes_charts.bytes_chart(bytes_charts.telling(bars), 38)
    blocks = (Chart("bytes", drawn),)
    if not bundle.manifest.ties and not (audit and audit.failed):
        detail = f"the model uses each weight once; {stored}"
        return Answer(question, "no tie", detail, blocks=blocks)
    if not all(account.holds for account in accounts):
        return Answer(question, "no", stored, "failed", blocks)
    if audit is None:
        detail = f"{stored}; from stage to stage: not run, tiedexport audit does it"
        return Answer(question, "yes", detail, "passed", blocks)
    word, sentence, mark = tie_tables.verdict(audit)
    return Answer(question, word, f"{sentence}; {stored}", mark, blocks)


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
    text = (
        "Encoder, decoder and autoencoder read one weights file a precision; what is stored is "
        f"that file with its header and all graphs. The whole bundle takes {bundle_size(bundle)}."
    )
    chart = Chart("storage", bytes_charts.bytes_chart(bytes_charts.storage_bars(accounts)))
    return Section("One copy of every weight", text, (chart, table, Fold("The ties", (ties,))))


def _training_section(record: TrainingRecord) -> Section:
    loss = model_charts.training_chart(record.train_loss_history, "training loss")
    rmse = model_charts.training_chart(
        record.validation_rmse_history, "validation RMSE", mark_least=True
    )
    text = "The checkpoint of the best validation epoch is what the bundle holds."
    blocks = (Chart("training-loss", loss), Chart("validation-rmse", rmse))
    return Section("Training", text, (*blocks, origin_tables.training(record)))


def _closing_section(bundle: Bundle, found: Found) -> Section:
    all_of_them = (found.audit, found.verify, found.bench, *found.servers, found.suite)
    results = [result for result in all_of_them if result is not None]
    environments = [result.environment for result in results]
    blocks: list[Block] = [Commands(_commands(bundle, found))]
    distinct = [e for index, e in enumerate(environments) if e not in environments[:index]]
    blocks += map(origin_tables.environment, distinct)
    versions = ", ".join(f"{name} {v}" for name, v in bundle.manifest.versions.items())
    text = f"The bundle was written on {bundle.manifest.created} with {versions}."
    missing = [
        f"tiedexport {verb}"
        for verb, result in (
            ("audit", found.audit), ("verify", found.verify), ("bench", found.bench),
        )
        if result is None
    ]  # fmt: skip
    if missing:
        text += f" Not run, and so not shown: {', '.join(missing)}; each writes a --json FILE."
    return Section("To repeat this", text, tuple(blocks))


def _commands(bundle: Bundle, found: Found) -> tuple[str, ...]:
    """What makes every figure of the page, and the page."""
    path = shlex.quote(bundle.path.name)
    lines, files = [f"tiedexport inspect {path}"], []
    layers = found.verify is not None and bool(found.verify.layers)
    for name, ran, command in (
        ("audit", found.audit, f"tiedexport audit {path}"),
        ("verify", found.verify, f"tiedexport verify {path}{' --layers' * layers}"),
        ("bench", found.bench, _bench_command(path, found.bench) if found.bench else ""),
        *_server_commands(path, found.servers),
        ("suite", found.suite, "tiedexport bench --suite"),
    ):
        if ran is not None:
            files.append(f"{name}.json")
            lines.append(f"{command} --json {files[-1]}")
    return (
        *lines,
        f"{shlex.join(['tiedexport', 'report', bundle.path.name, *files])} -o report.html",
    )


def _bench_command(path: str, result: BenchResult) -> str:
    batches = ",".join(map(str, sorted({row.batch for row in result.latencies})))
    stages = "".join(
        f" --stage {name}" for name in dict.fromkeys(r.stage for r in result.latencies)
    )
    modes = sorted({row.memory for row in result.latencies})
    memory = "" if modes == ["shared"] else f" --memory {modes[0] if len(modes) == 1 else 'both'}"
    options = "".join(f" --{name} {value:.12g}" for name, value in result.options.items())
    options += f" --baseline {shlex.quote(result.baseline)}" if result.baseline else ""
    options += " --roofline" if result.roofline is not None else ""
    options += " --cold" if result.cold_starts else ""
    options += " --memory-use" if result.footprints else ""
    if result.loads:
        options += f" --concurrency {max(row.callers for row in result.loads)}"
    return f"tiedexport bench {path} --batch {batches}{stages}{memory}{options}"


def _server_commands(
    path: str, servers: tuple[ServerResult, ...]
) -> Iterator[tuple[str, ServerResult, str]]:
    """(name of a file, result, what writes it there) of each server."""
    for number, one in enumerate(servers, 1):
        yield f"server-{number}" if number > 1 else "server", one, _server_command(path, one)


def _server_command(path: str, result: ServerResult) -> str:
    batches = ",".join(map(str, sorted({row.batch for row in result.rows})))
    stages = "".join(f" --stage {name}" for name in result.models)
    callers = max(row.callers for row in result.rows)
    options = "".join(f" --{name} {shlex.quote(str(v))}" for name, v in result.options.items())
    where = f"--server {shlex.quote(result.url)} --concurrency {callers}"
    return f"tiedexport bench {path} {where} --batch {batches}{stages}{options}"

"""All that computes parts of a job: opened by whoever begins it, and again by each of Ray's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

import tiedexport
from tiedexport import atomic
from tiedexport.data.tables import columns_in_words
from tiedexport.encode.job import COMPLETE, Settings, all_done, folder_lock, read_job
from tiedexport.encode.rows import Intake
from tiedexport.encode.sinks import ArraySink, ParquetSink
from tiedexport.encode.sources import open_source
from tiedexport.errors import DataError, UsageError
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session
from tiedexport.spec import STAGE_OF_VERB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.encode.job import Job
    from tiedexport.encode.rows import Source
    from tiedexport.encode.sinks import Sink
    from tiedexport.session import Session
    from tiedexport.spec import StageSpec


@dataclass(frozen=True)
class Work:
    """What a job is done with.

    Attributes:
        folder: of the job.
        sources: one an input of the job.
    """

    job: Job
    folder: Path
    sources: Sequence[Source]
    sink: Sink
    session: Session


def folder_of(output: Path) -> Path:
    """Where the record of a job lies: in the folder of Parquet parts, or beside an array."""
    return output.with_name(f"{output.name}.job") if is_array(output) else output


def is_array(output: Path) -> bool:
    """Whether the output is one .npy file."""
    return output.suffix == ".npy"


def stage_of(session: Session, verb: str) -> StageSpec:
    """The stage that a verb runs."""
    return session.bundle.manifest.stage(STAGE_OF_VERB[verb])


def open_sources(
    paths: Sequence[str], session: Session, verb: str, column: str | None, *, to_table: bool
) -> list[Source]:
    """Every input, ready to be read; for a table all have to have the same columns.

    Raises:
        ArrayError: an input does not fit the stage.
        DataError: one is damaged, of no known kind, or has other columns than the first.
        MissingRuntimeError: what reads one is not installed.
    """
    intake = Intake(stage_of(session, verb).inputs[0], images=verb != "decode", column=column)
    sources = [open_source(path, intake) for path in paths]
    for one, other in pairwise(sources if to_table else ()):
        if one.schema() != other.schema():
            raise DataError(
                "the inputs have different columns beside their samples",
                where=other.path,
                got=columns_in_words(other.schema()),
                expected=f"{columns_in_words(one.schema())}, as {one.path} has",
                hint="give each kind an -o of its own",
            )
    return sources


def open_sink(output: Path, job: Job, sources: Sequence[Source], session: Session) -> Sink:
    """Where the codes go.

    Raises:
        DataError: a column that is kept has the name of the new one.
    """
    spec = stage_of(session, job.settings.stage).outputs[0]
    if is_array(output):
        return ArraySink(output, folder_of(output), job, spec)
    return ParquetSink(output, job, spec, sources[0].schema())


def reopen(bundle: Path, output: Path) -> Work:
    """The work of a job that was begun, from its record.

    Raises:
        UsageError: this process sees other inputs or another bundle than who began the job.
    """
    job = read_job(folder_of(output))
    if job is None:
        raise UsageError("no job was begun here", where=output)
    asked = job.settings
    session = open_session(
        bundle, runtime=asked.runtime, precision=asked.precision, memory=asked.memory,
        threads=asked.threads,
    )  # fmt: skip
    sources = open_sources(
        [one.path for one in job.inputs], session, asked.stage, asked.column, to_table=False
    )
    for recorded, source in zip(job.inputs, sources, strict=True):
        if (recorded.sha256, recorded.rows) != (source.digest, source.rows):
            raise UsageError("this machine sees another file", where=recorded.path)
    sink = open_sink(output, job, sources, session)
    return Work(job, folder_of(output), sources, sink, session)


def settings_of(session: Session, output: Path, verb: str, **options: object) -> Settings:
    """What the bytes of the output depend on."""
    manifest, precision = session.bundle.manifest, session.precision
    versions = {"tiedexport": tiedexport.__version__, "numpy": np.__version__}
    versions[session.runtime] = runtime_named(session.runtime).availability().version
    if not is_array(output):
        import pyarrow

        versions["pyarrow"] = pyarrow.__version__
    return Settings(
        weights=manifest.weights_sha256[precision],
        graph=manifest.files[manifest.graphs[precision][STAGE_OF_VERB[verb]]].sha256,
        stage=verb,
        runtime=session.runtime,
        precision=str(precision),
        memory=session.memory,
        output="npy" if is_array(output) else "parquet",
        written_by=versions,
        **options,  # type: ignore[arg-type]
    )


def finish(work: Work) -> int:
    """Give the output its last form once all shards are done, and say so in a file.

    Returns:
        How many parts of all shards are not done yet.
    """
    with folder_lock(work.folder):
        done = all_done(work.folder)
        left = len(work.job.parts) - len(done)
        if not left:
            work.sink.finish()
            found = {
                "parts": len(done),
                "rows": sum(part.rows for part in done.values()),
                "rejected": sum(part.rejected for part in done.values()),
            }
            atomic.write(work.folder / COMPLETE, msgspec.json.encode(found) + b"\n")
    return left

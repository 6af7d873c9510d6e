"""`encode`: everything a user has through one stage, in parts that survive a kill."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from tiedexport.data.extras import needed_for
from tiedexport.encode import on_ray
from tiedexport.encode.job import (
    COMPLETE,
    JOB,
    REJECTED,
    Shard,
    folder_lock,
    read_job,
    refuse_changes,
    write_job,
)
from tiedexport.encode.pipeline import disk_reported, run_parts
from tiedexport.encode.planning import inputs_of, new_job, quickest_batch
from tiedexport.encode.sources import expand
from tiedexport.encode.work import (
    Work,
    finish,
    folder_of,
    is_array,
    open_sink,
    open_sources,
    settings_of,
    stage_of,
)
from tiedexport.errors import UsageError
from tiedexport.progress import Progress
from tiedexport.results.encode import EncodeResult
from tiedexport.session import open_session
from tiedexport.spec import STAGE_OF_VERB, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tiedexport.encode.rows import Source
    from tiedexport.runtimes import Memory
    from tiedexport.session import Session


def encode(
    bundle: str | Path,
    inputs: Iterable[str | Path],
    output: str | Path,
    *,
    stage: str = "encode",
    runtime: str = "auto",
    precision: str | None = None,
    memory: Memory = "shared",
    threads: int | None = None,
    shard: tuple[int, int] = (0, 1),
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    batch: int | None = None,
    column: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    part_rows: int | None = None,
    progress: Progress | None = None,
) -> EncodeResult:
    """Run everything that the inputs hold through a stage, in bounded memory.

    A call that was killed, or that a full disk or a bad row stopped, is gone on with by the same
    call; the output is then the same to the byte as if nothing had happened.

    Args:
        bundle: path of the bundle.
        inputs: Parquet, Arrow (file or stream), .npy, .npz, folders of such or of images, or
            patterns of them; samples may have their original shape, and uint8 is divided by 255.
        output: a folder for Parquet parts, or a name that ends in `.npy` for one array.
        stage: "encode", "decode" or "reconstruct".
        runtime: a name that `tiedexport doctor` lists, or "auto" for the best one here.
        precision: "fp32", "fp16" or "bf16"; by default the runtime's best that the bundle holds.
        memory: "shared" (one copy of each weight) or "packed" (the runtime's fastest layout).
        threads: CPU threads to compute with; by default the runtime's own choice, with Ray 1.
        shard: (k, n), k from 0: do the k-th of n shares, each in a process of its own.
        engine: "local", or "ray" for the machines of a Ray cluster that share a file system.
        ray_address: of the cluster; by default RAY_ADDRESS, or else one on this machine alone.
        batch: rows computed at once; by default the smallest that is about as fast as any.
        column: of a table, or member of an .npz, that holds the samples.
        on_error: "stop" at a row that cannot be computed, or "skip" it.
        part_rows: the most rows of a part; by default 131,072, or 256 MiB. A row group of a table
            is never cut.
        progress: where to show how far it is.

    Raises:
        ArrayError: an input does not fit the stage.
        BadInputError: the output cannot be written, or the record of the job is damaged.
        DataError: an input is missing or damaged, or a row cannot be computed.
        UsageError: an argument names nothing that exists, the job that was begun there is another
            one, or another process works on it.
        MissingRuntimeError: no runtime can run this here, or pyarrow, Pillow or Ray is missing.
        RuntimeFailedError: the runtime failed, in its own words.
    """
    begun, output = perf_counter(), Path(output)
    _refuse_nonsense(
        stage=stage, engine=engine, shard=shard, batch=batch, on_error=on_error,
        part_rows=part_rows,
    )  # fmt: skip
    if ray_address and engine != "ray":
        raise UsageError("the address of a cluster that is not used", hint="add --engine ray")
    paths = expand(inputs)
    if not is_array(output):
        with needed_for("Parquet", "pyarrow", extra="data"):
            importlib.import_module("pyarrow.parquet")
    if engine == "ray" and threads is None:
        threads = 1
    with open_session(
        bundle, runtime=runtime, precision=precision, memory=memory, threads=threads
    ) as session:
        sources = open_sources(paths, session, stage, column, to_table=not is_array(output))
        options = {"threads": threads, "column": column, "on_error": on_error,
                   "part_rows": part_rows, "shards": shard[1]}  # fmt: skip
        work = _begun(output, sources, session, stage, batch, options)
        run = run_parts
        if engine == "ray":
            run = partial(on_ray.run_parts, bundle=Path(bundle), output=output, address=ray_address)
        with Shard(work.folder, work.job, shard[0]) as mine:
            result = _done(work, mine, run, progress or Progress(quiet=True))
    return replace(
        result, output=str(output), engine=engine, shard=f"{shard[0]}/{shard[1]}",
        seconds=perf_counter() - begun,
    )  # fmt: skip


def _done(work: Work, mine: Shard, run: Callable[..., None], progress: Progress) -> EncodeResult:
    """Do what is left of a shard."""
    left, settings = _left(work, mine), work.job.settings
    before = sum(done.rows + done.rejected for done in mine.done.values())
    rows = sum(work.job.parts[n].stop - work.job.parts[n].start for n in mine.parts)
    started = perf_counter()
    with progress.task(settings.stage, rows, done=before) as task:
        run(work, left, mine.record, task.advance)
    computing_s = perf_counter() - started
    rejected = sum(done.rejected for done in mine.done.values())
    with disk_reported(work.folder):
        parts_left = finish(work)
    return EncodeResult(
        stage=settings.stage,
        runtime=settings.runtime,
        precision=Precision(settings.precision),
        batch=work.job.batch,
        rows=rows,
        rows_before=before,
        rejected=rejected,
        rejects=str(work.folder / REJECTED) if rejected else "",
        parts=len(mine.parts),
        parts_left=parts_left,
        rows_per_s=(rows - before) / computing_s if left else None,
    )


def _begun(
    output: Path,
    sources: list[Source],
    session: Session,
    stage: str,
    batch: int | None,
    options: dict[str, Any],
) -> Work:
    """The work of a new job, or of the one that was begun there, if it is the same.

    Raises:
        UsageError: it is not, or something else is there.
    """
    folder = folder_of(output)
    settings, inputs = settings_of(session, output, stage, **options), inputs_of(sources)
    _refuse_foreign(output, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        begun = read_job(folder)
        if begun is not None:
            refuse_changes(begun, settings, batch, inputs, folder)
        spec = stage_of(session, stage)
        job = begun or new_job(
            settings, inputs, sources, spec, batch or quickest_batch(session, spec)
        )
        work = Work(job, folder, sources, open_sink(output, job, sources, session), session)
        with disk_reported(folder):
            if begun is None:
                write_job(folder, job)
            work.sink.begin()
    return work


def _left(work: Work, mine: Shard) -> list[int]:
    """The parts that are not done, or whose file is gone."""
    for number in [n for n, done in mine.done.items() if not work.sink.intact(done)]:
        del mine.done[number]
    left = [number for number in mine.parts if number not in mine.done]
    if left:
        (work.folder / COMPLETE).unlink(missing_ok=True)
    return left


def _refuse_foreign(output: Path, folder: Path) -> None:
    if (folder / JOB).exists() or not output.exists():
        return
    names = [entry.name for entry in output.iterdir()] if output.is_dir() else [output.name]
    if not all(name.startswith(("_", ".")) for name in names):  # what a kill can leave
        raise UsageError(
            "something is there that no call of encode began",
            where=output,
            expected="a new name, or a job to go on with",
            hint="name another -o, or remove it",
        )


def _refuse_nonsense(**options: Any) -> None:
    """Refuse what is no choice at all, before anything is opened."""
    choices = {
        "stage": tuple(STAGE_OF_VERB), "engine": ("local", "ray"), "on_error": ("stop", "skip"),
    }  # fmt: skip
    for name, known in choices.items():
        if options[name] not in known:
            raise UsageError(f"unknown {name}", got=options[name], expected=", ".join(known))
    for name in ("batch", "part_rows"):
        if options[name] is not None and options[name] < 1:
            raise UsageError(f"{name} is too small", got=options[name], expected="at least 1")
    number, count = options["shard"]
    if not 0 <= number < count:
        raise UsageError(
            "no such shard", got=f"{number}/{count}", expected="K/N with K from 0 to N - 1"
        )


def summary(result: EncodeResult) -> str:
    """What was done, and what is left, in a line or two for people."""
    rate = f", {result.rows_per_s:,.0f} rows/s" if result.rows_per_s is not None else ""
    lines = [f"{result.output}: {result.rows:,} rows in {result.seconds:.1f} s{rate}"]
    if result.rows_before:
        lines.append(f"{result.rows_before:,} of them were done before")
    if result.rejected:
        lines.append(f"{result.rejected:,} rejected: {result.rejects}")
    if result.parts_left:
        lines.append(f"other shards have {result.parts_left} parts left")
    return "\n".join(lines)

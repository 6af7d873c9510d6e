"""`retie`: one physical copy of each weight in ONNX files, and the proof that all else is the same.

load → find copies → mend the graphs → write → check → prove → rename into place. On the way weights
are neither loaded nor changed, and the files that are given are never written to.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport import atomic, environment
from tiedexport.errors import UsageError
from tiedexport.progress import Progress
from tiedexport.results.ties import Left, RetieResult
from tiedexport.retie import checks, proof, write
from tiedexport.retie.given import Given, written_names
from tiedexport.retie.graph import GraphFile
from tiedexport.retie.mend import Outcome, Rules, mend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.progress import Task
    from tiedexport.retie.proof import Proof

DATA_NAME = "weights.data"
"""The external data of all graphs together."""

_SMALL_BYTES = 512  # two entries that point to a tensor take a fourth of this


@dataclass
class _Attempt:
    """Files in the staging folder, before it is known whether they may take their place."""

    outcome: Outcome
    files: list[Path]
    proof: Proof


class _WithheldError(Exception):
    """Leaves the staging folder without renaming it."""


def retie(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    atol: float = 0.0,
    accept: bool = False,
    unproven: bool = False,
    progress: Progress | None = None,
) -> RetieResult:
    """Write the same models with one copy of each weight, also across files.

    Args:
        inputs: one or more `.onnx` files; their external data lies beside them.
        output: a folder to make, or one that holds nothing but an earlier result. Graphs of one
            name get their folders' before it: encoder-model.onnx, decoder-model.onnx.
        atol: also look for weights whose elements differ by at most this.
        accept: tie these as well; without it they are only listed.
        unproven: write the result even where nothing can run the graphs.
        progress: where to show how far it is.

    Returns:
        The verdict: `outputs` is empty where the proof failed, or where there is none and it was
        not waived.

    Raises:
        GraphError: an input is no sound ONNX file.
        UsageError: the arguments contradict each other, or the folder holds something else.
        OSError: a file cannot be read or written.
    """
    started_s = time.monotonic()
    folder, rules = Path(output), Rules(atol, accept)
    several = [inputs] if isinstance(inputs, str | Path) else inputs
    paths = [Path(path) for path in several]
    _check_options(paths, rules)
    given = Given.read(paths)
    _check_folder(folder, given)
    outputs: tuple[str, ...] = ()
    before = after = given.size_bytes
    shown = (progress or Progress(quiet=True)).task("retie", 4)
    try:
        with shown as task, atomic.replacing_directory(folder) as staging:
            attempt = _best(given, staging, rules, task)
            after = _size_bytes(attempt.files)
            if attempt.proof.verdict == "failed" or not (attempt.proof.holds or unproven):
                raise _WithheldError
        outputs = tuple(str(folder / path.relative_to(staging)) for path in attempt.files)
    except _WithheldError:
        pass  # the result says why
    return _result(given, attempt, outputs, (before, after), time.monotonic() - started_s)


def _result(
    given: Given,
    attempt: _Attempt,
    outputs: tuple[str, ...],
    sizes_bytes: tuple[int, int],
    seconds: float,
) -> RetieResult:
    return RetieResult(
        inputs=tuple(map(str, given.paths)),
        outputs=outputs,
        mends=tuple(attempt.outcome.mends),
        left=tuple(attempt.outcome.left),
        proposals=tuple(attempt.outcome.proposals),
        proof=attempt.proof.verdict,
        proof_detail=attempt.proof.detail,
        bytes_before=sizes_bytes[0],
        bytes_after=sizes_bytes[1],
        environment=environment.current(),
        seconds=seconds,
    )


def _check_options(paths: list[Path], rules: Rules) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: as `retie`.
    """
    if not paths:
        raise UsageError("no file to retie", expected="one or more .onnx files")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("one file is given twice", got=", ".join(map(str, paths)))
    names = [*written_names(paths), DATA_NAME]
    if len(set(names)) < len(names):
        raise UsageError("two files would have one name", got=", ".join(names))
    if not 0 <= rules.atol < math.inf:
        raise UsageError("no such tolerance", got=rules.atol, expected="a number, 0 or above")
    if rules.accept and not rules.atol:
        raise UsageError("nothing to accept", expected="--atol above 0 together with --accept")


def _check_folder(folder: Path, given: Given) -> None:
    """Refuse to overwrite anything but an earlier result, before anything is done.

    Raises:
        UsageError: as `retie`.
    """
    for file in given.files:
        if file.is_relative_to(folder.resolve()):
            raise UsageError("the output folder holds an input", where=folder, got=file)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError("the output is no folder", where=folder)
    ours = {DATA_NAME, *given.names}
    ours.update(Path(location).parts[0] for files in given.data.values() for location in files)
    if foreign := sorted({path.name for path in folder.iterdir()} - ours):
        raise UsageError(
            "the output folder holds other files",
            where=folder,
            got=", ".join(foreign[:5]),
            expected="a new folder, or an earlier result of the same files",
        )


def _best(given: Given, staging: Path, rules: Rules, task: Task) -> _Attempt:
    """The first attempt that is no larger than the inputs and that is proven."""
    while True:
        task.done = 0
        files = [GraphFile(*pair) for pair in zip(given.paths, given.names, strict=True)]
        outcome = mend(files, rules)
        task.advance(note=f"{len(outcome.mends)} copies found")
        if not outcome.mends and not given.is_scattered:
            return _unchanged(given, staging, outcome, task)
        layout = write.Layout(files, DATA_NAME)
        layout.place(given.size_bytes)
        written = layout.write(staging)
        task.advance(note="written")
        if _size_bytes(written) > given.size_bytes:
            attempt = None
        else:
            attempt = _Attempt(outcome, written, _proven(given, written, outcome, task))
            task.advance(note=attempt.proof.verdict)
            if attempt.proof.holds:
                return attempt
        again = _gentler(rules, outcome, is_larger=attempt is None)
        if attempt is not None and again is None and outcome.mends:
            return attempt
        for path in written:
            path.unlink()
        if again is None:
            return _unchanged(given, staging, _given_up(outcome), task)
        rules = again


def _proven(given: Given, written: list[Path], outcome: Outcome, task: Task) -> Proof:
    graphs = written[: len(given.paths)]
    remark = checks.check_graphs(given.paths, graphs)
    checks.check_ties(graphs, outcome.left_keys)
    task.advance(note="checked")
    return proof.prove(given.paths, graphs, outcome.changes, remark, outcome.touched)


def _gentler(rules: Rules, outcome: Outcome, *, is_larger: bool) -> Rules | None:
    """What may do better after an attempt; None if nothing will."""
    if is_larger:
        small = replace(rules, smallest_bytes=_SMALL_BYTES)
        return small if outcome.mends and small != rules else None
    # A Gemm may add up in another order, and does so in some builds of ONNX Runtime: a Transpose
    # before it adds up nothing.
    turned = any("Gemm" in mend.how for mend in outcome.mends)
    return replace(rules, gemm_flags=False) if turned else None


def _size_bytes(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _unchanged(given: Given, staging: Path, outcome: Outcome, task: Task) -> _Attempt:
    task.advance(task.total - task.done, note="nothing to mend")
    detail = "nothing to mend: the outputs are the inputs, byte for byte"
    return _Attempt(outcome, given.copy(staging), proof.Proof("bit for bit", detail))


def _given_up(outcome: Outcome) -> Outcome:
    """All copies left, as the files would grow by what ties them."""
    reason = "what would tie it takes more bytes than it saves"
    left = [Left(mend.kept, mend.removed, mend.form, reason) for mend in outcome.mends]
    return Outcome(left=[*outcome.left, *left], proposals=outcome.proposals)

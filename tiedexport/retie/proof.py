"""The proof that mended graphs compute what the given ones did: both are read, and both run.

First each node has to read the bits that it read before (`retie.reading`), whatever the inputs.
Then both run on random inputs, as a runtime may take a stored weight otherwise than a derived one.
ONNX Runtime runs them as they stand: optimisations off, as they would untie the weights again, and
prepacking off, as it changes the order of sums for constants only. Then a stored weight and one
that a Transpose makes at run time give the same bits, and the same bits are asked for.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

from tiedexport import onnx_files
from tiedexport.feeds import feeds, smallest_table
from tiedexport.retie import bound, protos, reading

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tiedexport.feeds import Feed
    from tiedexport.retie.mend import Change
    from tiedexport.stored import Place

Verdict = Literal["bit for bit", "within bound", "not proven", "failed"]

_RUNS = 4
LIMIT_S = 600.0
"""A run that takes longer is taken for a loop without end."""


@dataclass(frozen=True)
class Proof:
    """The verdict on all files, and on which inputs it rests or why there is none."""

    verdict: Verdict
    detail: str

    @property
    def holds(self) -> bool:
        """Whether the outputs were compared and are right."""
        return self.verdict in ("bit for bit", "within bound")


class _RefusedError(Exception):
    """ONNX Runtime cannot load or run a graph; in its own words."""


class _EndlessError(_RefusedError):
    """A run that had to be stopped: other inputs are not worth the wait."""


def prove(
    originals: Sequence[Path],
    mended: Sequence[Path],
    changes: Sequence[Change] = (),
    remark: str = "",
    touched: Container[Place] | None = None,
) -> Proof:
    """Compare each mended graph with the one it was made from.

    Args:
        originals: the given graphs.
        mended: the written ones, in the same order.
        changes: weights whose values changed because that was accepted.
        remark: what else there is to say.
        touched: where the weights lie that some mend touched; None for all.
    """
    proofs = [
        _prove_one(original, result, [c for c in changes if c.file == index], touched)
        for index, (original, result) in enumerate(zip(originals, mended, strict=True))
    ]
    worst = max((proof.verdict for proof in proofs), key=_SEVERITY.index)
    if len({proof.detail for proof in proofs}) > 1:
        details = [
            f"{path.name}: {proof.detail}" for path, proof in zip(mended, proofs, strict=True)
        ]
    else:
        details = [proofs[0].detail]
    return Proof(worst, "; ".join(filter(None, [*details, remark])))


_SEVERITY: tuple[Verdict, ...] = ("bit for bit", "within bound", "not proven", "failed")


def _prove_one(
    original: Path, mended: Path, changes: Sequence[Change], touched: Container[Place] | None
) -> Proof:
    try:
        turned = reading.turned_gemms(original, mended, changes, touched)
    except reading.UnlikeError as error:
        return Proof("failed", f"{mended.name} is another graph: {error}")
    try:
        import onnxruntime
    except ImportError as error:
        return Proof("not proven", f"{error}; pip install 'tiedexport[cpu]'")
    values = {change.old.name: change.new() for change in changes}
    try:
        words, runs = _accepted(Runner(original, values), smallest_table(onnx_files.load(original)))
    except (_RefusedError, ValueError) as error:
        return Proof("not proven", str(error))
    detail = f"{len(runs)} runs in ONNX Runtime {onnxruntime.__version__}: {words}"
    try:
        result = Runner(mended)
        for feed, expected in runs:
            if not _same(expected, result.run(feed)):
                again = Runner(original, values)
                if not _same(again.run(feed), again.run(feed)):
                    return Proof("not proven", "the graph's own outputs differ from run to run")
                return Proof("failed", f"other outputs than the given graph in {detail}")
    except _RefusedError as error:
        return Proof("failed", f"only the given graph runs: {error}")
    for name in turned:
        if not _matters(mended, name, runs):
            return Proof("not proven", f"no input tells in which order the Gemm of {name} adds up")
    if not changes:
        return Proof("bit for bit", f"{detail}; and each node reads the same bits")
    return _bounded(original, mended, changes, runs, detail)


def _bounded(
    original: Path,
    mended: Path,
    changes: Sequence[Change],
    runs: list[tuple[Feed, list[Any]]],
    detail: str,
) -> Proof:
    """What the accepted changes do to the nodes that read them, and to the outputs."""
    feeds = [feed for feed, _ in runs]
    try:
        strayed = bound.worst(original, changes, feeds, Runner, mended.parent)
        given = Runner(original)
        change = max(_largest_change(given.run(feed), outputs) for feed, outputs in runs)
    except (_RefusedError, bound.UnboundedError) as error:
        return Proof("not proven", str(error))
    if strayed.ratio > 1:
        return Proof("failed", f"a node strays by {strayed.ratio:.3g} of its bound in {detail}")
    words = f"each node within its bound, at most {strayed.ratio:.3g} of it"
    if strayed.passed_on:
        words += f"; what {', '.join(strayed.passed_on)} moves on has no bound where it is read"
    return Proof("within bound", f"{words}; outputs change by up to {change:.3g} in {detail}")


def _largest_change(before: Any, after: Any) -> float:
    """Of numbers among the outputs; infinite where they are not the same kind of thing."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return max(map(_largest_change, before, after), default=0.0)
    arrays = isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
    if not arrays or before.shape != after.shape or before.dtype.kind not in "fiub":
        return 0.0 if _same(before, after) else np.inf
    return float(np.max(bound.differences(before, after), initial=0.0))


def _matters(mended: Path, gemm: str, runs: list[tuple[Feed, list[Any]]]) -> bool:
    """Whether an output moves with what a Gemm makes, so that equal outputs tell of its bits."""
    model = onnx.load(mended, load_external_data=False)
    for node in protos.nodes_in(model.graph):
        if node.op_type == "Gemm" and gemm in node.output:
            scales = [a for a in node.attribute if a.name == "alpha"]
            alpha = (
                scales[0]
                if scales
                else node.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, f=1.0)
            )
            alpha.f *= -1.5
    with tempfile.NamedTemporaryFile(dir=mended.parent, suffix=".onnx") as probe:
        probe.write(model.SerializeToString())
        probe.flush()
        other = Runner(Path(probe.name))
        return not all(_same(expected, other.run(feed)) for feed, expected in runs)


def _accepted(runner: Runner, table: int | None) -> tuple[str, list[tuple[Feed, list[Any]]]]:
    """Inputs that the graph takes, with its outputs: the first kind with which it computes.

    Raises:
        ValueError: no inputs can be made.
        _RefusedError: it runs on none.
    """
    refusal = _RefusedError("its outputs hold no number on any random input")
    for words, candidates in feeds(runner.inputs, table):
        runs: list[tuple[Feed, list[Any]]] = []
        for feed in candidates:
            if len(runs) == _RUNS:
                break
            try:
                outputs = runner.run(feed)
            except _EndlessError:
                raise
            except _RefusedError as error:
                refusal = error
            else:
                if _tells(outputs):
                    runs.append((feed, outputs))
        if runs:
            return words, runs
    raise refusal


class Runner:
    """One graph in ONNX Runtime, as it stands.

    Args:
        model: a file, or a serialised model without external data.
        values: initializer → what it holds instead.

    Raises:
        _RefusedError: ONNX Runtime cannot load it.
    """

    def __init__(self, model: Path | bytes, values: dict[str, np.ndarray] | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._name = "a node" if isinstance(model, bytes) else model.name
        try:
            # ONNX Runtime keeps the addresses of these and nothing else.
            self._kept = {
                name: onnxruntime.OrtValue.ortvalue_from_numpy(array)
                for name, array in (values or {}).items()
            }
            for name, value in self._kept.items():
                options.add_initializer(name, value)
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            raise self._refused("load", error) from error
        self.inputs: list[Any] = self._session.get_inputs()

    def run(self, feed: Feed) -> list[Any]:
        """Every output.

        Raises:
            _RefusedError: ONNX Runtime fails, or does not end.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        timer = threading.Timer(LIMIT_S, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            outputs: list[Any] = self._session.run(None, feed, options)
        except Exception as error:
            if options.terminate:
                raise _EndlessError(f"{self._name} did not end within {LIMIT_S:g} s") from error
            raise self._refused("run", error) from error
        finally:
            timer.cancel()
        return outputs

    def _refused(self, verb: str, error: Exception) -> _RefusedError:
        words = " ".join(str(error).split())[:300]
        return _RefusedError(f"ONNX Runtime cannot {verb} {self._name}: {words}")


def _same(first: Any, second: Any) -> bool:
    """Equal bit for bit, NaN and signs of zero included."""
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if not isinstance(first, np.ndarray):
        return bool(first == second)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype.kind in "OU":
        return np.array_equal(first, second)
    return np.array_equal(_bytes(first), _bytes(second))


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _tells(outputs: list[Any]) -> bool:
    """Whether something was computed: a number that is finite, or anything but floats."""
    arrays = [output for output in outputs if isinstance(output, np.ndarray)]
    floats = [array for array in arrays if array.dtype.kind == "f"]
    return len(floats) < len(outputs) or any(np.isfinite(array).any() for array in floats)

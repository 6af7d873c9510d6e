"""What runs: ONNX Runtime's own graph and the memory of processes, seen from outside."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from audited_things import BOTH, TWICE
from conftest import make_checkpoint, needs_native
from retied import model, weight

from tiedexport.audit import audit, child, optimised, process
from tiedexport.audit.child import Done, OpenBundle, OpenGraphs, Optimise
from tiedexport.audit.given import Given
from tiedexport.audit.process import MARGIN, judge
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.results.ties import AuditResult, Stage

MIB = 1 << 20
OPTIMISED, PROCESS = "ONNX Runtime's optimised graph", "process memory"

MATMULS = (
    "mm (float[N, 640] x) => (float[N, 640] y) "
    "{ t = Transpose <perm = [1, 0]> (w) z = MatMul(x, t) y = MatMul(z, w) }"
)


def rows(result: AuditResult, name: str) -> list[Stage]:
    return [row for row in result.stages if row.name == name]


def square(graph: str, width: int) -> str:
    """The graph with another width: large enough to show in the memory of a process."""
    return re.sub(r"\b(24|40)\b", str(width), graph)


def written(path: Path, graph: str, **tensors: np.ndarray) -> Path:
    onnx.save(model(graph, **tensors), path)
    return path


@pytest.fixture(scope="module")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One tied weight of 4 MiB in fp32: enough to show in the memory of a process."""
    folder = tmp_path_factory.mktemp("wide")
    save_checkpoint(folder / "wide.pt", make_checkpoint("autoencoder", {"widths": [1024, 1024]}))
    build(folder / "wide.pt", folder / "wide.tied", precision="fp32,fp16", target=())
    return open_bundle(folder / "wide.tied")


@needs_native
def test_a_bundle_holds_one_copy_in_the_native_runtime_in_every_precision(
    wide_bundle: Bundle,
) -> None:
    default, *others = rows(audit([wide_bundle.path]), PROCESS)
    assert default.subject == "native fp32 memory=shared"
    assert (default.status, default.counts) == ("one copy", True)
    assert default.needed_bytes <= default.stored_bytes <= MARGIN * default.needed_bytes + MIB
    assert [row.subject for row in others] == ["native fp16 memory=shared"]
    assert all((row.status, row.counts) == ("one copy", False) for row in others)


def test_a_bundle_holds_one_copy_in_onnxruntime_and_more_where_it_is_asked_to(
    wide_bundle: Bundle, without_native: None
) -> None:
    result = audit([wide_bundle.path])
    default, *others = rows(result, PROCESS)
    assert default.subject == "onnxruntime fp32 memory=shared"
    assert (default.status, default.counts) == ("one copy", True)
    assert default.needed_bytes <= default.stored_bytes <= MARGIN * default.needed_bytes + MIB
    assert [row.subject for row in others] == [
        "onnxruntime fp32 memory=packed",
        "onnxruntime fp16 memory=shared",
    ]
    assert all((row.status, row.counts) == ("copies", False) for row in others)
    assert result.passed
    assert "fp32" in others[-1].reason


def test_a_large_bundle_is_opened_by_default_only_and_deep_in_every_runtime(
    wide_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(job: OpenBundle) -> list[Done]:
        runtime = "onnxruntime" if job.runtime == "auto" else job.runtime
        return [Done(runtime=runtime, precision=job.precision or "fp32")]

    monkeypatch.setattr(process, "ask", answer)
    monkeypatch.setattr(process, "LARGEST_BYTES", 1000)
    assert [row.counts for row in process.examine(Given(bundle=wide_bundle), [])] == [True]
    found = process.examine(Given(bundle=wide_bundle, deep=True), [])
    assert {"onnxruntime", "torch"} <= {row.subject.split()[0] for row in found}
    assert [row.counts for row in found] == [True] + [False] * (len(found) - 1)
    assert len({row.subject for row in found}) == len(found)


@pytest.mark.parametrize(("width", "data"), [(640, ""), (1024, "both.bin")])
def test_a_graph_with_a_transpose_is_one_copy_in_memory(
    width: int, data: str, tmp_path: Path
) -> None:
    made = model(square(BOTH, width), w=weight(width, width))
    path = tmp_path / "both.onnx"
    onnx.save(made, path, save_as_external_data=bool(data), location=data, size_threshold=0)
    shared, defaults = rows(audit([path]), PROCESS)
    assert (shared.status, shared.counts) == ("one copy", True)
    assert (defaults.status, defaults.counts) == ("copies", False)
    assert shared.stored_bytes < defaults.stored_bytes


def test_a_stored_transpose_is_a_second_copy_in_memory(tmp_path: Path) -> None:
    w = weight(640, 640)
    graph = square(TWICE, 640)
    path = written(tmp_path / "twice.onnx", graph, w=w, across=np.ascontiguousarray(w.T))
    shared, defaults = rows(audit([path]), PROCESS)
    assert (shared.status, shared.counts) == ("copies", True)
    assert shared.stored_bytes > 1.9 * w.nbytes
    assert not defaults.counts


def test_a_matmul_loses_its_tie_to_the_defaults_only(tmp_path: Path) -> None:
    path = written(tmp_path / "mm.onnx", MATMULS, w=weight(640, 640))
    shared, defaults = rows(audit([path]), OPTIMISED)
    assert (shared.status, shared.counts) == ("one copy", True)
    assert (defaults.status, defaults.counts) == ("copies", False)
    (tie,) = defaults.ties
    assert [copy.form for copy in tie.copies] == ["original", "transposed"]
    assert {copy.file for copy in tie.copies} >= {"memory"}


def test_what_onnx_runtime_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    graph = square(BOTH.replace("Transpose", "own.Swirl"), 640)
    path = written(tmp_path / "swirl.onnx", graph, w=weight(640, 640))
    result = audit([path])
    for name in (OPTIMISED, PROCESS):
        for row in rows(result, name):
            assert row.status == "not run"
            assert "Swirl" in row.reason
    assert result.passed


def test_an_input_that_cannot_be_made_up_leaves_the_question_open(tmp_path: Path) -> None:
    graph = (
        "g (seq(float[N, 640]) s, int64 i) => (float[N, 640] y) { x = SequenceAt(s, i) "
        "z = Gemm <transB = 1> (x, w) t = Transpose <perm = [1, 0]> (w) "
        "y = Gemm <transB = 1> (z, t) }"
    )
    path = written(tmp_path / "sequence.onnx", graph, w=weight(640, 640))
    shared, _ = rows(audit([path]), PROCESS)
    assert shared.status == "not proven"
    assert shared.reason.startswith("opened, but not run to its end: ")


@pytest.mark.parametrize("deep", [False, True])
def test_many_weights_are_run_only_where_that_is_asked_for(
    deep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimised, "LARGEST_BYTES", 1000)
    path = written(tmp_path / "both.onnx", BOTH, w=weight(24, 40))
    result = audit([path], deep=deep)
    (row, *_) = rows(result, OPTIMISED)
    assert (row.status == "not run") is not deep
    assert ("--deep" in row.reason) is not deep


@pytest.mark.parametrize(
    ("needed", "tied", "grown", "overhead", "status"),
    [
        (100, 90, 100, 10, "one copy"),
        (100, 90, 135, 10, "one copy"),
        (100, 90, 136, 10, "copies"),
        (100, 35, 900, 10, "not run"),
        (100, 90, 100, 80, "not run"),
    ],
)
@pytest.mark.parametrize("unrun", ["", "no input"])
def test_the_rule_of_one_copy(
    needed: int, tied: int, grown: int, overhead: int, status: str, unrun: str
) -> None:
    """In MiB: 135.25 are the most that one copy of 100 takes beside sessions of 10."""
    done = Done(grown_bytes=grown * MIB, overhead_bytes=overhead * MIB, unrun=unrun)
    found, reason = judge(needed * MIB, tied * MIB, done)
    expected = "not proven" if unrun and status != "not run" else status
    assert found == expected
    assert bool(reason) is (expected != "one copy")


def test_a_job_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "both.onnx", BOTH, w=weight(24, 40))
    out = tmp_path / "out.onnx"
    failed, done = child.ask(
        OpenGraphs(("nowhere.onnx",), "shared", (), (1,)), Optimise(str(path), str(out), "shared")
    )
    assert "nowhere.onnx" in failed.failed
    assert not done.failed
    assert out.is_file()


def test_a_process_that_dies_or_takes_too_long_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Optimise("model.onnx", str(tmp_path / "out.onnx"), "shared")
    monkeypatch.setattr(child, "TIME_LIMIT_S", 0.01)
    (done,) = child.ask(job)
    assert "more than 0.01 s" in done.failed
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (done,) = child.ask(job)
    assert "died, exit code 1" in done.failed
